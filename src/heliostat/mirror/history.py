"""The mirror's own change feed read back from disk, also beside a running mirror: no lock, ledger or network is needed.

What is given is where another copy of the tree stands: a serial that this mirror stated, or a position of the feed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from heliostat.errors import HeliostatError, Invalid, StoreError
from heliostat.pages.changes import (
    FOLDER,
    HEAD,
    KEPT,
    MOST_HEAD,
    MOST_ROW,
    SEGMENT_ROWS,
    Change,
    Head,
    parse_head,
    parse_row,
    segment_name,
    segment_start,
)

_REMEDY = "heliostat verify --repair mends the change feed, or begins it anew"


class NotKept(HeliostatError):
    """The feed does not tell what changed since then: a whole copy is needed."""


class History:
    """The feed below a mirror's ``directory``.  Raises StoreError when it cannot be read, or is damaged."""

    def __init__(self, directory: str) -> None:
        self._directory, self._web = directory, f"{directory}/web"
        self._folder = f"{directory}/{FOLDER}"
        path = f"{self._folder}/{HEAD}"
        try:
            with open(path, "rb", opener=_opened) as file:
                body = file.read(MOST_HEAD)
        except FileNotFoundError:
            if os.path.isdir(self._folder) and os.listdir(self._folder):
                raise StoreError("read", path, f"not there; {_REMEDY}") from None
            raise StoreError("read", path, "no change feed there; has this mirror been run yet?") from None
        except OSError as error:
            raise StoreError("read", path, error.strerror or str(error)) from error
        try:
            self.head: Head = parse_head(body, url=path)
        except Invalid as error:
            raise StoreError("read", path, f"{error.reason}; {_REMEDY}") from None

    @property
    def position(self) -> str:
        """Where the feed ends now, as :meth:`find` takes it."""
        return f"{self.head.mirror}:{self.head.number}"

    def find(self, since: str) -> int:
        """The number behind which everything is that a copy lacks; ``since`` is its serial, or a position.

        Raises NotKept.
        """
        mirror, colon, number = since.partition(":")
        if not colon:
            return self._number_at(int(since))
        if mirror != self.head.mirror:
            raise NotKept("the change feed began anew since then")
        if int(number) > self.head.number:
            raise NotKept(f"the change feed ends at row {self.head.number}, before that position")
        if int(number) + 1 < self.head.first:
            raise NotKept(f"the change feed begins at row {self.head.first} by now")
        return int(number)

    def after(self, number: int) -> Iterator[Change]:
        """The rows above ``number``."""
        for start in range(segment_start(max(number + 1, self.head.first)), self.head.number + 1, SEGMENT_ROWS):
            for row in self._rows(start):
                if row.number > number:
                    yield row

    def paths(self, changes: Iterable[Change]) -> list[str]:
        """All paths below ``web/`` that rows name, each once, in order."""
        found: set[str] = set()
        for change in changes:
            found.update(change.added, change.changed, change.removed)
        return sorted(path for path in found if not path.startswith("/") and ".." not in path.split("/"))

    def present(self, paths: Iterable[str]) -> Iterator[str]:
        """Those of ``paths`` that are there now."""
        return (path for path in paths if os.path.lexists(f"{self._web}/{path}"))

    def missing(self, paths: Iterable[str]) -> Iterator[str]:
        """What is not there, each once: of ``paths``, or where a whole directory went, the uppermost one."""
        told: set[str] = set()
        for path in paths:
            if os.path.lexists(f"{self._web}/{path}"):
                continue
            parts = path.split("/")
            for count in range(2, len(parts) + 1):
                upper = "/".join(parts[:count])
                if upper in told:
                    break
                if count == len(parts) or not os.path.lexists(f"{self._web}/{upper}"):
                    told.add(upper)
                    yield upper
                    break

    def about_all(self) -> list[str]:
        """Paths below ``web/`` that are of no project and change nearly always."""
        roots = [f"simple/index.{form}{more}" for form in ("html", "v1_html", "v1_json") for more in ("", ".gz")]
        return [*self.present([*roots, "last-modified", "mirrors.json"])]

    def segments(self, number: int) -> list[str]:
        """Paths below ``web/`` of what the feed itself added since row ``number``."""
        starts = range(segment_start(max(number, self.head.first)), self.head.number + 1, SEGMENT_ROWS)
        return [*self.present([*(f"changes/{segment_name(start)}" for start in starts), f"changes/{HEAD}"])]

    def old_segments(self, number: int) -> list[str]:
        """Those that a copy may have which was made at row ``number``, and that are not kept any more."""
        oldest = max(1, segment_start(max(1, number)) - KEPT * SEGMENT_ROWS)
        return [
            f"changes/{segment_name(start)}" for start in range(oldest, segment_start(self.head.first), SEGMENT_ROWS)
        ]

    def _number_at(self, serial: int) -> int:
        """The last row of the first head that stated ``serial``, or of the last one before that stated less."""
        if serial >= self.head.serial and self.head.number < self.head.first:
            return self.head.number
        starts = [*range(segment_start(self.head.first), self.head.number + 1, SEGMENT_ROWS)]
        # The first row of each segment says what was complete before it.
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            if (next(self._rows(starts[middle])).complete or 0) < serial:
                low = middle + 1
            else:
                high = middle
        before: Change | None = None
        for start in starts[max(0, low - 1) :]:
            for row in self._rows(start):
                if row.complete is None:
                    continue
                if row.complete == serial:
                    return row.number - 1
                if row.complete > serial:
                    if before is None:
                        raise NotKept(f"the change feed begins at serial {row.complete}")
                    return before.number - 1
                before = row
        if serial < self.head.serial and before is not None:
            return before.number - 1
        if serial > self.head.serial:
            raise NotKept(f"this mirror is complete up to serial {self.head.serial} only")
        return self.head.number

    def _rows(self, start: int) -> Iterator[Change]:
        name = segment_name(max(start, self.head.first))
        path = f"{self._folder}/{name}"
        newest = name == self.head.segment
        left = self.head.size if newest else None
        number = max(start, self.head.first)
        last = self.head.number if newest else segment_start(number) + SEGMENT_ROWS - 1
        try:
            with open(path, "rb", opener=_opened) as file:
                while number <= last and (line := file.readline(MOST_ROW + 1)):
                    if left is not None:
                        left -= len(line)
                        if left < 0:
                            break
                    row = parse_row(line, url=path)
                    if row.number != number:
                        raise Invalid(path, f"row {row.number}, where row {number} belongs")
                    yield row
                    number += 1
            if number <= last:
                raise Invalid(path, f"row {number} is not there")
        except Invalid as error:
            raise StoreError("read", path, f"{error.reason}; {_REMEDY}") from None
        except FileNotFoundError:
            if self._is_due(start):
                raise StoreError("read", path, f"not there; {_REMEDY}") from None
            raise NotKept("the change feed has gone on meanwhile") from None
        except OSError as error:
            raise StoreError("read", path, error.strerror or str(error)) from error

    def _is_due(self, start: int) -> bool:
        """Whether the head that is there by now still names that segment."""
        head = History(self._directory).head
        return head.mirror == self.head.mirror and segment_start(head.first) <= segment_start(start)


def _opened(path: str, flags: int) -> int:
    """A pipe that lies there has no bytes, and is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def as_json(change: Change) -> str:
    """A row on one line, as it is in the feed."""
    return msgspec.json.encode(change).decode()
