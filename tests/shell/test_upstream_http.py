"""One request: what each answer means, where redirects may go, what bodies may cost, and what is never said aloud."""

import asyncio
import gzip
import socket
import zlib
from typing import Any

import pytest

from heliostat.errors import ConfigError, Invalid, Missing, RateLimited, Refused, Unavailable, UpstreamError
from heliostat.names import normalise
from heliostat.upstream import session
from heliostat.upstream.session import OwnTally, Proxies
from heliostat.upstream.urls import origin_of
from support.scripted import HandClock, QuickClock, Scripted, Seen, Wire, cut, hang, reply
from support.upstreams import SHORT, upstream

SECRET = "hunter2"


async def fetched(server: Scripted, path: str = "/x", **changes: Any) -> bytes:
    async with upstream(server.url, **changes) as index:
        return await index.fetch(server.url + path, limit=1 << 20, accept="application/json")


# Answers.


async def test_who_we_say_we_are() -> None:
    async with Scripted() as server:
        server.on("/x", reply(200, b"yes"))
        assert await fetched(server, contact="https://mirror.example/about") == b"yes"
        headers = server.seen[0].headers
        assert headers["user-agent"].startswith("heliostat/1.2.3 (cpython 3.")
        assert headers["user-agent"].endswith("; https://mirror.example/about)")
        assert headers["accept-encoding"] == "identity"
        assert headers["accept"] == "application/json"
        assert "cookie" not in headers
        assert session.user_agent("1", None).count("(") == 2


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [
        (reply(404), Missing, 1),
        (reply(410), Missing, 1),
        (reply(500), Unavailable, 3),
        (reply(502), Unavailable, 3),
        (reply(503), Unavailable, 3),
        (reply(503, Retry_After="7"), RateLimited, 3),
        (reply(429), RateLimited, 3),
        (reply(429, Retry_After="601"), RateLimited, 1),
        (reply(408), Unavailable, 3),
        (reply(401), Unavailable, 1),
        (reply(403), Unavailable, 1),
        (reply(204), Invalid, 2),
        (reply(304), Invalid, 2),
        (reply(206), Invalid, 2),
        (reply(302), Invalid, 2),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Invalid, 2),
        (b"HTTP/1.1 999999 What\r\n\r\n", Invalid, 2),
        (reply(200, X_Long="x" * 100_000), Invalid, 2),
        (reply(200, b"x", Content_Encoding="br"), Invalid, 2),
        (cut(reply(200, b"x" * 1000), 500), Unavailable, 3),
        (cut(reply(200), 1000), Unavailable, 3),
    ],
)
async def test_what_each_answer_means(answer: bytes, error: type[UpstreamError], tries: int) -> None:
    tally = OwnTally()
    async with Scripted() as server:
        server.on("/x", answer)
        with pytest.raises(error) as caught:
            await fetched(server, clock=QuickClock(), tally=tally)
        assert type(caught.value) is error
        assert caught.value.url == f"{server.url}/x"
        assert (tally.requests, tally.retries) == (tries, tries - 1)
        assert len(server.seen) >= tries  # aiohttp opens another connection for one that was closed on it


async def test_a_reset_in_mid_body() -> None:
    async def reset(_: Seen, wire: Wire) -> None:
        await wire.write(reply(200, b"x" * 1000)[:-500])
        wire.reset()

    async with Scripted() as server:
        server.on("/x", reset)
        with pytest.raises(Unavailable):
            await fetched(server)
        server.on("/x", reset, reset, reply(200, b"yes"))
        assert await fetched(server) == b"yes"


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with upstream(url) as index:
            with pytest.raises(Unavailable, match=r"cannot connect to 127\.0\.0\.1: Connection refused"):
                await index.fetch(url + "/x", limit=10)


async def test_a_host_that_cannot_be_one() -> None:
    for host in ("a" * 64 + ".example", "999.999.999.999", "[::zz]"):
        url = f"http://{host}"
        with pytest.raises((Invalid, Refused), match="not a URL"):
            async with upstream(url, retries=1) as index:
                await index.fetch(url + "/x", limit=10)


