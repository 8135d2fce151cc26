"""Lines in order whatever their number: sorted runs on disk, merged when they are read."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

#: Lines, and bytes, that are held in memory before they become a run.
_MOST, _MOST_BYTES = 20_000, 6 << 20
#: Runs that are merged at once; each has a file open.
_FAN = 64
_BUFFER = 64 << 10


class Sorter:
    """Takes lines (bytes without a line break), gives them back in order; repeated lines come once.

    ``folder`` holds the runs, named after ``prefix``; ``runs`` of an earlier process are continued.
    """

    def __init__(self, folder: str, prefix: str, runs: int = 0) -> None:
        self._folder, self._prefix = folder, prefix
        self._lines: list[bytes] = []
        self._size = 0
        self.runs = runs
        self._merges = 0

    def add(self, lines: Iterable[bytes]) -> None:
        before = len(self._lines)
        self._lines += lines
        self._size += sum(map(len, self._lines[before:]))

    @property
    def is_full(self) -> bool:
        """Whether :meth:`flush` should be called before more is added."""
        return len(self._lines) >= _MOST or self._size >= _MOST_BYTES

    def flush(self) -> None:
        """What is in memory becomes a run, which survives the process once this returns."""
        if self._lines:
            self._lines.sort()
            _write(self._path(self.runs), self._lines)
            self.runs += 1
            self._lines, self._size = [], 0

    def sorted(self) -> Iterator[bytes]:
        """All lines; several times if need be, but nothing may be added any more."""
        if not self.runs:
            self._lines.sort()
            yield from _once(self._lines)
            return
        self.flush()
        paths = [self._path(number) for number in range(self.runs)]
        while len(paths) > _FAN:
            merged = []
            for start in range(0, len(paths), _FAN):
                self._merges += 1
                path = os.path.join(self._folder, f"{self._prefix}-merged-{self._merges}")
                _write(path, _merge(paths[start : start + _FAN]))
                merged.append(path)
            paths = merged
        yield from _once(_merge(paths))

    def discard(self) -> None:
        """Forget everything."""
        for entry in os.listdir(self._folder):
            if entry.startswith(f"{self._prefix}-"):
                os.unlink(os.path.join(self._folder, entry))
        self._lines, self.runs, self._size = [], 0, 0

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"{self._prefix}-{number:06}")


def _write(path: str, lines: Iterable[bytes]) -> None:
    with open(path, "wb", buffering=1 << 20) as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")
        file.flush()
        os.fdatasync(file.fileno())


def _merge(paths: list[str]) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb", buffering=_BUFFER)) for path in paths]
        yield from heapq.merge(*(_lines(file) for file in files))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        yield line[:-1]


def _once(lines: Iterable[bytes]) -> Iterator[bytes]:
    last = None
    for line in lines:
        if line != last:
            yield line
            last = line
