"""A server that says exactly what a test tells it to, byte for byte, and a clock that a test moves."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection, for answers that are more than bytes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


Answer = bytes | Callable[[Seen, Wire], Awaitable[None]]


def reply(
    status: int = 200, body: bytes = b"", *, kind: str | None = "text/plain", packed: bool = False, **headers: str
) -> bytes:
    """A whole answer; header names are written with ``_`` for ``-``, and a declared length can be wrong."""
    if packed:
        body = gzip.compress(body, 1)
        headers["Content_Encoding"] = "gzip"
    headers.setdefault("Content_Length", str(len(body)))
    if kind is not None:
        headers.setdefault("Content_Type", kind)
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def cut(answer: bytes, missing: int = 1) -> Answer:
    """The answer without its last bytes, then the end of the connection."""

    async def send(_: Seen, wire: Wire) -> None:
        await wire.write(answer[:-missing])
        wire.close()

    return send


def hang(answer: bytes = b"") -> Answer:
    """These bytes, and then nothing, for ever."""

    async def send(_: Seen, wire: Wire) -> None:
        await wire.write(answer)
        await asyncio.Event().wait()

    return send


class Scripted:
    """A server on loopback: ``async with``.  Each path gives its answers in turn, the last one for ever; else 404."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.url = ""
        self.in_flight = self.most_in_flight = 0
        self._answers: dict[str, list[Answer]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def on(self, path: str, *answers: Answer) -> None:
        self._answers[path] = list(answers)

    def paths(self) -> list[str]:
        return [one.path for one in self.seen]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for one in list(self._connections):
            one.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while await self._one(reader, Wire(writer)) and not writer.is_closing():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, wire: Wire) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(method, path, headers, body)
        self.seen.append(seen)
        answers = self._answers.get(path.partition("?")[0], [reply(404)])
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if isinstance(answer, bytes):
                await wire.write(answer)
            else:
                await answer(seen, wire)
        finally:
            self.in_flight -= 1
        return True


class HandClock:
    """Time that stands still until it is moved; who sleeps is woken when their instant has come."""

    def __init__(self, wall: float = 1_790_000_000.0) -> None:
        self._now, self._wall = 0.0, wall
        self._asleep: list[tuple[float, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()
        #: Every sleep that was asked for, in order.
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall + self._now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if seconds <= 0:
            return
        wakened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._now + seconds, wakened)
        self._asleep.append(entry)
        self._changed.set()
        try:
            await wakened
        finally:
            if entry in self._asleep:
                self._asleep.remove(entry)

    async def asleep(self, count: int) -> None:
        """Return when so many sleep."""
        async with asyncio.timeout(60):
            while len(self._asleep) < count:
                self._changed.clear()
                await self._changed.wait()

    def move(self, seconds: float) -> None:
        self._now += seconds
        for entry in [entry for entry in self._asleep if entry[0] <= self._now]:
            self._asleep.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)


class QuickClock(HandClock):
    """Time that jumps to the end of each sleep at once."""

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self._now += max(0.0, seconds)
        await asyncio.sleep(0)