async def test_silence() -> None:
    async with Scripted() as server:
        server.on("/x", hang())
        with pytest.raises(Unavailable, match=f"no byte for {SHORT:g} s"):
            await fetched(server, stall_timeout=SHORT, retries=1)
        server.on("/x", hang(reply(200, b"x" * 1000)[:-1]))
        with pytest.raises(Unavailable, match=f"no byte for {SHORT:g} s"):
            await fetched(server, stall_timeout=SHORT, retries=1)


async def test_a_drip_that_never_ends() -> None:
    async def drip(_: Seen, wire: Wire) -> None:
        await wire.write(reply(200, Content_Length="1000000"))
        while True:
            await wire.write(b"x")
            await asyncio.sleep(SHORT / 10)

    async with Scripted() as server:
        server.on("/x", drip)
        with pytest.raises(Unavailable, match=f"not complete after {SHORT:g} s"):
            await fetched(server, metadata_timeout=SHORT, retries=1)


async def test_a_url_that_must_not_be_requested_is_not() -> None:
    async with Scripted() as server, upstream(server.url) as index:
        for url in ("http://127.0.0.1:1/x", server.url + "/../x", "file:///etc/passwd", "/x"):
            with pytest.raises(Refused):
                await index.fetch(url, limit=10)
            with pytest.raises(Refused):
                index.stream(url)
        assert server.seen == []


async def test_odd_characters_arrive_as_they_are() -> None:
    async with Scripted() as server, upstream(server.url) as index:
        for path in ("/a%20b%2B(1)", "/x-1!3.1.0+cu118%25~'", "/%C3%B6", "/a=b?c=%20d"):
            server.on(path.partition("?")[0], reply(200, b"yes"))
            assert await index.fetch(server.url + path, limit=10) == b"yes"
            assert server.seen[-1].path == path


# Redirects.


async def test_redirects_are_followed() -> None:
    async with Scripted() as server, Scripted() as other:
        host = other.url.removeprefix("http://")
        server.on("/x", reply(302, Location="/y"))
        server.on("/y", reply(307, b"moved", Location=f"{other.url}/z?sig=1"))
        other.on("/z", reply(200, b"yes"))
        assert await fetched(server, file_hosts=(host,)) == b"yes"
        assert other.seen[0].path == "/z?sig=1"


async def test_to_another_host_they_are_not() -> None:
    async with Scripted() as server, Scripted() as other:
        server.on("/x", reply(302, Location=f"{other.url}/z"))
        with pytest.raises(Invalid, match="redirected elsewhere"):
            await fetched(server)
        assert other.seen == []


async def test_five_redirects_and_no_more() -> None:
    async with Scripted() as server:
        for hop in range(6):
            server.on(f"/{hop}", reply(302, Location=f"/{hop + 1}"))
        server.on("/6", reply(200, b"yes"))
        assert await fetched(server, "/1") == b"yes"
        with pytest.raises(Invalid, match="more than 5 redirects"):
            await fetched(server, "/0")
        assert server.paths().count("/5") == 3
        assert server.paths().count("/6") == 1
        server.on("/0", reply(302, Location="/0"))
        with pytest.raises(Invalid, match="more than 5 redirects"):
            await fetched(server, "/0")


async def test_credentials_go_to_the_index_and_to_nobody_else() -> None:
    async with Scripted() as server, Scripted() as other:
        host = other.url.removeprefix("http://")
        server.on("/simple/demo/", reply(302, Location=f"{other.url}/elsewhere"))
        other.on("/elsewhere", reply(302, Location=f"{server.url}/back"))
        server.on("/back", reply(200, b"<html>", kind="text/html"))
        other.on("/file", reply(200, b"yes"))
        url = server.url.replace("http://", f"http://me:{SECRET}@")
        async with upstream(url, file_hosts=(host,)) as index:
            with pytest.raises(Invalid) as caught:
                await index.page(normalise("demo"))
            assert await index.fetch(f"{other.url}/file", limit=10) == b"yes"
            assert index.base == server.url
        assert {seen.headers.get("authorization") for seen in server.seen} == {"Basic bWU6aHVudGVyMg=="}
        assert all("authorization" not in seen.headers for seen in other.seen)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        reply(500),
        reply(404),
        reply(429),
        hang(),
        cut(reply(200, b"x"), 1),
        reply(302, Location=f"http://you:{SECRET}@other.example/?{SECRET}"),
        reply(302, Location=f"https://other.example/?token={SECRET}"),
        reply(200, b"x" * 2000),
        reply(200, b"x", Content_Encoding="gzip"),
        b"nonsense\r\n",
    ],
)
async def test_no_message_holds_a_secret(answer: bytes) -> None:
    async with Scripted() as server:
        server.on("/x", answer)
        url = server.url.replace("http://", f"http://me:{SECRET}@")
        async with upstream(url, retries=1, stall_timeout=SHORT) as index:
            with pytest.raises(UpstreamError) as caught:
                await index.fetch(f"{server.url}/x?signature={SECRET}", limit=1000)
            error: BaseException | None = caught.value
            while error is not None:
                assert SECRET not in f"{error} {error!r}"
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# Bodies.


