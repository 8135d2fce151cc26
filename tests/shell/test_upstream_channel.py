"""Connections: kept and used again, answers in any pieces, and what must not be taken for an answer."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.errors import Invalid, Unavailable, UpstreamError
from heliostat.upstream.client import Upstream
from support.scripted import Answer, Scripted, Seen, Wire, reply
from support.upstreams import SHORT, upstream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def pieces(data: bytes, cuts: list[int], *, end: bool = False) -> Answer:
    """The answer, cut at these places, each piece on its own way."""

    async def send(_: Seen, wire: Wire) -> None:
        places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
        for start, stop in itertools.pairwise(places):
            await wire.write(data[start:stop])
            await asyncio.sleep(0)
        if end:
            wire.close()

    return send


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """``body`` in chunks of these sizes, the rest in one."""
    found, at = b"", 0
    for size in sizes:
        part = body[at : at + size]
        if part:
            found += b"%x;ext=1\r\n%b\r\n" % (len(part), part)
        at += size
    if body[at:]:
        found += b"%x\r\n%b\r\n" % (len(body[at:]), body[at:])
    return found + b"0\r\nTrailer: x\r\nContent-Type: text/html\r\n\r\n"


def connections(server: Scripted) -> Callable[[], int]:
    """Counts the connections that the server gets."""
    found: set[int] = set()

    async def note(_: Seen, wire: Wire) -> None:
        found.add(id(wire._writer))
        await wire.write(reply(200, b"yes"))

    server.on("/x", note)
    return lambda: len(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=400),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    sizes=st.lists(st.integers(1, 90), max_size=6),
    form=st.sampled_from(["length", "chunked", "until the end"]),
    informational=st.integers(0, 2),
)
async def test_an_answer_in_any_pieces(
    body: bytes, cuts: list[int], sizes: list[int], form: str, informational: int
) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nContent-Type: text/html\r\nLink: </a>\r\n\r\n" * informational
    match form:
        case "length":
            answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        case "chunked":
            answer = CHUNKED + chunked(body, sizes)
        case _:
            answer = HEAD + b"\r\n" + body
    async with Scripted() as server, upstream(server.url, retries=1) as index:
        server.on("/x", pieces(early + answer, cuts, end=form == "until the end"))
        assert await index.fetch(server.url + "/x", limit=1000, accept="application/json") == body


async def test_connections_are_kept_and_used_again() -> None:
    async with Scripted() as server, upstream(server.url, metadata_at_once=4) as index:
        count = connections(server)
        for _ in range(5):
            await index.fetch(server.url + "/x", limit=10)
        assert count() == 1
        await asyncio.gather(*(index.fetch(server.url + "/x", limit=10, accept="*/*") for _ in range(40)))
        assert count() <= 1 + 4
    assert len(server.seen) == 45


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"yes", Connection="close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes",
        reply(200, b"yes") + reply(200, b"no!"),
        reply(200, b"yes") + b"garbage",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["close", "old", "two answers", "garbage behind it", "half an answer behind it"],
)
async def test_a_connection_that_cannot_be_trusted_any_more_is_not_used_again(answer: bytes) -> None:
    async with Scripted() as server, upstream(server.url, retries=1) as index:
        server.on("/x", answer, reply(200, b"second"))
        assert await index.fetch(server.url + "/x", limit=100) == b"yes"
        assert await index.fetch(server.url + "/x", limit=100) == b"second"


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody() -> None:
    async with Scripted() as server, upstream(server.url, retries=1) as index:
        said = asyncio.Event()

        async def talkative(_: Seen, wire: Wire) -> None:
            await wire.write(reply(200, b"yes"))
            asyncio.get_running_loop().call_later(0.01, lambda: wire._writer.write(reply(200, b"unasked")))
            asyncio.get_running_loop().call_later(0.05, said.set)

        server.on("/x", talkative, reply(200, b"second"))
        assert await index.fetch(server.url + "/x", limit=100) == b"yes"
        await said.wait()
        assert await index.fetch(server.url + "/x", limit=100) == b"second"


async def test_a_kept_connection_that_the_server_closed_costs_no_try() -> None:
    async with Scripted() as server, upstream(server.url, retries=1) as index:

        async def and_close(_: Seen, wire: Wire) -> None:
            await wire.write(reply(200, b"yes"))
            wire.close()

        async def close_at_the_next(_: Seen, wire: Wire) -> None:
            wire.close()

        server.on("/x", and_close, reply(200, b"second"), close_at_the_next, reply(200, b"third"))
        for expected in (b"yes", b"second", b"third"):
            assert await index.fetch(server.url + "/x", limit=100) == expected


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nyes!", Invalid),
        (HEAD + b"Content-Length: -3\r\n\r\nyes", Invalid),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nyes", Invalid),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n", UpstreamError),
        (CHUNKED + b"zz\r\nyes\r\n", Unavailable),
        (CHUNKED + b"3\r\nyes, and more\r\n0\r\n\r\n", Unavailable),
        (CHUNKED + b"ffffffffffffffffffff\r\nyes\r\n", Unavailable),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", Invalid),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, UpstreamError),
        (HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n", Invalid),
        (HEAD + b"X: y\r\n" * 20_000 + b"\r\n", Invalid),
        (b"HTTP/2 200\r\n\r\n", Invalid),
        (b"\x16\x03\x01\x02\x00\x01\x00", Invalid),
    ],
)
async def test_what_is_no_answer(answer: bytes, error: type[UpstreamError]) -> None:
    async with Scripted() as server, upstream(server.url, retries=1, stall_timeout=SHORT) as index:
        server.on("/x", answer)
        with pytest.raises(error):
            await index.fetch(server.url + "/x", limit=100)
        server.on("/x", reply(200, b"good"))
        assert await index.fetch(server.url + "/x", limit=100) == b"good"


async def test_a_header_is_never_two() -> None:
    async with Scripted() as server, upstream(server.url, retries=1) as index:
        server.on("/x", reply(200, b"yes"))
        with pytest.raises(Invalid, match="control characters"):
            async with index.stream(server.url + "/x", offset=5, validator='"a"\r\nX: y'):
                pass
        assert not server.seen


async def read_all(one: Upstream, url: str, size: int) -> None:
    async with one.stream(url, size=size) as stream:
        async for _ in stream:
            pass


def endless(first: bytes, piece: bytes) -> Answer:
    """The beginning of an answer, and then the same again and again, slowly, as long as anybody listens."""

    async def send(_: Seen, wire: Wire) -> None:
        await wire.write(first)
        with contextlib.suppress(ConnectionError):
            while True:
                await wire.write(piece)
                await asyncio.sleep(0.02)

    return send


ENDLESS = {
    "informational": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"),
    "empty-lines": (b"", b"\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "header-name": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "extensions": (CHUNKED + b"5;", b"a=b;"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"Trailer: x\r\n"),
}


@pytest.mark.parametrize("case", ENDLESS)
async def test_what_goes_on_for_ever_without_a_body_is_a_stall(case: str) -> None:
    async with Scripted() as server, upstream(server.url, retries=1, stall_timeout=SHORT) as one:
        server.on("/x", endless(*ENDLESS[case]))
        for size in (5, 5 << 20):
            with pytest.raises(Unavailable, match="stalled"):
                await read_all(one, server.url + "/x", size)
        with pytest.raises(Unavailable, match="stalled"):
            await one.whole(one.check_url(server.url + "/x"), 5)


async def test_the_bound_of_a_head_counts_what_comes_before_it() -> None:
    async with Scripted() as server, upstream(server.url, retries=1) as one:
        for early in (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"\r\n"):
            for count in (10, 70_000 // len(early)):
                server.on("/x", early * count + reply(200, b"yes"))
                if count == 10:
                    assert await one.whole(one.check_url(server.url + "/x"), 3) == b"yes"
                else:
                    with pytest.raises(Invalid, match="not HTTP"):
                        await one.whole(one.check_url(server.url + "/x"), 3)


async def test_identity_is_no_transfer_coding() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n"
    async with Scripted() as server, upstream(server.url, retries=1) as one:
        server.on("/x", pieces(head + b"hello", [len(head)], end=True))
        assert await one.whole(one.check_url(server.url + "/x"), 5) == b"hello"
