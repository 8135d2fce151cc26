"""A root page brought up to date without being rendered anew: only what changed is, the rest is copied as it is.

At 700,000 projects a root page has 35 MB, of which a minute of upstream's life changes some kilobytes.  The entries
stand in the order of the normal names, so each place is found by bisection; only entries on that way are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from heliostat.errors import Refused
from heliostat.names import normalise

#: The most bytes in front of the first entry.
_MOST_HEAD = 4096
#: From here on an entry is looked for one by one.
_NEAR = 512


class Form(NamedTuple):
    """How entries stand in a page that :mod:`heliostat.pages.render` wrote."""

    #: The end of what stands in front of the first entry, and the whole of what stands behind the last one.
    before: bytes
    after: bytes
    #: How an entry begins and ends, and what stands between two.
    begin: bytes
    end: bytes
    between: bytes
    #: Finds a project's name, in any spelling, in its entry.
    name: re.Pattern[bytes]

    @property
    def border(self) -> bytes:
        return self.end + self.between + self.begin


JSON = Form(
    b'"projects":[',
    b"]}\n",
    b"{",
    b"}",
    b",",
    re.compile(rb'\{(?:"_last-serial":[0-9]+,)?"name":"([A-Za-z0-9._-]+)"\}'),
)
HTML = Form(
    b"<body>\n", b"\n</body>\n</html>", b"<a ", b"</a>", b"\n",
    re.compile(rb'<a href="([a-z0-9-]+)/">[A-Za-z0-9._-]+</a>'),
)  # fmt: skip


class Unspliceable(ValueError):
    """The page is not one of ours, or has no entries: it has to be rendered as a whole."""


def splice(
    page: Iterable[bytes], form: Form, head: bytes, changes: Sequence[tuple[str, bytes | None]]
) -> Iterator[bytes]:
    """``page``, in pieces of any size, with a new head and with ``changes``, in pieces.

    ``head`` is all that stands in front of the first entry; ``changes`` are pairs of normal name and entry, None where
    there is none any more, in the order of the names.  Holds one piece at a time.  Raises Unspliceable, maybe late.
    """
    pending = _Pending(changes)
    between = b""
    yield head
    for block in _blocks(page, form):
        for part in _spliced(block, form, pending):
            yield between + part
            between = form.between
    for part in pending.until(None):
        yield between + part
        between = form.between
    if not between:
        raise Unspliceable("no entries are left")
    yield form.after


class _Pending:
    """Changes that have not come up yet."""

    def __init__(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        self._changes, self._at = changes, 0

    @property
    def name(self) -> str | None:
        """Whose turn it is."""
        return self._changes[self._at][0] if self._at < len(self._changes) else None

    def take(self) -> bytes | None:
        self._at += 1
        return self._changes[self._at - 1][1]

    def until(self, last: str | None) -> Iterator[bytes]:
        """The entries of what is left up to ``last``."""
        while self.name is not None and (last is None or self.name <= last):
            if entry := self.take():
                yield entry


def _blocks(page: Iterable[bytes], form: Form) -> Iterator[bytes]:
    """Runs of whole entries, without what stands in front of the first and behind the last of them."""
    buffer, begun, cut_off = b"", False, len(form.end)
    for piece in page:
        buffer += piece
        if not begun:
            start = buffer.find(form.before, 0, _MOST_HEAD)
            if start < 0:
                if len(buffer) > _MOST_HEAD:
                    raise Unspliceable("it begins otherwise")
                continue
            buffer, begun = buffer[start + len(form.before) :], True
        cut = buffer.rfind(form.border)
        if cut >= 0:
            yield buffer[: cut + cut_off]
            buffer = buffer[cut + cut_off + len(form.between) :]
    if not begun or not buffer.endswith(form.after):
        raise Unspliceable("it ends otherwise")
    yield buffer[: -len(form.after)]


def _spliced(block: bytes, form: Form, pending: _Pending) -> Iterator[bytes]:
    """The block's parts, with those changes that belong in front of its last entry, or to it."""
    last = _name(block, block.rfind(form.border) + len(form.end + form.between) if form.border in block else 0, form)[0]
    at = 0
    while pending.name is not None and pending.name <= last:
        found, end, same = _place(block, at, pending.name, form)
        if found > at:
            yield block[at : found - len(form.between)]
        if entry := pending.take():
            yield entry
        at = end + len(form.between) if same else found
    if at < len(block):
        yield block[at:]


def _place(block: bytes, low: int, name: str, form: Form) -> tuple[int, int, bool]:
    """The first entry from ``low`` on whose name is not before ``name``: its beginning, its end, whether it is it.

    There is one; ``low`` is the beginning of an entry.
    """
    high, skip = len(block), len(form.end + form.between)
    while high - low > _NEAR:
        middle = (low + high) // 2
        border = block.find(form.border, middle, high)
        if border < 0 or border + skip >= high:
            high = middle
        elif _name(block, border + skip, form)[0] < name:
            low = border + skip
        else:
            high = border
    while True:
        found, end = _name(block, low, form)
        if found >= name:
            return low, end, found == name
        low = end + len(form.between)


def _name(block: bytes, start: int, form: Form) -> tuple[str, int]:
    """The normal name in the entry that begins at ``start``, and the entry's end."""
    entry = form.name.match(block, start)
    if entry is None or not (entry.end() == len(block) or block.startswith(form.border, entry.end() - len(form.end))):
        raise Unspliceable("an entry that is not ours")
    try:
        return normalise(entry[1].decode("ascii")), entry.end()
    except Refused:
        raise Unspliceable("an entry whose name is refused") from None
