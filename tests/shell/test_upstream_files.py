"""File streams: batches, resuming, faults in mid-body, and who waits for whom."""

import asyncio
import contextlib
from typing import Any

import pytest

from heliostat.errors import IntegrityError, Invalid, Missing, RateLimited, Refused, Unavailable, UpstreamError
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual, made_up_digests
from heliostat.fakeindex.faults import Cut, Drip, Endless, Hang, Headers, IgnoreRange, Redirect, Reset, Status
from heliostat.fakeindex.http import Request
from heliostat.fakeindex.options import Options
from heliostat.upstream import bulk
from heliostat.upstream.client import Upstream
from heliostat.upstream.files import BATCH
from support.scripted import HandClock, Scripted, Seen, Wire, reply
from support.upstreams import SHORT, upstream

MIB = 1 << 20


def index_of(**sizes: int) -> Index:
    """One project for each size in bytes, each with one file."""
    index = Index()
    for name, size in sizes.items():
        index.publish(
            name,
            "1.0",
            UploadedFile(f"{name}-1.0.tar.gz", Virtual(size, seed=len(index), digests=made_up_digests(len(index)))),
        )
    return index


def url_of(server: FakeIndex, name: str) -> str:
    return server.files_url + server.index.expected_files(name)[0].file.path


def bytes_of(server: FakeIndex, name: str) -> bytes:
    content = server.index.expected_files(name)[0].file.content
    return content.read(0, content.size)


async def read_into(got: bytearray, one: Upstream, url: str, **options: Any) -> None:
    async with one.stream(url, **options) as stream:
        async for batch in stream:
            got += batch


async def read(one: Upstream, url: str, **options: Any) -> bytes:
    async with one.stream(url, **options) as stream:
        return b"".join([bytes(batch) async for batch in stream])


async def test_a_small_file_comes_as_one_batch() -> None:
    async with FakeIndex(index_of(tiny=20_000, empty=0, mib=MIB)) as server, upstream(server.url) as one:
        for name, size in (("tiny", 20_000), ("empty", 0), ("mib", MIB)):
            async with one.stream(url_of(server, name), size=size) as stream:
                assert (stream.offset, stream.length) == (0, size)
                assert stream.etag is not None
                batches = [bytes(batch) async for batch in stream]
            assert batches == ([bytes_of(server, name)] if size else [])
        assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_large_file_comes_in_large_batches() -> None:
    async with FakeIndex(index_of(big=5 * MIB + 1)) as server, upstream(server.url) as one:
        for size in (5 * MIB + 1, None):
            async with one.stream(url_of(server, "big"), size=size) as stream:
                batches = [bytes(batch) async for batch in stream]
            assert b"".join(batches) == bytes_of(server, "big")
            assert all(len(batch) >= BATCH for batch in batches[:-1])


async def test_many_large_files_at_once_and_connections_used_again() -> None:
    names = [f"big{number}" for number in range(40)]
    async with (
        FakeIndex(index_of(**dict.fromkeys(names, 3 * MIB + 7))) as server,
        upstream(server.url, files_at_once=40) as one,
    ):
        for _ in range(3):
            bodies = await asyncio.gather(*(read(one, url_of(server, name), size=3 * MIB + 7) for name in names))
            assert bodies == [bytes_of(server, name) for name in names]
        assert bulk.Bulk.to_be_had()
        assert len(server._connections) <= 40


async def test_a_batch_stays_until_the_one_after_the_next_is_asked_for() -> None:
    async with FakeIndex(index_of(big=20 * MIB)) as server, upstream(server.url) as one:
        got = bytearray()
        before: bytes | memoryview = b""
        async with one.stream(url_of(server, "big"), size=20 * MIB) as stream:
            async for batch in stream:
                got += before  # as whoever writes it beside reading on
                before = batch
            got += before
        assert got == bytes_of(server, "big")


