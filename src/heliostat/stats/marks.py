"""Fingerprints of a log's content, by which it is known again when it was renamed, compressed or copied.

A log only grows at its end.  So a file is a log that was read before when it has the same bytes at the marks: every 64
bytes of the first 4 KiB, then at each power of two, and just before the position.  Each fingerprint is of the (at most)
4 KiB before its mark, and keyed by a secret of the database, so that no address can be guessed from it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

#: How much before a mark its fingerprint is of.
STRETCH = 4096
_STEP = 64
WIDTH = 8

Fingerprint = Callable[[bytes], bytes]


def keyed(secret: bytes) -> Fingerprint:
    """The fingerprints of one database."""
    return lambda data: blake2b(data, digest_size=WIDTH, key=secret).digest()


def next_mark(offset: int) -> int:
    """The first mark behind ``offset``."""
    if offset < STRETCH:
        return offset - offset % _STEP + _STEP
    return 1 << offset.bit_length()


def marks_of(packed: bytes) -> list[tuple[int, bytes]]:
    """Marks and fingerprints of what :class:`Trail` packed: where they are goes without saying."""
    found, at = [], 0
    for start in range(0, len(packed), WIDTH):
        at = next_mark(at)
        found.append((at, packed[start : start + WIDTH]))
    return found


class Trail:
    """Follows the bytes of a log from ``offset`` on, whose last ones before were ``recent``, and takes its marks."""

    def __init__(self, fingerprint: Fingerprint, offset: int = 0, recent: bytes = b"") -> None:
        self.offset, self.recent = offset, recent
        self._fingerprint = fingerprint
        self._next = next_mark(offset)
        self._found: list[tuple[int, bytes]] = []

    def feed(self, data: bytes) -> None:
        while self._next <= self.offset + len(data):
            cut = self._next - self.offset
            stretch = (self.recent + data[max(0, cut - STRETCH) : cut])[-min(STRETCH, self._next) :]
            self._found.append((self._next, self._fingerprint(stretch)))
            self._next = next_mark(self._next)
        self.recent = (self.recent + data[-STRETCH:])[-STRETCH:]
        self.offset += len(data)

    def take(self, position: int) -> bytes:
        """The fingerprints of the marks up to ``position`` that were not taken yet, packed."""
        taken = [digest for mark, digest in self._found if mark <= position]
        self._found = self._found[len(taken) :]
        return b"".join(taken)
