"""A file that grows at its end, and reaches the disk while it grows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from heliostat.store.beats import got_on
from heliostat.store.refusals import refusals
from heliostat.store.syncing import begin_to_write

Buffer = bytes | bytearray | memoryview

#: So many bytes are handed to the disk at a time: left to the end, a sync waits for the whole of a large file.
_HANDED_ON = 8 << 20


class Appender(Protocol):
    """A file being written at its end."""

    size: int

    def write(self, data: Buffer) -> None: ...
    def read_all(self) -> Iterator[bytes]: ...
    def truncate(self) -> None: ...
    def close(self) -> None: ...


class DiskAppender:
    """:class:`Appender` of an open plain file, which it closes."""

    def __init__(self, path: str, handle: int) -> None:
        self._path, self._handle = path, handle
        self.size = self._handed_on = os.fstat(handle).st_size

    def write(self, data: Buffer) -> None:
        with refusals("write", self._path):
            write_all(self._handle, data)
        self.size += len(memoryview(data))
        if self.size - self._handed_on >= _HANDED_ON:
            begin_to_write(self._handle, self._handed_on, self.size - self._handed_on)
            self._handed_on = self.size

    def read_all(self) -> Iterator[bytes]:
        """What is there already, from its beginning, in pieces of 1 MiB."""
        at = 0
        while at < self.size:
            with refusals("read", self._path):
                piece = os.pread(self._handle, 1 << 20, at)
            if not piece:
                return
            at += len(piece)
            got_on()
            yield piece

    def truncate(self) -> None:
        with refusals("truncate", self._path):
            os.ftruncate(self._handle, 0)
        self.size = self._handed_on = 0

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def write_all(handle: int, data: Buffer) -> None:
    """All of it, however little the kernel takes at a time; raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
