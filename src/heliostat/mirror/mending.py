"""Damaged segments of the change feed are written anew, byte for byte where that is possible.

A segment of which the ledger still has every row is mended in place: what is right stays as it is, and what is not is
written from the ledger, filled up with spaces, so that no offset that anybody noted moves.  Who follows the feed
does not learn of it.  Where that cannot be done it begins anew, see :func:`heliostat.mirror.segments.write_changes`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import msgspec

from heliostat.errors import Invalid
from heliostat.mirror.segments import read_head
from heliostat.pages.changes import (
    FOLDER,
    MOST_ROW,
    SEGMENT_ROWS,
    Change,
    Head,
    parse_row,
    row_bytes,
    segment_name,
    segment_start,
)
from heliostat.state.ledger import Ledger
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)

_ROWS = 200


class _Unmendable(Exception):
    """The rows as the ledger has them need more room than there is."""


def mend_changes(tree: Tree, ledger: Ledger, names: Iterable[str]) -> bool:
    """Mend the files of these ``names`` in the feed's folder; False when one cannot be.  In the keeper's thread."""
    head = read_head(tree)
    if head is None or head.mirror != ledger.get("changes_id") or head.number > ledger.changelog.last:
        return False
    starts = range(segment_start(head.first), head.number + 1, SEGMENT_ROWS)
    known = {segment_name(start): start for start in starts}
    for name in names:
        start = known.get(name)
        if start is None or max(start, head.first) < ledger.changelog.first:
            return False
        made: list[str] = []
        try:
            staged = tree.stage(_Segment(tree, ledger, head, start).pieces(), f"{FOLDER}/{name}", made=made)
        except _Unmendable:
            tree.unstage(made, (), ())
            return False
        tree.disk.sync()
        tree.show([staged])
        tree.disk.sync()
        log.warning("%s/%s: damaged; written again as the ledger has it", FOLDER, name)
    return True


class _Segment:
    """One segment, of which the ledger has all rows."""

    def __init__(self, tree: Tree, ledger: Ledger, head: Head, start: int) -> None:
        self._tree, self._ledger, self._head = tree, ledger, head
        self._path = f"{FOLDER}/{segment_name(start)}"
        self._first, newest = max(start, head.first), start == head.start
        self._last = head.number if newest else start + SEGMENT_ROWS - 1
        #: How long it has to be; a full one may have any length.
        self._size = head.size if newest else None

    def pieces(self) -> Iterator[bytes]:
        """It as it should be.  Raises _Unmendable."""
        number, gap, done = self._first, 0, 0
        known = self._noted(number)
        row = next(known, None)
        for line in self._lines():
            there = _parsed(line)
            while there is not None and row is not None and row.number < there.number <= self._last:
                row = next(known, None)
            if there is None or row is None or there.number < number or not _same(there, row):
                gap += len(line)
                continue
            if there.number > number or gap:
                yield from self._filled(number, there.number - 1, gap)
                done, gap = done + gap, 0
            yield line
            done += len(line)
            number = there.number + 1
            if number > self._last:
                break
        if number <= self._last:
            yield from self._filled(number, self._last, None if self._size is None else self._size - done)
        elif self._size is not None and done != self._size:
            raise _Unmendable

    def _lines(self) -> Iterator[bytes]:
        """Lines with their ends; one that is too long to be a row comes in parts."""
        rest = b""
        for piece in self._tree.disk.pieces(self._path):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line + b"\n"
            if len(rest) > MOST_ROW:
                yield rest
                rest = b""
        if rest:
            yield rest

    def _noted(self, number: int) -> Iterator[Change]:
        while number <= self._last and (rows := self._ledger.changelog.after(number - 1, _ROWS)):
            yield from rows
            number = rows[-1].number + 1

    def _filled(self, first: int, last: int, room: int | None) -> Iterator[bytes]:
        """Rows of the ledger, in exactly so much ``room``."""
        if first > last:  # something between two rows
            raise _Unmendable
        for row in self._noted(first):
            if row.number > last:
                break
            complete = self._complete() if row.number == self._first else None
            body = row_bytes(msgspec.structs.replace(row, complete=complete))
            if room is not None:
                if len(body) > room:
                    raise _Unmendable
                room -= len(body)
                if row.number == last:
                    body = body[:-1] + b" " * room + b"\n"
            yield body

    def _complete(self) -> int:
        """What was complete before the first row, or more, so that who looks for a serial begins early enough."""
        return 0 if self._first == 1 and self._ledger.get("changes_whole") else self._head.serial


def _parsed(line: bytes) -> Change | None:
    try:
        return parse_row(line, url="") if line.endswith(b"\n") else None
    except Invalid:
        return None


def _same(there: Change, row: Change) -> bool:
    """But for what the ledger does not have, or has as it is by now."""
    return msgspec.structs.replace(there, complete=None, display=None) == msgspec.structs.replace(row, display=None)
