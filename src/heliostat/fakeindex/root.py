"""The list of all projects, rendered in sections, of which a change renders only its own again."""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice

from heliostat.fakeindex import render
from heliostat.fakeindex.index import Index

_SECTION = 2_000


class _Section:
    """Rendered entries of the names from one bound up to the next."""

    __slots__ = ("html", "json")

    def __init__(self) -> None:
        self.json: bytes | None = None
        self.html: bytes | None = None


class RootList:
    """``/simple/`` of an index, as it is at each call."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lows: list[str] = []
        self._sections: list[_Section] = []
        self._read = 0
        self._bulks = -1

    def json(self, *, serial_as_text: bool = False) -> bytes:
        self._forget_changed()
        parts = []
        for number, section in enumerate(self._sections):
            if section.json is None:
                entries = self._entries(number)
                section.json = render.root_json_entries((display, serial) for _, display, serial in entries)
            if section.json:
                parts.append(section.json)
        head = render.root_json_head(self._index.serial, serial_as_text=serial_as_text)
        return head + b",".join(parts) + render.ROOT_JSON_TAIL

    def html(self) -> bytes:
        self._forget_changed()
        parts = [render.ROOT_HTML_HEAD]
        for number, section in enumerate(self._sections):
            if section.html is None:
                section.html = render.root_html_entries((name, display) for name, display, _ in self._entries(number))
            parts.append(section.html)
        return b"".join(parts) + render.ROOT_HTML_TAIL

    def _entries(self, number: int) -> list[tuple[str, str, int]]:
        high = self._lows[number + 1] if number + 1 < len(self._lows) else None
        entries = self._index.entries(self._lows[number], high)
        return [(name, display, serial) for name, display, serial, quarantined in entries if not quarantined]

    def _forget_changed(self) -> None:
        if self._bulks != len(self._index.bulks):
            self._divide()
            return
        changes = self._index.changes
        for name in islice(changes, self._read, None):
            section = self._sections[bisect_right(self._lows, name) - 1]
            section.json = section.html = None
        self._read = len(changes)

    def _divide(self) -> None:
        """Bounds anew, at the first use and after very many projects came at once."""
        self._bulks, self._read = len(self._index.bulks), len(self._index.changes)
        self._lows = ["", *islice(self._index.projects(), _SECTION, None, _SECTION)]
        self._sections = [_Section() for _ in self._lows]