async def test_a_packed_body() -> None:
    async with Scripted() as server:
        server.on("/x", reply(200, b"yes" * 1000, packed=True))
        assert await fetched(server) == b"yes" * 1000
        two = gzip.compress(b"one, ") + gzip.compress(b"two")
        server.on("/x", reply(200, two, Content_Encoding="gzip"))
        assert await fetched(server) == b"one, two"
        server.on("/x", reply(200, b"", Content_Encoding="gzip"))
        assert await fetched(server) == b""


@pytest.mark.parametrize("size", [(1 << 20) + 1, 50 << 20])
@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_that_is_too_large(size: int, packed: bool) -> None:
    async with Scripted() as server:
        server.on("/x", reply(200, b" " * size, packed=packed))
        with pytest.raises(Invalid, match="larger than 1048576 bytes"):
            await fetched(server)
        server.on("/x", reply(200, b" " * (1 << 20), packed=packed))
        assert len(await fetched(server)) == 1 << 20


async def test_a_body_that_is_announced_as_too_large_is_not_waited_for() -> None:
    async with Scripted() as server:
        server.on("/x", hang(reply(200, Content_Length=str(1 << 40))))
        with pytest.raises(Invalid, match="larger than 1048576 bytes"):
            await fetched(server)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_that_never_ends(packed: bool) -> None:
    async def endless(_: Seen, wire: Wire) -> None:
        head = reply(200, Content_Encoding="gzip" if packed else "identity").replace(
            b"Content-Length: 0\r\n", b"Connection: close\r\n"
        )
        packer = zlib.compressobj(wbits=31)
        await wire.write(head)
        while True:
            block = b" " * 65536
            await wire.write(packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else block)
            await asyncio.sleep(0)

    async with Scripted() as server:
        server.on("/x", endless)
        with pytest.raises(Invalid, match="larger than 1048576 bytes"):
            await fetched(server)


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (b"junk", Invalid, "not gzip"),
        (gzip.compress(b"x" * 10_000) + b"junk", Invalid, "not gzip"),
        (gzip.compress(b"") * 200, Invalid, "members"),
        (gzip.compress(bytes(range(256)) * 40)[:-20], Unavailable, "cut short"),
        (gzip.compress(bytes(range(256)) * 40)[:9], Unavailable, "cut short"),
    ],
    # Not of the bytes, which hold the time: each process that takes part in a run must find the same tests.
    ids=["junk", "junk-behind", "members", "cut", "cut-in-header"],
)
async def test_what_is_not_gzip(body: bytes, error: type[UpstreamError], why: str) -> None:
    async with Scripted() as server:
        server.on("/x", reply(200, body, Content_Encoding="gzip"))
        with pytest.raises(error, match=why):
            await fetched(server)


async def test_garbage_is_asked_for_once_more() -> None:
    async with Scripted() as server:
        server.on("/x", reply(200, b"junk", Content_Encoding="gzip"), reply(200, b"yes"))
        assert await fetched(server) == b"yes"
        assert len(server.seen) == 2


# Waiting.


