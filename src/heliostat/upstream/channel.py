"""One connection to a server: an HTTP/1.1 exchange after another, with nothing in between that each of them must pay.

A mirror sends some millions of small requests, so what one costs decides how long a first sync takes.  aiohttp opens
the connections (names, TLS, proxies); a channel then takes the transport over, writes requests as bytes, and lets
llhttp read the answers.  Faults are told with aiohttp's exceptions, as :mod:`heliostat.upstream.faults` knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import aiohttp
import httptools
from aiohttp.connector import Connection

from heliostat.upstream.bulk import Bulk
from heliostat.upstream.faults import NotHttp
from heliostat.upstream.response import NONE, Headers, Response

#: How much of a body is held before the connection is not read any more (bytes; at most twice this).
READ_BUFFER: Final = 256 << 10
#: A body is long, and worth memory of its own, from here on (bytes).
LONG: Final = 1 << 20
#: Status line and headers of one answer, informational ones before it included, have at most so many bytes.
MOST_HEAD: Final = 64 << 10


class Channel(asyncio.Protocol):
    """A connection that is taken over from ``connection``; ``idle`` is told when it can serve another request."""

    def __init__(
        self,
        connection: Connection,
        *,
        stall: float,
        idle: Callable[[Channel], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        transport = cast("asyncio.Transport", connection.transport)  # uvloop's are none by inheritance
        self._connection, self._transport, self._stall = connection, transport, stall
        self._idle, self._loop = idle, loop
        self._lost = False
        #: Exchanges that ended well on it.
        self.served = 0
        #: When it became idle, on the loop's clock.
        self.idle_since = 0.0
        #: The server had closed it, as it may, just when another request was sent: worth another connection.
        self.was_stale = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._reset()
        transport.set_protocol(self)

    def _reset(self) -> None:
        self._busy = self._head_done = False
        #: Whether all of the body came, and bytes of it that nobody took yet.
        self.complete = False
        self._parser: httptools.HttpResponseParser | None = None
        self._headers = NONE
        #: What came before the head was complete, and what came with its end.
        self._head = b""
        self._most_head = MOST_HEAD
        self._left: int | None = None
        self._length: int | None = None
        self._until_close = False
        #: The answer to a HEAD: whatever its head says, there is no body.
        self._bodiless = False
        self._keep = False
        self._pieces: list[bytes] = []
        self.held = 0
        #: Bytes that whoever reads waits for.
        self._least = 1
        self._paused = False
        self._bulk: Bulk | None = None
        self.failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._moved = self._deadline = 0.0

    # The two sides of an exchange: whoever asks.

    @property
    def usable(self) -> bool:
        """Whether a request may be sent on it."""
        return not (self._lost or self._busy or self._transport.is_closing())

    async def exchange(self, request: bytes, *, total: float | None, bodiless: bool = False) -> Response:
        """Send a request and return its answer as soon as its head is there; ``bodiless``: the request is a HEAD.

        The whole exchange, the body included, may take ``total`` seconds, and no wait for a byte longer than ``stall``.
        """
        self._busy, self._bodiless = True, bodiless
        self._parser = httptools.HttpResponseParser(self)
        self._moved = now = self._loop.time()
        self._deadline = now + total if total is not None else float("inf")
        self._arm(min(now + self._stall, self._deadline))
        self._transport.write(request)
        try:
            while not self._head_done:
                if self.failure is not None:
                    raise self.failure
                await self.wait()
        except BaseException:
            self.was_stale = self.served > 0 and self._lost and not self._head
            self.end()
            raise
        assert self._parser is not None
        return Response(self, self._parser.get_status_code(), self._headers, self._length)

    async def read(self, least: int) -> bytes:
        if self.held < least and not self.complete and self.failure is None:
            self._least = least
            await self.wait()
            self._least = 1
        while not self._pieces:
            if self.complete:
                return b""
            if self.failure is not None:
                raise self.failure
            await self.wait()
        pieces, self._pieces, self.held = self._pieces, [], 0
        if self._paused:
            self.go_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def bulk(self) -> Bulk | None:
        """Takes the rest of the body into memory of its own, if that is long and its length known."""
        if self._left is None or self._left < LONG or self.failure is not None or not Bulk.to_be_had():
            return None
        self._bulk = bulk = Bulk(self, b"".join(self._pieces), self._left)
        self._pieces.clear()
        if not self._paused:
            self._transport.pause_reading()  # uvloop decides how to read when reading begins
        self._paused = False
        self._transport.set_protocol(bulk)
        self._transport.resume_reading()
        return bulk

    @property
    def drained(self) -> bool:
        return self.complete and not self.held

    def end(self) -> None:
        """The exchange is over; the connection is kept when nothing more can come of it."""
        reusable = self.complete and self._keep and not (self._lost or self._paused or self.failure)
        if self._bulk is not None:
            self._bulk.end()
            if reusable:
                self._transport.pause_reading()
                self._transport.set_protocol(self)
                self._transport.resume_reading()
        self._reset()
        if reusable:
            self.served += 1
            self.idle_since = self._loop.time()
            self._idle(self)
        else:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._lost = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._connection.close()

    async def wait(self) -> None:
        self._moved = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def pause(self) -> None:
        """Read no more for the time being."""
        self._paused = True
        self._transport.pause_reading()

    def go_on(self) -> None:
        self._paused = False
        self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self.failure is None and not self.complete:
            self.failure = error
        self._wake()

    # The connection's own events.

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.complete:
            self._keep = False  # bytes that nobody asked for: whatever comes next would be somebody else's answer
            if not self._busy:
                self.close()
            return
        if self.failure is not None:
            return
        before, waited_for_head = self.held, not self._head_done
        if waited_for_head:
            self._parse_head(data)
        elif self._left is not None:
            self._take(data)
        else:
            self._parse(data)
        if self.held > READ_BUFFER and not self._paused and not self.complete:
            self.pause()
        if self.complete or self.failure is not None or (waited_for_head and self._head_done):
            self._wake()
        elif self.held == before:
            return  # it may go on for ever with what is no body: that is no progress
        elif self.held >= self._least:
            self._wake()
        else:
            self._moved = self._loop.time()

    def _parse_head(self, data: bytes) -> None:
        self._head = self._head + data if self._head else data
        self._parse(data)
        if not self._head_done and len(self._head) > self._most_head and self.failure is None:
            self._fail(NotHttp("head", "too long"))

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:  # something behind the answer
                self._keep = False
            else:
                self._fail(NotHttp("head" if not self._head_done else "chunk", type(error).__name__))

    def _take(self, data: bytes) -> None:
        """Bytes of a body whose length is known need no parser, and so are not copied."""
        assert self._left is not None
        if len(data) > self._left:
            data, self._keep = data[: self._left], False
        self._left -= len(data)
        self._pieces.append(data)
        self.held += len(data)
        self.complete = self._left == 0

    def came(self, count: int, *, whole: bool) -> None:
        """So many bytes of the body came into the memory of its bulk; with them a ``whole`` batch or the end."""
        assert self._left is not None
        self._left -= count
        self.held += count
        self.complete = self._left == 0
        if whole:
            self._wake()
        else:
            self._moved = self._loop.time()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._busy and not self.complete:
            if exc is not None:
                self._fail(exc if isinstance(exc, OSError) else aiohttp.ClientConnectionError(type(exc).__name__))
            elif not self._head_done:
                self._fail(aiohttp.ServerDisconnectedError())
            elif self._until_close:
                self.complete = True
                self._wake()
            else:
                self._fail(aiohttp.ClientPayloadError())
        if not self._busy:
            self.close()

    # The parser's events.

    def on_message_begin(self) -> None:
        if self._head_done:
            raise ValueError("one answer too many")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self._cut_head(len(self._head) - len(self._head.lstrip(b"\r\n")))  # RFC 9112, 2.2
        end = self._head.find(b"\r\n\r\n") + 2
        if end > self._most_head:
            raise ValueError("the head is too long")
        self._headers = headers = Headers(self._head[:end])
        self._head_done = True
        self._keep = self._parser.should_keep_alive()
        chunked, text = headers.get("transfer-encoding"), headers.get("content-length")
        self._length = None if text is None or chunked is not None else int(text)
        if status not in (204, 304):
            self._left = self._length
            self._until_close = self._left is None and (chunked or "identity").strip().lower() == "identity"
        if self._bodiless:  # RFC 9112, 6.3; the parser would wait for what the length promises
            self._left, self._until_close, self.complete = 0, False, True

    def on_body(self, data: bytes) -> None:
        if self._bodiless:  # a server that sends one all the same: its connection is of no use any more
            self._keep = False
            return
        self._pieces.append(data)
        self.held += len(data)
        if self._left is not None:
            self._left -= len(data)

    def on_message_complete(self) -> None:
        if self._head_done:
            self.complete = True
        else:  # informational (RFC 9110, 15.2); the answer itself follows
            self._cut_head(self._head.find(b"\r\n\r\n", len(self._head) - len(self._head.lstrip(b"\r\n"))) + 4)

    def _cut_head(self, count: int) -> None:
        """So many bytes in front of the answer's own head are not needed any more; they count as part of it."""
        if count:
            self._head = self._head[count:]
            self._most_head -= count

    # Time.

    def _arm(self, at: float) -> None:
        """One timer serves all exchanges: it is set anew when it goes off, and not for each of them."""
        if self._alarm is None or at < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = at
            self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._busy or self.complete or self.failure is not None:
            return
        now = self._loop.time()
        if now >= self._deadline:
            self._fail(TimeoutError())
        elif self._waiter is None:  # it is the reader who takes their time
            self._arm(min(now + self._stall, self._deadline))
        elif now >= self._moved + self._stall:
            self._fail(aiohttp.SocketTimeoutError())
        elif self.held:  # there is some, if less than was waited for: time to look how fast it comes
            self._wake()
            self._arm(min(now + self._stall, self._deadline))
        else:
            self._arm(min(self._moved + self._stall, self._deadline))