async def test_what_no_length_is_declared_for() -> None:
    body = bytes(range(256)) * 100
    chunked = reply(200, Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
    closed = reply(200, body, Connection="close").replace(b"Content-Length: 25600\r\n", b"")

    async def to_the_end(_: Seen, wire: Wire) -> None:
        await wire.write(closed)
        wire.close()

    async with Scripted() as server, upstream(server.url) as one:
        server.on("/chunked", chunked + b"6400\r\n" + body + b"\r\n0\r\n\r\n")
        server.on("/closed", to_the_end)
        for path in ("/chunked", "/closed"):
            for size in (None, len(body)):
                assert await read(one, server.url + path, size=size) == body
            with pytest.raises(IntegrityError, match="size is more than 25599"):
                await read(one, server.url + path, size=len(body) - 1)
            with pytest.raises(Unavailable, match="cut short after 25600 of 25601"):
                await read(one, server.url + path, size=len(body) + 1)


async def test_bytes_are_never_unpacked() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/x.tar.gz", reply(200, b"packed by its author" * 10, packed=True))
        assert (await read(one, server.url + "/x.tar.gz"))[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("action", [Cut(0.9), Reset(0.9)])
async def test_a_download_that_broke_off_is_resumed(action: Cut) -> None:
    size = 20 * MIB
    async with FakeIndex(index_of(big=size)) as server, upstream(server.url) as one:
        url, got = url_of(server, "big"), bytearray()
        server.fault("/packages/*", action, times=1)
        with pytest.raises(Unavailable):
            await read_into(got, one, url, size=size)
        assert len(got) >= size * 0.8
        offset = len(got)
        etag = str(server.site.answer(Request("GET", url.removeprefix(server.files_url), {})).header("ETag"))
        async with one.stream(url, offset=offset, validator=etag, size=size) as stream:
            assert (stream.offset, stream.length, stream.etag) == (offset, size - offset, etag)
            async for batch in stream:
                got += batch
        assert got == bytes_of(server, "big")
        last = server.requests[-1]
        assert (last.headers["range"], last.headers["if-range"]) == (f"bytes={offset}-", etag)
        assert sum(server.bytes_sent.values()) < size * 1.15
        assert one.figures().files.in_flight == 0


async def test_a_server_that_ignores_the_range_begins_again() -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url) as one:
        server.fault("/packages/*", IgnoreRange())
        async with one.stream(url_of(server, "big"), offset=MIB, size=2 * MIB) as stream:
            assert (stream.offset, stream.length) == (0, 2 * MIB)
            assert b"".join([bytes(batch) async for batch in stream]) == bytes_of(server, "big")


async def test_another_file_under_the_same_url_begins_again() -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url) as one:
        url = url_of(server, "big")
        async with one.stream(url, offset=MIB, validator='"of the other one"', size=2 * MIB) as stream:
            assert stream.offset == 0
        async with one.stream(url, offset=MIB, size=2 * MIB) as stream:
            assert stream.offset == MIB


@pytest.mark.parametrize("validator", [None, 'W/"weak"', ""])
async def test_only_a_strong_validator_is_sent(validator: str | None) -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url) as one:
        async with one.stream(url_of(server, "big"), offset=MIB, validator=validator) as stream:
            assert stream.offset == MIB
        assert "if-range" not in server.requests[-1].headers
        assert server.requests[-1].headers["range"] == f"bytes={MIB}-"


async def test_only_a_strong_validator_is_reported() -> None:
    async with FakeIndex(index_of(big=10)) as server, upstream(server.url) as one:
        for etag, reported in (('W/"x"', None), (None, None), ('"x"', '"x"'), ("x", None)):
            server.fault("/packages/*", Headers({"ETag": etag}))
            async with one.stream(url_of(server, "big")) as stream:
                assert stream.etag == reported


async def test_a_range_beyond_the_end_begins_again() -> None:
    async with FakeIndex(index_of(big=MIB)) as server, upstream(server.url) as one:
        async with one.stream(url_of(server, "big"), offset=2 * MIB) as stream:
            assert (stream.offset, stream.length) == (0, MIB)
            assert b"".join([bytes(batch) async for batch in stream]) == bytes_of(server, "big")
        assert [request.status for request in server.requests] == [416, 200]


