"""What is wrong with a value, and where that stands in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from heliostat.errors import printable


class Problem(Exception):
    """``found`` pairs "what is wrong; what to do" with the text of the list entry that it concerns, if any."""

    def __init__(self, *found: str | tuple[str, str | None]) -> None:
        self.found = [(item, None) if isinstance(item, str) else item for item in found]
        super().__init__("; ".join(text for text, _ in self.found))


def without_credentials(url: str) -> str:
    """``url`` fit for messages: everything before its last ``@`` goes, whether it is a valid URL or not."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else url.rpartition("@")[2]


def shown(word: str) -> str:
    """A key as it can stand in a message."""
    return word if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", word) else printable(word, 60)


def suggest(word: object, known: Iterable[str]) -> str:
    """``; did you mean X?`` for a known word close to ``word``, else nothing."""
    import difflib

    close = difflib.get_close_matches(str(word)[:60].lower().replace("_", "-"), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class Lines:
    """Where things stand in the text, found by looking at it again: tomllib keeps no positions."""

    _SECTION = re.compile(r"\s*\[\s*([^\[\]#]+?)\s*\]\s*(?:#.*)?\Z")
    _KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")

    def __init__(self, text: str) -> None:
        self._text = text.split("\n")
        self._at: dict[tuple[str, ...], int] = {}
        section: tuple[str, ...] = ()
        for number, line in enumerate(self._text, 1):
            if found := self._SECTION.match(line):
                section = self._words(found[1])
                self._at.setdefault(section, number)
            elif found := self._KEY.match(line):
                self._at.setdefault(section + self._words(found[1]), number)

    @staticmethod
    def _words(dotted: str) -> tuple[str, ...]:
        return tuple(part.strip().strip("\"'") for part in dotted.split("."))

    def of(self, section: str, key: str | None = None, item: str | None = None) -> int:
        """The line of ``key``, or of the last place of ``item`` in its list; else the nearest place known."""
        start = self._at.get((section,) if key is None else (section, key), self._at.get((section,), 1))
        if not item:
            return start
        end = min((at for at in self._at.values() if at > start), default=len(self._text) + 1)
        places = [
            at for at in range(start, end) if f'"{item}"' in self._text[at - 1] or f"'{item}'" in self._text[at - 1]
        ]
        return places[-1] if places else start
