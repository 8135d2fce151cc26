"""Bodies of bounded size: counted as they come, and again as they are unpacked.

Unpacking is done piece by piece, so that a decompression bomb costs one small piece more than what is allowed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from heliostat.errors import Invalid, TooLarge, Unavailable
from heliostat.upstream.response import Response
from heliostat.upstream.urls import redacted

#: Unpacked pieces hold at most so many bytes.
PIECE = 256 << 10
#: A gzip stream may consist of several; each costs, so hostile ones are cut off here.
_MOST_MEMBERS = 100
_GZIP = 16 + zlib.MAX_WBITS


class Gunzip:
    """A gzip stream unpacked in pieces of at most :data:`PIECE` bytes."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=_GZIP)
        self._members = 1
        self._empty = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack ``data``; raises ValueError for what is not gzip."""
        while data:
            self._empty = False
            if self._member.eof:
                self._next_member()
            try:
                piece = self._member.decompress(data, PIECE)
                if piece:
                    yield piece
                while self._member.unconsumed_tail or (len(piece) == PIECE and not self._member.eof):
                    piece = self._member.decompress(self._member.unconsumed_tail, PIECE)
                    if piece:
                        yield piece
            except zlib.error as error:
                raise ValueError("not gzip data") from error
            data = self._member.unused_data

    def _next_member(self) -> None:
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise ValueError(f"more than {_MOST_MEMBERS} gzip members")
        self._member = zlib.decompressobj(wbits=_GZIP)

    @property
    def complete(self) -> bool:
        """True when nothing is missing at the end."""
        return self._empty or self._member.eof


async def pieces(response: Response, url: str, limit: int) -> AsyncIterator[bytes]:
    """The body, unpacked, in pieces; errors of the connection pass through (see faults.FAULTS).

    Raises Invalid as soon as it is longer than ``limit`` bytes, packed or unpacked, or when it cannot be unpacked.
    """
    gunzip = _unpacker(response, url)
    _check_declared(response, url, limit)
    packed = unpacked = 0
    while chunk := await response.read():
        packed += len(chunk)
        if packed > limit:
            raise _too_large(url, limit)
        if gunzip is None:
            yield chunk
            continue
        try:
            for number, piece in enumerate(gunzip.feed(chunk)):
                unpacked += len(piece)
                if unpacked > limit:
                    raise _too_large(url, limit)
                if number:  # a small packed piece became a large one: let others run
                    await asyncio.sleep(0)
                yield piece
        except ValueError as error:
            raise Invalid(redacted(url), f"cannot be unpacked: {error}") from None
    if gunzip is not None and not gunzip.complete:
        raise Unavailable(redacted(url), "the body was cut short (the gzip stream does not end)")


def _unpacker(response: Response, url: str) -> Gunzip | None:
    encoding = (response.headers.get("content-encoding") or "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip"):
        return Gunzip()
    raise Invalid(redacted(url), "packed in a way that was not asked for (Content-Encoding)")


def _check_declared(response: Response, url: str, limit: int) -> None:
    declared = response.content_length
    if declared is not None and declared > limit:
        raise _too_large(url, limit)


def _too_large(url: str, limit: int) -> TooLarge:
    return TooLarge(redacted(url), f"larger than {limit} bytes, the most that is accepted")
