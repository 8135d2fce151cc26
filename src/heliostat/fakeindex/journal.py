"""The journal: one row for every change, numbered by the serial; and blocks of rows that are made up when read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from heliostat.fakeindex.project import Project
from heliostat.model import Event


class Bulk(Protocol):
    """Very many projects that are made up when they are asked for.

    Numbers run from 0 to ``count - 1`` in the order of the normalised names; every project has ``rows_each`` rows in
    the journal, one after the other.
    """

    @property
    def count(self) -> int: ...
    @property
    def rows_each(self) -> int: ...
    def display(self, number: int) -> str:
        """The name as displayed; the normal form is it in lower case."""

    def find(self, name: str) -> int | None:
        """The number of the project of this normalised name."""

    def owner(self, path: str) -> int | None:
        """The number of the project that the file at this (unquoted) path would belong to."""

    def project(self, number: int) -> Project:
        """A new Project; its ``last_serial`` is set by the index."""

    def rows(self, number: int, first_serial: int) -> list[Event]:
        """Its rows of the journal."""


@dataclass(slots=True)
class Block:
    """A bulk and the serials it took; ``taken`` are the projects that have changed since and live elsewhere."""

    bulk: Bulk
    #: The serial of the first row.
    first: int
    taken: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        return self.first + self.bulk.count * self.bulk.rows_each - 1

    def serial(self, number: int) -> int:
        """The last serial of a project that has not changed since."""
        return self.first + (number + 1) * self.bulk.rows_each - 1

    def since(self, serial: int) -> Iterator[Event]:
        each = self.bulk.rows_each
        start = max(0, serial + 1 - self.first) // each
        for number in range(start, self.bulk.count):
            rows = self.bulk.rows(number, self.first + number * each)
            yield from (row for row in rows if row.serial > serial)


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