def part(content_range: str | None, body: bytes = b"56789", *, kind: str = "text/plain", **headers: str) -> bytes:
    if content_range is not None:
        headers["Content_Range"] = content_range
    return reply(206, body, kind=kind, packed=False, **headers)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (part(None), Invalid),
        (part("bytes 4-8/10"), Invalid),
        (part("bytes 4-9/10"), Invalid),
        (part("bytes 0-9/10", b"0123456789"), Invalid),
        (part("bytes 5-8/10", b"5678"), Invalid),
        (part("bytes 5-9/10", b"567"), Invalid),
        (part("bytes 5-9/11"), Invalid),
        (part("bytes 5-10/11", b"56789x"), IntegrityError),
        (part("bytes 5-10/*", b"56789x"), IntegrityError),
        (part("bytes 9-5/10"), Invalid),
        (part("nonsense"), Invalid),
        (part("bytes */10"), Invalid),
        (part(None, kind="multipart/byteranges; boundary=x"), Invalid),
    ],
)
async def test_ranges_that_are_wrong(answer: bytes, error: type[UpstreamError]) -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/x", answer)
        with pytest.raises(error):
            await read(one, server.url + "/x", offset=5, size=10)
        server.on("/x", part("bytes 5-9/10"), part("bytes 5-9/*"))
        for _ in range(2):
            assert await read(one, server.url + "/x", offset=5, size=10) == b"56789"


async def test_a_part_that_was_not_asked_for() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/x", part("bytes 0-4/10", b"01234"))
        with pytest.raises(Invalid, match="206"):
            await read(one, server.url + "/x", size=10)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (Status(404), Missing),
        (Status(403), Unavailable),
        (Status(500), Unavailable),
        (Status(429, retry_after=1), RateLimited),
        (Status(503, retry_after=1), RateLimited),
        (Cut(), Unavailable),
        (Reset(), Unavailable),
        (Reset(-1), Unavailable),
        (Hang(), Unavailable),
        (Hang(0.5), Unavailable),
        (Endless(), IntegrityError),
        (Redirect("http://other.example/{path}"), Invalid),
        (Redirect("/elsewhere{path}"), Missing),
    ],
)
async def test_what_goes_wrong_is_tried_once(action: Status, error: type[UpstreamError]) -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url, stall_timeout=SHORT) as one:
        fault = server.fault("/packages/*", action)
        with pytest.raises(error) as caught:
            await read(one, url_of(server, "big"), size=2 * MIB)
        assert type(caught.value) is error or isinstance(caught.value, Unavailable)
        assert fault.fired == 1 or isinstance(action, Reset)
        assert one.figures().files.in_flight == 0


async def test_the_bytes_before_a_fault_are_not_lost() -> None:
    async def send(_: Seen, wire: Wire) -> None:
        await wire.write(reply(200, b"x" * (2 * MIB))[: -2 * MIB + 100_000])
        wire.close()

    async with Scripted() as server, upstream(server.url) as one:
        server.on("/x", send)
        async with one.stream(server.url + "/x", size=2 * MIB) as stream:
            assert bytes(await anext(stream)) == b"x" * 100_000
            for _ in range(2):
                with pytest.raises(Unavailable, match="cut short"):
                    await anext(stream)


async def test_files_of_unknown_size_count_as_large_until_they_are_known_to_be_small() -> None:
    async with (
        FakeIndex(index_of(a=10, b=10)) as server,
        upstream(server.url, files_at_once=2) as one,
        asyncio.timeout(60),
        one.stream(url_of(server, "a")),
        one.stream(url_of(server, "b")),
    ):
        assert one.figures().files.in_flight == 2


async def test_another_size_than_declared_is_noticed_before_the_body() -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url) as one:
        for size in (MIB, 3 * MIB, 0):
            with pytest.raises(IntegrityError, match="size is 2097152"):
                async with one.stream(url_of(server, "big"), size=size):
                    pass


