"""Pings that are none: a body that does not come, or is not what it is said to be, costs an answer and no log line."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import logging
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from heliostat.fakeindex import Index
from heliostat.service.connections import Bounds
from heliostat.service.daemon import Daemon
from heliostat.service.listening import listening
from heliostat.service.ping import ping_routes
from heliostat.service.pushing import Answer
from support.daemons import idle_daemon
from support.mirrors import following

#: Seconds that only a test that fails waits.
PATIENCE = 60.0
HEAD = b"POST /ping HTTP/1.1\r\nHost: x\r\n"


@dataclasses.dataclass
class Place:
    daemon: Daemon
    path: str

    async def send(self, *parts: bytes, end: bool = False) -> bytes:
        """All that comes back; each part is sent once the daemon had time for the one before.

        ``end``: then the client goes away and reads nothing.
        """
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            async with asyncio.timeout(PATIENCE):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await self.idle()
                if end:
                    return b""
                with contextlib.suppress(ConnectionError):
                    return await reader.read()
                return b""
        finally:
            writer.close()

    async def idle(self) -> None:
        """What was sent has been read by the endpoint: all of it is in this very loop."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def freed(self) -> None:
        """Wait until the only place for a connection is free again."""
        async with asyncio.timeout(PATIENCE):
            while not await self.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
                await asyncio.sleep(0.01)

    @property
    def pings(self) -> Mapping[Answer, int]:
        return self.daemon.health.pushing.pings


@contextlib.asynccontextmanager
async def endpoint(tmp_path: Path, bounds: Bounds | None = None) -> AsyncIterator[Place]:
    """One that carries one connection at a time."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has at most 107 bytes
        place = f"{folder}/s"
        async with following(Index(), tmp_path) as one, idle_daemon(one.config) as daemon:
            service = dataclasses.replace(daemon.config.service, listen=(f"unix:{place}",))
            daemon.config = dataclasses.replace(daemon.config, service=service)
            async with listening(daemon, lambda: ping_routes(daemon), bounds or Bounds(connections=1)):
                yield Place(daemon, place)


def troubles(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"Content-Length: 5\r\n\r\n",),
        (HEAD + b"Content-Length: 5\r\n\r\n", b"ab"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n",),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nab"),
    ],
    ids=["nothing", "a part", "no chunk", "a part of a chunk"],
)
async def test_a_client_that_goes_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parts: tuple[bytes, ...]
) -> None:
    async with endpoint(tmp_path) as place:
        for _ in range(3):
            await place.send(*parts, end=True)
            await place.freed()
        assert troubles(caplog) == []
        assert place.pings == {}


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"Content-Length: 5", b"a"),
        (b"Transfer-Encoding: chunked", b"zz\r\n"),
        (b"Transfer-Encoding: chunked", b"2\r\n{}junk\r\n"),
        (b"Transfer-Encoding: chunked", b"-1\r\n"),
    ],
    ids=["a part", "no number", "after a chunk", "negative"],
)
async def test_a_body_that_does_not_come_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, head: bytes, rest: bytes
) -> None:
    async with endpoint(tmp_path, Bounds(connections=1, seconds=0.2)) as place:
        assert await place.send(HEAD + head + b"\r\n\r\n", rest) == b""
        await place.freed()
        assert troubles(caplog) == []


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"gzip", b"abcde"),
        (b"deflate", b"abcde"),
        (b"br", b"abcde"),
        (b"zstd", b"abcde"),
        (b"gzip", gzip.compress(b"{}")),
        (b"gzip", gzip.compress(b" " * (10 << 20))),
        (b"unheard-of", b"{}"),
        (b"gzip, identity", b"{}"),
    ],
    ids=["gzip", "deflate", "br", "zstd", "good", "bomb", "unknown", "several"],
)
async def test_a_body_is_not_encoded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: bytes, body: bytes
) -> None:
    async with endpoint(tmp_path) as place:
        head = HEAD + b"Content-Encoding: " + header + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = await place.send(head + body)
        assert answer.startswith(b"HTTP/1.1 415 "), answer
        assert answer.endswith(b"\r\n\r\nsend the body as it is, without a Content-Encoding\n")
        assert troubles(caplog) == []
        assert place.pings == {"malformed": 1}


async def test_what_says_that_it_is_not_encoded(tmp_path: Path) -> None:
    async with endpoint(tmp_path) as place:
        answer = await place.send(HEAD + b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 202 "), answer
