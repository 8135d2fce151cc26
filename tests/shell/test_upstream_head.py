"""HEAD for a file's size: no body is waited for, whatever is declared, and the connection is kept."""

from __future__ import annotations

import pytest

from heliostat.errors import Missing, Unavailable
from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.upstream.client import Upstream
from support.scripted import Scripted, Seen, Wire
from support.upstreams import SHORT, upstream


def url(server: Scripted, path: str) -> str:
    return f"{server.url}{path}"


async def size(one: Upstream, server: Scripted, path: str) -> int | None:
    return await one.size(one.check_url(url(server, path)))


async def test_the_size_is_told_without_a_body_and_the_connection_is_kept() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        connections = set()

        async def headless(_: Seen, wire: Wire) -> None:
            connections.add(id(wire._writer))
            await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 123456789\r\n\r\n")

        server.on("/a", headless)
        server.on("/gone", b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n")
        server.on("/none", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await size(one, server, "/a") == 123456789
        assert await size(one, server, "/a") == 123456789
        with pytest.raises(Missing):
            await size(one, server, "/gone")
        assert await size(one, server, "/a") == 123456789
        assert await size(one, server, "/none") is None
        assert len(connections) == 1
        assert {seen.method for seen in server.seen} == {"HEAD"}


async def test_a_body_that_comes_all_the_same_is_nobody_elses_answer() -> None:
    """Some of it comes with the head, and what looks like another answer after that: its connection is not used again."""
    broken: list[object] = []

    async def talkative(_: Seen, wire: Wire) -> None:
        broken.append(wire._writer)
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nx")

    async def other(_: Seen, wire: Wire) -> None:
        length = b"7" if wire._writer in broken else b"11"
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % length)

    async with Scripted() as server, upstream(server.url) as one:
        server.on("/a", talkative)
        server.on("/b", other)
        for _ in range(3):
            assert await size(one, server, "/a") == 38
            assert await size(one, server, "/b") == 11


@pytest.mark.parametrize("status", [405, 501])
async def test_a_server_that_knows_no_head(status: int) -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/a", f"HTTP/1.1 {status} No\r\nContent-Length: 5\r\n\r\n".encode())
        assert await size(one, server, "/a") is None


async def test_redirects_are_followed_with_head() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/a", b"HTTP/1.1 302 There\r\nLocation: /b\r\nContent-Length: 3\r\n\r\n")
        server.on("/b", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        assert await size(one, server, "/a") == 5
        assert [(seen.method, seen.path) for seen in server.seen] == [("HEAD", "/a"), ("HEAD", "/b")]


async def test_a_server_that_hangs() -> None:
    async def nothing(_: Seen, wire: Wire) -> None:
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-")

    async with Scripted() as server, upstream(server.url, stall_timeout=SHORT, retries=1) as one:
        server.on("/a", nothing)
        with pytest.raises(Unavailable):
            await size(one, server, "/a")


async def test_gets_and_heads_share_connections() -> None:
    index = Index()
    index.publish("a", "1", UploadedFile("a-1.zip", b"12345"))
    async with FakeIndex(index) as server, upstream(server.url) as one:
        path = server.files_url + index.expected_files("a")[0].file.path
        for _ in range(3):
            assert await one.size(one.check_url(path)) == 5
            assert await one.fetch(path, limit=9) == b"12345"
