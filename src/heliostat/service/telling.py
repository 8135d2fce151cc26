"""The files that a hook is handed, and the lock that it runs under."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import Self

import msgspec

from heliostat.state.changelog import Change

#: One run is told of so many changes at most, and of so many bytes of paths or a little more; the next, of the rest.
_MOST_CHANGES, _MOST_BYTES = 10_000, 8 << 20


class Alone:
    """The lock that the hook inherits: held for as long as it, or what it started, runs."""

    def __init__(self) -> None:
        self.descriptor = -1

    def hold(self, folder: str) -> bool:
        """Whether it is ours, from now until :meth:`close`.  Raises OSError."""
        if self.descriptor >= 0:
            return True
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self.descriptor = descriptor
        return True

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Telling:
    """The files that a run is handed: the changes, an object a line; and their paths, each once and ended by NUL."""

    def __init__(self, folder: str) -> None:
        self._changes, self._paths = open(f"{folder}/changes.jsonl", "wb"), open(f"{folder}/paths", "wb")  # noqa: SIM115
        self._encoder = msgspec.json.Encoder()
        self._told: set[str] = set()
        self._count = self._bytes = 0
        self.serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()
        self._paths.close()

    @property
    def full(self) -> bool:
        return self._count >= _MOST_CHANGES or self._bytes >= _MOST_BYTES

    def add(self, rows: Sequence[Change]) -> None:
        for row in rows:
            self._changes.write(self._encoder.encode(row) + b"\n")
            for path in (*row.added, *row.changed, *row.removed):
                if path not in self._told:
                    self._told.add(path)
                    self._bytes += self._paths.write(os.fsencode(path) + b"\0")
            self.serial = max(self.serial, row.serial or 0)
        self._count += len(rows)