@pytest.mark.parametrize("value", ["30", "Mon, 21 Sep 2026 14:13:50 GMT"])
async def test_retry_after_holds_back_everybody(value: str) -> None:
    clock = HandClock()
    async with Scripted() as server, upstream(server.url, clock=clock) as index:
        server.on("/a", reply(429, Retry_After=value), reply(200, b"a"))
        server.on("/b", reply(200, b"b"))
        first = asyncio.create_task(index.fetch(server.url + "/a", limit=10, accept="*/*"))
        await clock.asleep(1)  # it backs off
        second = asyncio.create_task(index.fetch(server.url + "/b", limit=10, accept="*/*"))
        third = asyncio.create_task(index.fetch(server.url + "/b", limit=10))  # by the other gate
        await clock.asleep(3)
        assert server.paths() == ["/a"]
        clock.move(29.5)
        await asyncio.sleep(0)
        assert server.paths() == ["/a"]
        clock.move(0.5)
        assert tuple(await asyncio.gather(first, second, third)) == (b"a", b"b", b"b")
        assert clock.sleeps == [30.0, 30.0, 30.0]
        assert index.figures().rate_limited == 1


async def test_the_pauses_between_tries_double() -> None:
    clock = QuickClock()
    async with Scripted() as server:
        server.on("/x", reply(500))
        with pytest.raises(Unavailable):
            await fetched(server, clock=clock, retries=6, retry_delay=1.0, retry_delay_most=5.0)
        assert clock.sleeps == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_cancelling_ends_a_pause_at_once() -> None:
    clock = HandClock()
    async with Scripted() as server, upstream(server.url, clock=clock, retry_delay=1.0) as index:
        server.on("/x", reply(500))
        task = asyncio.create_task(index.fetch(server.url + "/x", limit=10))
        await clock.asleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert index.figures().files.in_flight == 0


async def test_no_more_requests_in_flight_than_configured() -> None:
    async def slowly(_: Seen, wire: Wire) -> None:
        await asyncio.sleep(0.002)
        await wire.write(reply(200, b"yes"))

    async with Scripted() as server, upstream(server.url, metadata_at_once=5) as index:
        server.on("/x", slowly)
        await asyncio.gather(*(index.fetch(server.url + "/x", limit=10, accept="*/*") for _ in range(200)))
        assert server.most_in_flight == 5


# Proxies.


def chosen(proxies: Proxies, url: str) -> str | None:
    found = proxies.choose(origin_of(url))
    return str(found.url) if found else None


def test_proxies_of_the_environment() -> None:
    proxies = Proxies(
        None, {"https": "http://proxy.example:3128", "http": "other.example:81", "no": "inner.example,:8443"}
    )
    assert chosen(proxies, "https://index.example/") == "http://proxy.example:3128"
    assert chosen(proxies, "http://index.example/") == "http://other.example:81"
    for host in ("a.inner.example", "127.0.0.1", "localhost", "[::1]"):
        assert chosen(proxies, f"https://{host}/") is None
    assert chosen(Proxies(None, {}), "https://index.example/") is None
    assert not Proxies(None, {}).any


def test_a_configured_proxy_counts_alone() -> None:
    proxies = Proxies("http://proxy.example:1", {"https": "http://other.example:2", "no": "*"})
    assert chosen(proxies, "https://index.example/") == "http://proxy.example:1"
    assert chosen(proxies, "http://127.0.0.1/") == "http://proxy.example:1"


@pytest.mark.parametrize("value", [f"socks5://me:{SECRET}@proxy.example", f"http://me:{SECRET}@", "http://[x"])
def test_proxies_that_cannot_be_used(value: str) -> None:
    with pytest.raises(ConfigError, match="proxy") as caught:
        Proxies(None, {"https": value})
    assert SECRET not in str(caught.value)


async def test_requests_go_through_the_proxy() -> None:
    async with Scripted() as proxy:
        proxy.on("http://index.example/x", reply(200, b"yes"))
        url = proxy.url.replace("http://", f"http://me:{SECRET}@")
        async with upstream("http://index.example", proxy=url) as index:
            for _ in range(2):
                assert await index.fetch("http://index.example/x", limit=10) == b"yes"
        assert [seen.headers["proxy-authorization"] for seen in proxy.seen] == ["Basic bWU6aHVudGVyMg=="] * 2
        assert all("authorization" not in seen.headers for seen in proxy.seen)


async def test_a_proxy_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://me:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"
        async with upstream("http://index.example", proxy=url, retries=1) as index:
            with pytest.raises(Unavailable, match=r"cannot connect to the proxy 127\.0\.0\.1") as caught:
                await index.fetch("http://index.example/x", limit=10)
            assert SECRET not in str(caught.value)
