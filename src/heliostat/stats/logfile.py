"""A log on disk, whatever it is compressed with: its beginning, stretches of it, and its lines from a position on.

Memory is bounded by one block and one line.  Positions count bytes after decompression.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple, Protocol

from heliostat.errors import HeliostatError
from heliostat.stats.marks import STRETCH, Trail

_BLOCK = 1 << 18
#: nginx takes requests of at most 32 KiB, and writes a byte as six at most.
LONGEST_LINE = 1 << 18
_GZIP, _XZ, _ZSTD, _BZ2 = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh"


class _Readable(Protocol):
    """What is used of an open file, decompressing or not."""

    def read1(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


class Unreadable(HeliostatError):
    """A log, or the rest of one, could not be read; ``str()`` of it names the file, the reason, and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


class Signature(NamedTuple):
    """By which a file is known again without opening it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Block(NamedTuple):
    """Whole lines, without the last line break.  ``oversized`` counts lines that were left out for their length."""

    lines: list[bytes]
    oversized: int
    #: Behind them.
    position: int
    #: The last bytes before ``position``.
    stretch: bytes


def look_at(path: str) -> Signature:
    """Raises Unreadable for what is missing, or no regular file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise Unreadable(path, _reason(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable(path, "is no regular file")
    return Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class LogFile:
    """One open log.  Every method raises Unreadable."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # A pipe that took the file's place meanwhile must not block.
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unreadable(path, _reason(error)) from None
        self._raw = os.fdopen(handle, "rb")
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable(path, "is no regular file")
            self.signature = Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            magic = self._raw.read(6)
            self._raw.seek(0)
            #: What reading it may raise; decompressors raise OSError without a number as well.
            self._damage: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
            self._file, self.compressed = self._opened(magic)
            self._offset = 0
            self._beginning = self._recent = self._read_until(STRETCH)
        except BaseException:
            self._raw.close()
            raise

    def close(self) -> None:
        self._raw.close()

    @property
    def head(self) -> bytes:
        """The first line, or the first 4 KiB of it; empty while there is no whole line and not so much."""
        cut = self._beginning.find(b"\n") + 1
        if cut:
            return self._beginning[:cut]
        return self._beginning if len(self._beginning) >= STRETCH or (self.compressed and self._beginning) else b""

    def stretch(self, at: int) -> bytes | None:
        """The last 4 KiB before ``at``, or all; None when the file is shorter.  Ask in ascending order."""
        if at <= STRETCH:
            return self._beginning[:at] if at <= len(self._beginning) else None
        start = max(self._offset, at - STRETCH)
        if start > self._offset:
            self._seek(start)
        self._recent = (self._recent + self._read_until(at))[-STRETCH:]
        return self._recent if self._offset == at else None

    def blocks(self, position: int, trail: Trail) -> Iterator[Block]:
        """The lines from ``position`` on, and what ``trail`` makes of them.

        A last line without a line break is left for later; not so in a compressed file, which nobody writes on.
        A damaged file gives what is before the damage, then raises Unreadable.
        """
        if self._offset != position:
            self._seek(position)
        rest: list[bytes] = []
        length = skipped = 0
        while data := self._read(_BLOCK):
            cut = data.rfind(b"\n") + 1
            if not cut:
                trail.feed(data)
                if not skipped:
                    rest.append(data)
                    length += len(data)
                if length > LONGEST_LINE:
                    rest, length, skipped = [], 0, 1
                continue
            trail.feed(data[:cut])
            lines = b"".join((*rest, data[: cut - 1])).split(b"\n")[skipped:]
            kept = [line for line in lines if len(line) <= LONGEST_LINE]
            yield Block(kept, len(lines) - len(kept) + skipped, trail.offset, trail.recent)
            trail.feed(data[cut:])
            rest, length, skipped = [data[cut:]], len(data) - cut, 0
        if self.compressed and (length or skipped):
            yield Block([] if skipped else [b"".join(rest)], skipped, trail.offset, trail.recent)

    def _seek(self, offset: int) -> None:
        try:
            self._offset = self._file.seek(offset)
        except self._damage as error:
            raise self._refused(error) from None
        self._recent = b""

    def _read(self, most: int) -> bytes:
        try:
            # Not read(): that would lose what comes before the damage.
            data = self._file.read1(most)
        except self._damage as error:
            raise self._refused(error) from None
        self._offset += len(data)
        return data

    def _read_until(self, offset: int) -> bytes:
        found = []
        try:
            while self._offset < offset and (data := self._read(offset - self._offset)):
                found.append(data)
        except Unreadable:
            if not found:
                raise
        return b"".join(found)

    def _refused(self, error: Exception) -> Unreadable:
        if isinstance(error, EOFError):
            return Unreadable(self.path, "its compressed data end in the middle; what is before that was counted")
        if isinstance(error, OSError) and error.errno:
            return Unreadable(self.path, _reason(error))
        return Unreadable(self.path, f"its compressed data are damaged ({error}); what is before that was counted")

    def _opened(self, magic: bytes) -> tuple[_Readable, bool]:
        if magic.startswith(_GZIP):
            return gzip.GzipFile(fileobj=self._raw, mode="rb"), True
        if magic.startswith(_XZ):
            return lzma.LZMAFile(self._raw), True
        if magic.startswith(_BZ2):
            return bz2.BZ2File(self._raw), True
        if magic.startswith(_ZSTD):
            module = _zstd()
            if module is None:
                advice = "pip install 'heliostat[zstd]', or decompress it"
                raise Unreadable(
                    self.path, f"is compressed with zstd, for which a library is missing that is optional: {advice}"
                )
            self._damage = (*self._damage, module.ZstdError)
            opened: _Readable = module.ZstdFile(self._raw)
            return opened, True
        return self._raw, False


def _zstd() -> ModuleType | None:
    """The standard library's from Python 3.14 on, else its backport, which need not be there."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "is no name of a file"
    if isinstance(error, PermissionError):
        return f"{error.strerror}; let heliostat's user read it (on Debian: usermod -aG adm heliostat)"
    return error.strerror or str(error)
