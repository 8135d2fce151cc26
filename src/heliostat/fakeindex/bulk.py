"""Very many projects, made up when they are asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.fakeindex.project import Project, UploadedFile, decoded
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

    def entries(self, low: str, high: str | None) -> Iterator[tuple[str, str, int, bool]]:
        """As :meth:`Index.entries`, of the projects that have not changed."""
        bulk = self.bulk

        def first_from(bound: str) -> int:
            return bisect_left(range(bulk.count), bound, key=lambda number: bulk.display(number).lower())

        for number in range(first_from(low), bulk.count if high is None else first_from(high)):
            if number not in self.taken:
                display = bulk.display(number)
                yield display.lower(), display, self.serial(number), False


class Blocks:
    """All bulks of an index, and the projects of them that were made up last."""

    def __init__(self) -> None:
        #: How many projects are kept after they were made up.
        self.kept = 5_000
        self._blocks: list[Block] = []
        self._made: OrderedDict[str, Project] = OrderedDict()

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    def __len__(self) -> int:
        """How many bulks there are."""
        return len(self._blocks)

    @property
    def projects(self) -> int:
        """How many projects have not changed."""
        return sum(block.bulk.count - len(block.taken) for block in self._blocks)

    def add(self, block: Block) -> None:
        self._blocks.append(block)

    def get(self, normal: str) -> Project | None:
        """The project of this normalised name, if it has not changed."""
        made = self._made.get(normal)
        if made is not None:
            self._made.move_to_end(normal)
            return made
        for block in self._blocks:
            number = block.bulk.find(normal)
            if number is not None:
                return self._make(block, number)
        return None

    def take(self, normal: str) -> None:
        """The project is about to change, and lives elsewhere from now on."""
        for block in self._blocks:
            number = block.bulk.find(normal)
            if number is not None:
                block.taken.add(number)
        self._made.pop(normal, None)

    def file_at(self, path: str) -> UploadedFile | None:
        """The file at an unquoted URL path."""
        for block in self._blocks:
            number = block.bulk.owner(path)
            project = self._make(block, number) if number is not None else None
            for _, file in project.offered() if project else ():
                if decoded(file.path) == path:
                    return file
        return None

    def _make(self, block: Block, number: int) -> Project | None:
        if number in block.taken:
            return None
        normal = block.bulk.display(number).lower()
        project = self._made.get(normal)
        if project is None:
            project = self._made[normal] = block.bulk.project(number)
            project.last_serial = block.serial(number)
            if len(self._made) > self.kept:
                self._made.popitem(last=False)
        return project
