"""A small HTTP/1.1 server for the fake index.

Not a general one: it reads requests strictly, answers ready bytes with as little work as possible (so that it does not
become what a benchmark measures), and lets faults do to a connection what a web framework would forbid.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import cast

from heliostat.fakeindex.http import Answer, Request, date_line, head_parts

#: Bodies from this size on are written in pieces, at the reader's pace.
PIECE = 1 << 18
_MAX_HEAD = 1 << 17
_MAX_BODY = 1 << 28


class Exchange:
    """One request on its connection, for answers that are not just sent."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self.request = request
        #: Closed by either side: writing has no effect any more.
        self.gone = connection.gone
        connection.write_at_once()

    @property
    def closed(self) -> bool:
        return self.gone.is_set()

    async def send(self, answer: Answer) -> None:
        """All of an answer, as it would have gone out without faults."""
        await self._connection.send(self.request, answer)

    def head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Only the status line and these headers."""
        self.request.status = status
        first, rest = head_parts(status, list(headers))
        self._connection.write(first + date_line() + rest)

    async def write(self, data: bytes) -> None:
        """Body bytes; returns when the connection's buffer is short again."""
        if self.request.method != "HEAD" and not self.closed:
            self.request.sent += len(data)
            self._connection.write(data)
            await self._connection.drain()

    async def delivered(self) -> None:
        """Until the other side's system has all that was written, or the connection is gone."""
        while not self.closed and self._connection.unsent():
            await asyncio.sleep(0.001)

    def close(self) -> None:
        """End the connection in good order after what was written."""
        self._connection.close()

    def reset(self) -> None:
        """End the connection with a RST; what was written may be lost."""
        self._connection.reset()


#: An answer at once, or a task that answers through its Exchange.
Handler = Callable[[Request, "Connection"], Answer | Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, also when they come together."""

    def __init__(self, handler: Handler, finished: Callable[[Request], None], open_ones: set[Connection]) -> None:
        self._handler, self._finished, self._open_ones = handler, finished, open_ones
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._continued = False
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()

    # -- asyncio's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open_ones.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface is asyncio's
        self.gone.set()
        self._writable.set()
        self._open_ones.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self._task is None:
            self._serve_buffer()

    # -- for answers -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.gone.is_set():
            self._transport.write(data)

    async def drain(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()

    def write_at_once(self) -> None:
        """Writing counts as done only when the operating system has taken all of it."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    def unsent(self) -> int:
        """Bytes that the other side has not acknowledged."""
        if self._transport is None:
            return 0
        waiting = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return waiting + int(struct.unpack("i", answer)[0])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None or self.gone.is_set():
            return
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def send(self, request: Request, answer: Answer) -> None:
        gzipped, close = answer.wants_gzip(request), _closes(request)
        request.status = answer.status
        self.write(answer.head(gzipped=gzipped, close=close))
        if request.method != "HEAD" and answer.status != HTTPStatus.NOT_MODIFIED:
            if answer.content is None:
                body = answer.payload(gzipped=gzipped)
                request.sent += len(body)
                self.write(body)
                await self.drain()
            else:
                for chunk in answer.content.chunks(answer.start, answer.stop, PIECE):
                    if self.gone.is_set():
                        break
                    request.sent += len(chunk)
                    self.write(chunk)
                    await self.drain()
        if close:
            self.close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _serve_buffer(self) -> None:
        """Answer what is in the buffer, up to the first answer that takes time."""
        while self._buffer and not self.gone.is_set():
            try:
                request = self._next_request()
            except ValueError as exc:
                self._refuse(str(exc))
                return
            if request is None:
                return
            answer = self._handler(request, self)
            if isinstance(answer, Answer):
                if answer.content is None or answer.stop - answer.start <= PIECE:
                    self._send_now(request, answer)
                    if self._writable.is_set():
                        continue
                    answer_task: Awaitable[None] = self.drain()
                else:
                    answer_task = self._send_and_finish(request, answer)
            else:
                answer_task = self._run(request, answer)
            self._task = asyncio.ensure_future(answer_task)
            self._task.add_done_callback(self._continue)
            return

    async def _send_and_finish(self, request: Request, answer: Answer) -> None:
        await self._run(request, self.send(request, answer))

    async def _run(self, request: Request, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            self._finished(request)

    def _continue(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            self.reset()
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the fake index failed to answer", "exception": task.exception()}
            )
            return
        if not self.gone.is_set():
            self._serve_buffer()

    def _send_now(self, request: Request, answer: Answer) -> None:
        gzipped, close = answer.wants_gzip(request), _closes(request)
        request.status = answer.status
        head = answer.head(gzipped=gzipped, close=close)
        if request.method == "HEAD" or answer.status == HTTPStatus.NOT_MODIFIED:
            self.write(head)
        else:
            body = answer.payload(gzipped=gzipped)
            request.sent = len(body)
            self.write(head + body)
        self._finished(request)
        if close:
            self.close()

    def _next_request(self) -> Request | None:
        """The next whole request, taken out of the buffer; None when more must come.  Raises ValueError."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("the request's head is too long")
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("not HTTP/1")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header without a colon")
            headers[name.lower()] = value.strip()
        if version == "HTTP/1.0":
            headers.setdefault("connection", "close")
        request = Request(method, target, headers)
        length = self._body_length(headers)
        start = end + 4
        if len(self._buffer) < start + length:
            return None
        request.body = self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        self._continued = False
        return request

    def _body_length(self, headers: dict[str, str]) -> int:
        if "transfer-encoding" in headers:
            raise ValueError("send a Content-Length")
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= _MAX_BODY:
            raise ValueError("the request's body is too long")
        if headers.get("expect", "").lower() == "100-continue" and not self._continued:
            self._continued = True
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return length

    def _refuse(self, reason: str) -> None:
        answer = Answer(HTTPStatus.BAD_REQUEST, f"{reason}\n".encode(), (("Content-Type", "text/plain"),))
        self._buffer = b""
        self.write(answer.head(gzipped=False, close=True) + answer.body)
        self.close()

    async def abandon(self) -> None:
        """The server ends: the connection is dropped, and no answer is under way any more."""
        task = self._task
        if self._transport is not None:
            self._transport.abort()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.gone.wait()


def _closes(request: Request) -> bool:
    return "close" in request.headers.get("connection", "").lower()
