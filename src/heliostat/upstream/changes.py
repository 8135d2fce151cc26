"""Another heliostat's static change feed, ``changes/``, over HTTP: docs/change-feed.md is the contract.

The head is one small conditional request.  Rows come from segments that are only ever appended to, so a range of one
is asked for from where the last one ended.  A server that ignores ranges is borne with: what is known is skipped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import msgspec

from heliostat.errors import FeedUnsupported, Invalid, Missing
from heliostat.pages.changes import (
    HEAD,
    MOST_HEAD,
    MOST_ROW,
    SEGMENT_ROWS,
    Head,
    Told,
    parse_head,
    parse_told,
    segment_name,
    segment_start,
)
from heliostat.upstream.gate import Permit, Permits
from heliostat.upstream.response import Response
from heliostat.upstream.session import Session, header_lines
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import redacted

#: Bytes of rows in one request: some thousand rows.
PIECE = 4 << 20
_PLAIN = {"Accept": "text/plain, */*;q=0.1", "Accept-Encoding": "identity"}
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)", re.ASCII)


class Place(msgspec.Struct, frozen=True):
    """How far a feed was read: the last row's number, and in its segment the byte after it (-1: to be found)."""

    number: int
    offset: int


class HeadAnswer(msgspec.Struct, frozen=True):
    head: Head
    etag: str | None


class Rows(msgspec.Struct, frozen=True):
    """Some rows, in order, and where to go on; none when the feed does not yet hold what its head says."""

    rows: list[Told]
    place: Place


class Changes:
    """The feed below one base; each call is one try and takes one metadata permit.

    All raise FeedUnsupported where there is no such feed (any more), RateLimited, Unavailable, or Invalid.
    """

    def __init__(self, session: Session, gate: Permits, base: str, *, most: int, stand_in: bool = False) -> None:
        """``most``: bytes that are read of a segment at most, where a server does not know ranges."""
        self._session, self._gate, self._folder, self._most = session, gate, f"{base}/changes/", most
        #: What the ETags of a source begin with that is not the first one: they are for itself only.
        self._mark = f"@{base} " if stand_in else ""

    async def head(self, etag: str | None) -> HeadAnswer | None:
        """The head; None when it is still the one with ``etag``."""
        url = self._folder + HEAD
        headers = header_lines(_PLAIN)
        known = etag is not None and etag.startswith(self._mark) and (self._mark != "" or not etag.startswith("@"))
        if known and etag is not None:
            headers += header_lines({"If-None-Match": etag.removeprefix(self._mark)})
        async with self._gate.permit() as permit:
            response = await self._get(permit, url, headers, (200, 304) if known else (200,))
            try:
                if response.status == 304:
                    return None
                with self._session.counting(Kind.CHANGES, permit):
                    body = await self._session.whole(response, permit, url, MOST_HEAD)
                    head = parse_head(body, url=redacted(url))
                found = response.headers.get("etag")
            finally:
                response.close()
        return HeadAnswer(head, self._mark + found if found else None)

    async def rows(self, head: Head, place: Place) -> Rows:
        """The rows that follow ``place``, of one segment, as many as one request brings."""
        start = segment_start(place.number + 1)
        if place.number < start:
            return await self._piece(head, Place(place.number, 0), head.number)
        if place.offset >= 0:
            return await self._piece(head, place, head.number)
        found = Place(max(start, head.first) - 1, 0)
        while found.number < place.number:
            passed = await self._piece(head, found, place.number)
            if not passed.rows:
                return Rows([], place)
            found = passed.place
        return await self._piece(head, found, head.number)

    async def _piece(self, head: Head, place: Place, last: int) -> Rows:
        """Rows from ``place`` on, and not beyond row ``last``."""
        start, offset = segment_start(place.number + 1), place.offset
        url = self._folder + segment_name(start)
        end = offset + PIECE
        if start == head.start:
            end = min(end, head.size)
        reader = _Rows(redacted(url), place.number, min(start + SEGMENT_ROWS - 1, last))
        if offset < end:
            headers = header_lines({**_PLAIN, "Range": f"bytes={offset}-{end - 1}"})
            async with self._gate.permit() as permit:
                response = await self._get(permit, url, headers, (200, 206, 416))
                try:
                    if response.status != 416:
                        with self._session.counting(Kind.CHANGES, permit):
                            async for piece in self._part(response, permit, url, offset, end):
                                reader.feed(piece)
                                if reader.number == reader.last:
                                    break
                finally:
                    response.close()
        return Rows(reader.rows, Place(reader.number, offset + reader.read))

    async def _part(self, response: Response, permit: Permit, url: str, offset: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``offset`` to ``end`` of a segment, whatever part of it the answer is."""
        at = 0
        if response.status == 206:
            told = _RANGE.fullmatch(response.headers.get("content-range") or "")
            if told is None or int(told[1]) != offset:
                raise Invalid(redacted(url), "answers with another range than was asked for")
            at = offset
        limit = end - at if response.status == 206 else self._most
        async for piece in self._session.read(response, permit, url, limit):
            part = piece[max(0, offset - at) : max(0, end - at)]
            at += len(piece)
            if part:
                yield part
            if at >= end:
                return

    async def _get(self, permit: Permit, url: str, headers: str, accept: tuple[int, ...]) -> Response:
        try:
            return await self._session.send(
                permit, url, headers, kind=Kind.CHANGES, accept=accept, total=self._session.metadata_timeout
            )
        except Missing as error:
            raise FeedUnsupported(redacted(url), f"no static change feed here ({error.reason})") from None


class _Rows:
    """Whole lines out of pieces; each must be the next row."""

    def __init__(self, url: str, number: int, last: int) -> None:
        self._url, self.number, self.last = url, number, last
        self.rows: list[Told] = []
        #: Bytes of the rows.
        self.read = 0
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MOST_ROW:
            raise Invalid(self._url, f"a row of more than {MOST_ROW} bytes")
        for line in lines:
            if self.number == self.last:
                return
            row = parse_told(line, url=self._url)
            if row.number != self.number + 1:
                raise Invalid(self._url, f"row {row.number} follows row {self.number}")
            self.number, self.read = row.number, self.read + len(line) + 1
            self.rows.append(row)
