"""Pings through the real nginx, as ``configs/nginx-ping.conf`` passes them on: pings, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from heliostat.fakeindex import FakeIndex
from heliostat.service.signature import sign
from support.daemon_process import configure, daemon_process, until
from support.nginx import Nginx, nginx_server
from support.small_index import publish, serving

pytestmark = pytest.mark.outside

SECRET = "0123456789abcdef"
BODY = b'{"projects": ["alpha"]}'


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha") as server:
        yield server


def through(home: Path, **more: str) -> dict[str, str]:
    """The replacements that lead nginx to the daemon's socket."""
    return {"proxy_pass http://127.0.0.1:9750/ping;": f"proxy_pass http://unix:{home}/http.sock:/ping;"} | more


def send(
    nginx: Nginx,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    target: str = "/ping",
    method: str = "POST",
) -> tuple[int, bytes]:
    """The status and body of the answer to one request."""
    connection = http.client.HTTPConnection(urlsplit(nginx.ping_url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Agreeing:
    """What says yes to everything in the daemon's place; the first lines of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.partition("\r\n")[0].rpartition(" ")[0])
        length = next((line.split(":")[1] for line in head.lower().split("\r\n") if "content-length" in line), "0")
        self.bodies.append(await reader.readexactly(int(length)))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()


@pytest.fixture
async def agreeing(tmp_path: Path) -> AsyncIterator[Agreeing]:
    (tmp_path / "pypi/web").mkdir(parents=True)
    one = Agreeing()
    async with await asyncio.start_unix_server(one, tmp_path / "http.sock"):
        yield one


async def test_a_signed_ping_reaches_the_daemon(tmp_path: Path, upstream: FakeIndex) -> None:
    def ask() -> list[int]:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx:
            signed, wrong = sign(SECRET, BODY, time.time()), sign("another secret, it is", BODY, time.time())
            return [
                send(nginx, BODY, wrong)[0],
                send(nginx, BODY)[0],
                send(nginx, BODY, signed)[0],
                send(nginx, BODY, signed)[0],  # seen before
            ]

    configure(tmp_path, upstream.url, push=f'secret = "{SECRET}"')
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        publish(upstream.index, "beta")
        assert await asyncio.to_thread(ask) == [401, 401, 202, 401]
        await until((tmp_path / "pypi/web/simple/beta/index.html").exists, tell=lambda: daemon.log)
        await daemon.stop()


async def test_nothing_else_is_passed_on(tmp_path: Path, agreeing: Agreeing) -> None:
    targets = (
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/status.json",
        "/ping/",
        "/ping/x",
        "/PING",
        "/ping%0a",
        "/x/../metrics",
    )

    def ask() -> list[int]:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx:
            found = [send(nginx, target=target, method=method)[0] for target in targets for method in ("GET", "POST")]
            found += [send(nginx, method=method)[0] for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")]
            assert send(nginx)[0] == 202
            return found

    assert set(await asyncio.to_thread(ask)) <= {403, 404, 405}
    assert agreeing.asked == ["POST /ping"]


async def test_a_body_that_is_too_large_ends_at_nginx(tmp_path: Path, agreeing: Agreeing) -> None:
    def ask() -> list[int]:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx:
            return [send(nginx, b" " * 65536)[0], send(nginx, b" " * 65537)[0]]

    assert await asyncio.to_thread(ask) == [202, 413]
    assert [len(body) for body in agreeing.bodies] == [65536]


async def test_a_storm_ends_at_nginx(tmp_path: Path, agreeing: Agreeing) -> None:
    def ask() -> list[int]:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx:
            return [send(nginx)[0] for _ in range(100)]

    found = await asyncio.to_thread(ask)
    assert set(found) == {202, 429}
    assert found[:11] == [202] * 11  # one, and the burst
    assert len(agreeing.asked) == found.count(202)


async def test_who_is_slow_does_not_reach_the_daemon(tmp_path: Path, agreeing: Agreeing) -> None:
    def ask() -> list[int]:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx, socket.socket() as slow:
            parts = urlsplit(nginx.ping_url)
            slow.connect((parts.hostname, parts.port))
            slow.sendall(b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            return [send(nginx, BODY)[0]]

    assert await asyncio.to_thread(ask) == [202]
    assert agreeing.bodies == [BODY]


async def test_others_may_not_ping(tmp_path: Path, agreeing: Agreeing) -> None:
    def ask() -> int:
        nobody = {"allow 127.0.0.1; ": "allow 192.0.2.0/24; "}
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path, **nobody)) as nginx:
            return send(nginx, BODY)[0]

    assert await asyncio.to_thread(ask) == 403
    assert agreeing.asked == []


async def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "pypi/web").mkdir(parents=True)

    def ask() -> int:
        with nginx_server(tmp_path / "pypi/web", ping=through(tmp_path)) as nginx:
            return send(nginx, BODY)[0]

    assert await asyncio.to_thread(ask) == 502
