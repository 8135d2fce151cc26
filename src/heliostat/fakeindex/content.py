"""What a file of the fake index holds: bytes, or bytes that are made up as they are read.

A :class:`Virtual` content is a function of its seed and size alone, and any part of it can be had without the rest,
so that an index of large files, or of very many, needs no memory for them.
"""

from __future__ import annotations

import hashlib
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

_BLOCK = 1 << 16
_STAMP = 32


class Digests(NamedTuple):
    """Hex digits, by the names that the JSON document gives them."""

    md5: str
    sha256: str
    blake2b_256: str


class Content(ABC):
    """Bytes of a known size, read by position."""

    __slots__ = ("_digests", "size")

    size: int

    def __init__(self) -> None:
        self._digests: Digests | None = None

    @abstractmethod
    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` up to, not including, ``stop``."""

    def chunks(self, start: int = 0, stop: int | None = None, step: int = 1 << 18) -> Iterator[bytes]:
        """The same in pieces of at most ``step`` bytes."""
        end = self.size if stop is None else stop
        for at in range(start, end, step):
            yield self.read(at, min(at + step, end))

    @property
    def digests(self) -> Digests:
        """Computed at the first use, then kept."""
        if self._digests is None:
            hashes = (hashlib.md5(usedforsecurity=False), hashlib.sha256(), hashlib.blake2b(digest_size=32))
            for chunk in self.chunks():
                for one in hashes:
                    one.update(chunk)
            self._digests = Digests(*(one.hexdigest() for one in hashes))
        return self._digests


class Literal(Content):
    """Bytes held in memory."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> bytes:
        return self.data if start == 0 and stop >= self.size else self.data[start:stop]


class Virtual(Content):
    """``size`` bytes that follow from ``seed``.

    The true digests are computed when they are first asked for (about 0.3 GB/s); others may be given, to spare the
    hashing of a large file that nobody will read to its end.
    """

    __slots__ = ("seed",)

    def __init__(self, size: int, seed: int, *, digests: Digests | None = None) -> None:
        super().__init__()
        self.size, self.seed = size, seed
        self._digests = digests

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        if first == last:
            return self._block(first)[start - first * _BLOCK : stop - first * _BLOCK]
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        return blocks[start - first * _BLOCK : stop - first * _BLOCK]

    def _block(self, number: int) -> bytes:
        key = struct.pack(">Qq", number, self.seed)
        return hashlib.blake2b(key, digest_size=_STAMP).digest() + _noise()


class Ended(Content):
    """Made-up bytes with a fixed end, such as an archive's list of what is in it; ``size`` bytes in all.

    Raises ValueError when ``size`` is below that of the end.
    """

    __slots__ = ("_begin", "_end")

    def __init__(self, size: int, seed: int, end: Callable[[int], bytes]) -> None:
        """``end`` is asked with the position at which it stands; its length is always the same."""
        super().__init__()
        length = len(end(0))
        if size < length:
            raise ValueError(f"{size} bytes, but the end alone has {length}")
        self.size = size
        self._begin, self._end = Virtual(size - length, seed), end(size - length)

    def read(self, start: int, stop: int) -> bytes:
        before = self._begin.size
        body = self._begin.read(start, min(stop, before)) if start < before else b""
        return body + self._end[max(0, start - before) : max(0, stop - before)]


def made_up_digests(seed: int) -> Digests:
    """Digests of the right form that belong to no file."""
    source = random.Random(seed)
    return Digests(*(source.randbytes(size).hex() for size in (16, 32, 32)))


@cache
def _noise() -> bytes:
    return random.Random(20260901).randbytes(_BLOCK - _STAMP)
