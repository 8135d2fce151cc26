"""Distribution files as streams: resumable, bounded, in large batches, with stalls and drips noticed."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Self

from heliostat.errors import IntegrityError, Invalid, Refused, Unavailable, UpstreamError
from heliostat.upstream import faults
from heliostat.upstream.bulk import Bulk
from heliostat.upstream.gate import Permit, Permits
from heliostat.upstream.pace import LARGE
from heliostat.upstream.response import Response
from heliostat.upstream.session import Session, header_lines
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import redacted

#: Batches of a longer body hold at least so many bytes, except the last one; a loop reads somewhat more at a time.
BATCH = 192 << 10
#: A body up to this size comes as one batch.
WHOLE = 1 << 20
#: Below this rate (bytes a second), over as long as a stall may last, a body counts as stalled, though it still drips.
SLOWEST = 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)
_HEADERS = header_lines({"Accept": "*/*", "Accept-Encoding": "identity"})


class _Rate:
    """Notices a body that drips: it never stalls for long, and never ends either."""

    def __init__(self, shown: str, stall: float) -> None:
        self._shown, self._stall = shown, stall
        #: Seconds waited for bytes, and bytes that came, since the rate was looked at last.
        self._waited, self._since = 0.0, 0

    def watch(self, waited: float, came: int) -> None:
        """So many seconds brought so many bytes; raises TimedOut."""
        self._waited += waited
        self._since += came
        if self._waited >= self._stall:
            if self._since < SLOWEST * self._waited:
                reason = f"stalled: only {self._since} bytes in {self._waited:.0f} s"
                raise faults.TimedOut(self._shown, reason)
            self._waited, self._since = 0.0, 0


async def fetch_whole(session: Session, gate: Permits, url: str, size: int) -> bytes:
    """A file of exactly ``size`` bytes in one piece, in one try; holds a file permit meanwhile.

    Raises as FileStream does; the bytes that came before a fault are lost, so it is for what is small.
    """
    async with gate.permit() as permit:
        response = await session.send(permit, url, _HEADERS, kind=Kind.FILE, accept=(200,), total=None)
        try:
            declared = response.content_length
            if declared is not None and declared != size:
                raise IntegrityError(redacted(url), "size", str(size), str(declared))
            body = await response.read()
            if len(body) < size or declared is None:
                body = await _rest(session, response, url, size, body)
            permit.received = len(body)
            session.traffic.received[Kind.FILE] += len(body)
            if len(body) > size:
                raise IntegrityError(redacted(url), "size", str(size), f"more than {size}")
        except UpstreamError as error:
            session.traffic.broke(Kind.FILE, error)
            raise
        except faults.FAULTS as error:
            failure = session.fault(url, error, None)
            session.traffic.broke(Kind.FILE, failure)
            raise failure from None
        finally:
            response.close()
    return body


async def size_of(session: Session, gate: Permits, url: str) -> int | None:
    """The size that HEAD tells of a file, in one try; None when the server does not say, or knows no HEAD."""
    async with gate.permit() as permit:
        response = await session.send(
            permit, url, _HEADERS, kind=Kind.FILE, accept=(200, 405, 501), total=session.metadata_timeout, head=True
        )
        response.close()
    return response.content_length if response.status == 200 else None


async def _rest(session: Session, response: Response, url: str, size: int, first: bytes) -> bytes:
    """All of a body that did not come at once, as far as it may be of use."""
    rate, parts, got = _Rate(redacted(url), session.stall_timeout), [first], len(first)
    while got <= size:
        begun = session.clock.now()
        chunk = await response.read()
        if not chunk:
            break
        parts.append(chunk)
        got += len(chunk)
        rate.watch(session.clock.now() - begun, len(chunk))
    if got < size:
        raise Unavailable(redacted(url), f"the body was cut short after {got} of {size} bytes")
    return b"".join(parts)


class FileStream:
    """One try to fetch a file, or the rest of it: ``async with`` sends the request, iterating gives the bytes.

    Holds a file permit from the request to the end of the block.  Raises Missing, RateLimited, Invalid; Unavailable
    when the body is reset, cut, stalled or dripping (after the bytes that came before); IntegrityError when upstream
    sends another number of bytes than ``size``; Refused when it announces more than ``max_file``.
    """

    #: The first byte that comes: as asked for, or 0 when the server sends the whole file instead.
    offset: int
    #: The server's ETag when it is a strong one: what resuming may be conditional on.
    etag: str | None
    #: Bytes that are to come; None when the server does not say.
    length: int | None

    def __init__(
        self,
        session: Session,
        gate: Permits,
        url: str,
        *,
        offset: int,
        validator: str | None,
        size: int | None,
        max_file: int | None,
    ) -> None:
        self._session, self._url, self._shown = session, url, redacted(url)
        self._size, self._validator, self._max_file = size, validator, max_file
        self._most: int | None = None
        self.offset, self.etag, self.length = offset, None, None
        self._permit: Permit = gate.permit(large=size is None or size > LARGE)
        self._response: Response | None = None
        self._bulk: Bulk | None = None
        #: What is taken as one batch (bytes), but for the last one.
        self._batch = BATCH
        self._received = 0
        self._failure: Exception | None = None
        self._ended = False
        self._rate = _Rate(self._shown, session.stall_timeout)

    async def __aenter__(self) -> Self:
        await self._permit.__aenter__()
        try:
            await self._open()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._response is not None:
            if isinstance(error, UpstreamError):
                self._session.traffic.broke(Kind.FILE, error)
            self._response.close()
        self._permit.received = self._received
        await self._permit.__aexit__(kind, error, traceback)
        # An error's frames lead here, and the memory of a body is not to wait for the garbage collector.
        self._response = self._bulk = self._failure = None

    async def _open(self) -> None:
        response = await self._send(self.offset)
        if response.status == 416:  # what we have is not the beginning of what is there: begin again
            response.close()
            response = await self._send(0)
        self._response = response
        self.offset = self._range_start(response) if response.status == 206 else 0
        etag = response.headers.get("etag")
        self.etag = etag if etag and etag.startswith('"') else None
        self.length = response.content_length
        self._check_length()
        if self.length is not None:
            self._permit.is_large(large=self.length > LARGE)
            if self.length <= WHOLE:
                self._batch = WHOLE + 1
            else:
                self._bulk = response.bulk()

    async def _send(self, offset: int) -> Response:
        headers = _HEADERS
        accept: tuple[int, ...] = (200,)
        if offset:
            more = {"Range": f"bytes={offset}-"}
            if self._validator and self._validator.startswith('"'):
                more["If-Range"] = self._validator
            headers = _HEADERS + header_lines(more)
            accept = (200, 206, 416)
        self.offset = offset
        return await self._session.send(self._permit, self._url, headers, kind=Kind.FILE, accept=accept, total=None)

    def _range_start(self, response: Response) -> int:
        """Where a 206 begins; raises Invalid unless it is exactly the rest that was asked for."""
        given = response.headers.get("content-range") or ""
        found = _CONTENT_RANGE.fullmatch(given.strip())
        if not found or int(found[1]) != self.offset:
            raise Invalid(self._shown, f"wrong range: asked for bytes {self.offset}-, got {given[:60]!a}")
        last, total = int(found[2]), found[3]
        if total not in ("*", str(last + 1)):
            raise Invalid(self._shown, f"wrong range: asked for all bytes from {self.offset}, got {given[:60]!a}")
        if response.content_length is not None and response.content_length != last + 1 - self.offset:
            raise Invalid(self._shown, "wrong range: Content-Length and Content-Range contradict each other")
        return self.offset

    def _check_length(self) -> None:
        if self._size is not None:
            self._most = self._size - self.offset
            if self.length is not None and self.length != self._most:
                raise IntegrityError(self._shown, "size", str(self._size), str(self.offset + self.length))
        elif self._max_file is not None:
            self._most = self._max_file - self.offset
            if self.length is not None and self.length > self._most:
                whole = self.offset + self.length
                raise Refused("file", self._shown, f"{whole} bytes, more than [upstream] max-file allows")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | memoryview:
        """The next batch; its memory may be used again once the batch after the next is asked for, or at the end."""
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StopAsyncIteration
        parts: list[bytes | memoryview] = []
        held = 0
        try:
            while held < self._batch:
                chunk = await self._read(self._batch - held)
                if not chunk:
                    self._ended = True
                    break
                parts.append(chunk)
                held += len(chunk)
                if self._bulk is not None:  # its batches are large enough, and must not wait for each other
                    break
        except Exception as error:
            self._failure = error  # what came before it is not lost
            if not parts:
                raise
        if not parts:
            raise StopAsyncIteration
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read(self, least: int) -> bytes | memoryview:
        """What has come, at least one byte; nothing at the end.  Waits a while for ``least`` bytes."""
        assert self._response is not None
        clock = self._session.clock
        begun = clock.now()
        chunk: bytes | memoryview
        try:
            if self._bulk is not None:
                chunk = await self._bulk.read()
            else:
                chunk = await self._response.read(min(least, BATCH))
        except faults.FAULTS as error:
            raise self._session.fault(self._url, error, None) from None
        self._received += len(chunk)
        self._session.traffic.received[Kind.FILE] += len(chunk)
        if not chunk:
            if self._size is not None and self._most is not None and self._received < self._most:
                raise Unavailable(self._shown, f"the body was cut short after {self._received} of {self._most} bytes")
        elif self._most is not None and self._received > self._most:
            if self._size is None:
                raise Refused("file", self._shown, "larger than [upstream] max-file allows")
            raise IntegrityError(self._shown, "size", str(self._size), f"more than {self._size}")
        else:
            self._rate.watch(clock.now() - begun, len(chunk))
        return chunk
