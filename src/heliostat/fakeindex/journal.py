"""The journal: one row for every change, numbered by the serial."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice

from heliostat.fakeindex.bulk import Block, Bulk
from heliostat.model import Event


class Journal:
    """Rows in the order of their serials."""

    def __init__(self, serial: int) -> None:
        #: The highest serial given out.
        self.serial = serial
        self._segments: list[list[Event] | Block] = [[]]

    def append(self, display: str, version: str | None, time: int, action: str) -> int:
        self.serial += 1
        last = self._segments[-1]
        if isinstance(last, Block):
            last = []
            self._segments.append(last)
        last.append(Event(display, version, time, action, self.serial))
        return self.serial

    def append_block(self, bulk: Bulk) -> Block:
        block = Block(bulk, self.serial + 1)
        self._segments.append(block)
        self.serial = block.last
        return block

    def since(self, serial: int, limit: int | None = None) -> list[Event]:
        """The rows with greater serials, in order, at most ``limit`` of them."""
        return list(islice(self._since(serial), limit))

    def rename(self, old: str, new: str) -> None:
        """Old rows get the new name, as renaming did on the public index."""
        for segment in self._segments:
            if isinstance(segment, list):
                for at, row in enumerate(segment):
                    if row.display == old:
                        segment[at] = Event(new, row.version, row.time, row.action, row.serial)

    def _since(self, serial: int) -> Iterator[Event]:
        for segment in self._segments:
            if isinstance(segment, Block):
                if segment.last > serial:
                    yield from segment.since(serial)
            else:
                yield from segment[_first_after(segment, serial) :]


def _first_after(rows: Sequence[Event], serial: int) -> int:
    return bisect_right(rows, serial, key=lambda row: row.serial)