async def test_a_file_above_the_configured_bound() -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url, max_file=MIB) as one:
        with pytest.raises(Refused, match="max-file"):
            await read(one, url_of(server, "big"))
        server.fault("/packages/*", Endless())
        with pytest.raises(Refused, match="max-file"):
            await read(one, url_of(server, "big"))


async def test_a_drip_counts_as_a_stall_in_the_end() -> None:
    async with FakeIndex(index_of(big=2 * MIB)) as server, upstream(server.url, stall_timeout=SHORT) as one:
        fault = server.fault("/packages/*", Drip(step=1, per_second=100.0))
        with pytest.raises(Unavailable, match="stalled: only"):
            await read(one, url_of(server, "big"), size=2 * MIB)
        fault.remove()


async def test_a_slow_reader_is_no_stall() -> None:
    async with FakeIndex(index_of(big=8 * MIB)) as server, upstream(server.url, stall_timeout=SHORT) as one:
        got = 0
        async with one.stream(url_of(server, "big"), size=8 * MIB) as stream:
            async for batch in stream:
                if not got:
                    await asyncio.sleep(2 * SHORT)
                got += len(batch)
        assert got == 8 * MIB


async def test_leaving_in_the_middle_gives_permit_and_connection_back() -> None:
    async with FakeIndex(index_of(big=20 * MIB)) as server, upstream(server.url, files_at_once=1) as one:
        for _ in range(3):
            async with one.stream(url_of(server, "big"), size=20 * MIB) as stream:
                async for _batch in stream:
                    break
        with contextlib.suppress(ZeroDivisionError):
            async with one.stream(url_of(server, "big"), size=20 * MIB):
                raise ZeroDivisionError
        task = asyncio.create_task(read(one, url_of(server, "big"), size=20 * MIB))
        await server.seen("/packages/*")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one.figures().files.in_flight == 0
        assert len(await read(one, url_of(server, "big"))) == 20 * MIB


async def test_dripping_large_files_hold_up_no_small_ones() -> None:
    index = index_of(huge1=2 << 30, huge2=2 << 30, huge3=2 << 30, **{f"small{n}": 1000 for n in range(50)})
    async with FakeIndex(index) as server, upstream(server.url, files_at_once=3) as one:
        drip = server.fault("*huge*", Drip(step=1))
        ended: list[str] = []

        async def fetch(name: str) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await read(one, url_of(server, name), size=index.expected_files(name)[0].file.size)
            ended.append(name)

        huge = [asyncio.create_task(fetch(f"huge{n}")) for n in (1, 2, 3)]
        await server.seen("*huge*", 2)
        await asyncio.gather(*(fetch(f"small{n}") for n in range(50)))
        assert len(ended) == 50
        assert drip.fired == 2
        assert server.most_in_flight["files"] == 3
        for task in huge:
            task.cancel()
        await asyncio.gather(*huge)


async def test_no_more_files_in_flight_than_configured() -> None:
    index = index_of(**{f"small{n}": 1000 for n in range(100)})
    async with FakeIndex(index, options=Options(latency=0.001)) as server, upstream(server.url, files_at_once=6) as one:
        await asyncio.gather(*(read(one, url_of(server, f"small{n}"), size=1000) for n in range(100)))
        assert server.most_in_flight["files"] == 6


async def test_files_wait_when_upstream_is_asked_too_much() -> None:
    clock = HandClock()
    async with FakeIndex(index_of(demo=10)) as server, upstream(server.url, clock=clock) as one:
        server.fault("/packages/*", Status(503, retry_after=20), times=1)
        with pytest.raises(RateLimited) as caught:
            await read(one, url_of(server, "demo"))
        file = asyncio.create_task(read(one, url_of(server, "demo")))
        serial = asyncio.create_task(one.last_serial())
        backing = asyncio.create_task(one.back_off(0, caught.value))
        await clock.asleep(3)
        assert len(server.requests) == 1
        clock.move(20.0)
        assert len(await file) == 10
        await asyncio.gather(backing, serial)
