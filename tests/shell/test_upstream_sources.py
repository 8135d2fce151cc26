"""Several sources of one index: who is asked, who is left, who is tried again, and what is never mixed up."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from heliostat.errors import FeedUnsupported, Invalid, Missing, PageMissing, RateLimited, Unavailable, UpstreamError
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.fakeindex.faults import Action, Body, Cut, Drip, Hang, Reset, Status
from heliostat.names import normalise
from heliostat.upstream.client import Route, Upstream
from support.scripted import HandClock, Scripted, reply
from support.upstreams import SHORT, source_lines, upstream

NAMES = [normalise(f"demo-{number}") for number in range(24)]
DEMO = NAMES[0]
FILE = b"contents of a file\n" * 10


def index() -> Index:
    """The same whenever it is made: two servers with one each are two sources of one index."""
    made = Index()
    for name in NAMES:
        made.publish(name, "1.0", UploadedFile(f"{name.replace('-', '_')}-1.0.tar.gz", FILE + name.encode()))
    return made


@asynccontextmanager
async def two(**options: bool) -> AsyncIterator[tuple[FakeIndex, FakeIndex]]:
    async with (
        FakeIndex(index(), options=Options(**options)) as first,
        FakeIndex(index(), options=Options(**options)) as second,
    ):
        yield first, second


async def pages(one: Upstream) -> None:
    """All projects' pages, asked for at once."""
    answers = await asyncio.gather(*(one.page(name) for name in NAMES))
    assert [answer.page.name for answer in answers if answer is not None] == NAMES


# Leaving a source.


async def test_the_first_one_is_asked_as_long_as_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    with source_lines(caplog) as said:
        async with two() as (first, second), upstream(first.url, second.url) as one:
            await pages(one)
            assert await one.last_serial() == first.index.serial
            assert (one.base, one.stand_in, second.request_count) == (first.url, None, 0)
    assert said == []


async def test_one_that_refuses_is_left(caplog: pytest.LogCaptureFixture) -> None:
    with source_lines(caplog) as said:
        async with two() as (first, second), upstream(first.url, second.url) as one:
            await first.refuse_connections()
            await pages(one)
            assert await one.document(DEMO) is not None
            assert one.base == one.stand_in == second.url
            assert one.identity == first.url
    assert len(said) == 1
    assert said[0].startswith(f"{first.url} is left for 300 s: cannot connect to 127.0.0.1: Connection refused; ")
    assert said[0].endswith(f"{second.url} is asked instead")


@pytest.mark.parametrize("action", [Hang(), Hang(after=0.5), Drip()], ids=["silent", "half", "drip"])
async def test_one_that_hangs_costs_one_time_limit_for_all(action: Action, caplog: pytest.LogCaptureFixture) -> None:
    with source_lines(caplog) as said:
        async with (
            two() as (first, second),
            upstream(first.url, second.url, stall_timeout=SHORT, metadata_timeout=2 * SHORT, metadata_at_once=4) as one,
        ):
            first.fault("*", action)
            await pages(one)
            # Those that were on their way when the first one failed, and none of those that waited.
            assert first.request_count <= 4
            assert second.count("/simple/*") == len(NAMES)
            await pages(one)
            assert first.request_count <= 4
    assert len(said) == 1


@pytest.mark.parametrize("action", [Status(503), Status(500), Reset(-1), Cut()], ids=["503", "500", "reset", "cut"])
async def test_one_that_fails_is_left_after_its_tries(action: Action, caplog: pytest.LogCaptureFixture) -> None:
    with source_lines(caplog) as said:
        async with two() as (first, second), upstream(first.url, second.url) as one:
            first.fault("*", action)
            assert await one.page(DEMO) is not None
            assert first.request_count == 3
            await pages(one)
            assert await one.last_serial() == second.index.serial
            assert first.request_count == 3
    assert len(said) == 1


async def test_one_page_that_fails_is_had_elsewhere_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """Others are answered meanwhile: it is the page, not the source."""
    with source_lines(caplog) as said:
        async with two() as (first, second), upstream(first.url, second.url) as one:
            first.fault(f"/simple/{DEMO}/", Status(503))
            await pages(one)
            assert second.count("*") == second.count(f"/simple/{DEMO}/") == 1
            assert one.base == first.url
    assert said == []


async def test_one_page_that_hangs_costs_one_time_limit() -> None:
    async with two() as (first, second), upstream(first.url, second.url, stall_timeout=SHORT) as one:
        fault = first.fault(f"/simple/{DEMO}/", Hang())
        waiting = asyncio.create_task(one.page(DEMO))
        await first.seen(f"/simple/{DEMO}/")
        assert await one.page(NAMES[1]) is not None
        assert await waiting is not None
        assert (fault.fired, second.request_count, one.base) == (1, 1, first.url)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (Status(404), PageMissing),
        (Status(429), RateLimited),
        (Status(503, retry_after=0), RateLimited),
        (Body(b"no JSON", "application/json"), Invalid),
    ],
    ids=["404", "429", "busy", "nonsense"],
)
async def test_what_is_no_failure_is_said_as_it_is(action: Action, error: type[UpstreamError]) -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        first.fault("/simple/*", action)
        with pytest.raises(error) as raised:
            await one.page(DEMO)
        assert (type(raised.value), second.request_count, one.base) == (error, 0, first.url)


async def test_no_feed_is_no_failure() -> None:
    async with two(xmlrpc=False) as (first, second), upstream(first.url, second.url) as one:
        with pytest.raises(FeedUnsupported):
            await one.last_serial()
        assert second.request_count == 0


async def test_who_stands_in_says_so() -> None:
    """What it does not have the first one may have, and its serials may be old."""
    async with two() as (first, second), upstream(first.url, second.url) as one:
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert not page.stand_in
        assert not document.stand_in
        with pytest.raises(Missing) as raised:
            await one.page(normalise("nowhere"))
        assert not raised.value.stand_in
        await first.refuse_connections()
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        assert page.stand_in
        assert document.stand_in
        with pytest.raises(Missing) as raised:
            await one.page(normalise("nowhere"))
        assert raised.value.stand_in


async def test_when_all_fail_each_is_named_with_its_reason() -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        await first.refuse_connections()
        second.fault("*", Status(502))
        for _ in range(2):
            with pytest.raises(Unavailable) as raised:
                await one.page(DEMO)
            assert str(raised.value) == (
                f"{first.url}/simple/{DEMO}/: cannot connect to 127.0.0.1: Connection refused; "
                f"{second.url}/simple/{DEMO}/: status 502"
            )
        second.clear_faults()
        await pages(one)


async def test_when_all_fail_for_a_moment_they_are_tried_again() -> None:
    """A network that was away for a moment is no reason to rest: there is nobody else to ask."""
    async with two() as (first, second), upstream(first.url, second.url) as one:
        for server in (first, second):
            server.fault("*", Reset(-1), times=2)
        await pages(one)


async def test_three_sources() -> None:
    async with two() as (first, second), Scripted() as last, upstream(last.url, first.url, second.url) as one:
        last.on(f"/simple/{DEMO}/", reply(500))
        first.fault("*", Status(500))
        assert await one.page(DEMO) is not None
        assert one.base == second.url


async def test_idle_connections_to_one_take_no_room_from_another() -> None:
    async with (
        two() as (first, second),
        upstream(first.url, second.url, metadata_at_once=2, files_at_once=1, connect_timeout=2 * SHORT) as one,
    ):
        first.options.latency = SHORT / 5
        await asyncio.gather(pages(one), *(whole(one, file_of(first), len(FILE) + len(DEMO)) for _ in range(4)))
        first.fault("*", Status(500))
        await pages(one)
        assert second.count("/simple/*") == len(NAMES)


# Taking it again.


async def test_after_its_rest_one_request_tries_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    with source_lines(caplog) as said:
        async with two() as (first, second), upstream(first.url, second.url, clock=clock) as one:
            first.fault("*", Status(500))
            await pages(one)
            first.reset_log()
            clock.move(299)
            await pages(one)
            assert first.request_count == 0
            clock.move(2)
            await pages(one)
            assert first.request_count == 1  # in vain: it rests again
            clock.move(299)
            await pages(one)
            assert first.request_count == 1
            first.clear_faults()
            clock.move(2)
            assert await one.page(DEMO) is not None
            assert one.base == first.url
            second.reset_log()
            await pages(one)
            assert second.request_count == 0
    assert len(said) == 2
    assert "is left for 300 s: status 500" in said[0]
    assert said[1] == f"{first.url} answers again: it is asked again"


async def test_the_rest_is_a_setting() -> None:
    clock = HandClock()
    async with two() as (first, second), upstream(first.url, second.url, clock=clock, source_rest=7) as one:
        first.fault("*", Status(500))
        await pages(one)
        first.clear_faults()
        clock.move(6)
        await pages(one)
        assert one.base == second.url
        clock.move(2)
        await pages(one)
        assert one.base == first.url


async def test_what_rests_is_known_to_the_next_one_too() -> None:
    async with two() as (first, second):
        first.fault("*", Status(500))
        async with upstream(first.url, second.url) as one:
            await pages(one)
        first.reset_log()
        async with Upstream(one._config, version="1", sources=one.sources) as next_one:
            await pages(next_one)
        assert first.request_count == 0


# Lists.


async def listed(one: Upstream) -> list[str]:
    async with one.root_list() as root:
        assert root is not None
        return [item.display async for items in root for item in items]


async def test_a_root_list_that_breaks_off_is_had_elsewhere() -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        fault = first.fault("/simple/", Cut())
        for _ in range(2):
            with pytest.raises(Unavailable):
                await listed(one)
        assert await listed(one) == sorted(NAMES)
        assert (fault.fired, second.request_count) == (2, 1)


async def test_a_list_by_xmlrpc_that_breaks_off_is_had_elsewhere() -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        fault = first.fault("/pypi", Cut())
        for _ in range(2):
            with pytest.raises(Unavailable):
                async with one.serials_by_xmlrpc() as lists:
                    [listed async for listed in lists]
        async with one.serials_by_xmlrpc() as lists:
            assert sorted([item.display async for listed in lists for item in listed]) == sorted(NAMES)
        assert (fault.fired, second.request_count) == (2, 1)


async def test_the_feed_goes_on_at_another_source() -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        first.options.row_cap = second.options.row_cap = 10
        first.fault("/pypi", Status(500), skip=2)
        events = [event async for answer in one.events_since(0) for event in answer]
        assert events == first.index.rows()
        assert one.base == second.url


# What belongs to one source only.


async def test_an_etag_goes_to_the_source_that_gave_it() -> None:
    async with two() as (first, second), upstream(first.url, second.url, source_rest=0) as one:
        page, document = await one.page(DEMO), await one.document(DEMO)
        assert page is not None
        assert document is not None
        fault = first.fault("*", Reset(-1))
        other = await one.page(DEMO, etag=page.etag)
        assert other is not None
        assert other.etag != page.etag
        assert await one.page(DEMO, etag=other.etag) is None
        assert await one.document(DEMO, etag=document.etag) is not None
        sent = [request.headers.get("if-none-match") for request in second.requests]
        assert sent == [None, other.etag and other.etag.partition(" ")[2], None]
        fault.remove()
        first.reset_log()
        assert await one.page(DEMO, etag=other.etag) is not None
        assert await one.page(DEMO, etag=page.etag) is None
        assert [request.headers.get("if-none-match") for request in first.requests] == [None, page.etag]


async def test_credentials_go_to_their_own_source_only() -> None:
    async with Scripted() as first, Scripted() as second:
        with_secret = first.url.replace("//", "//user:secret@")
        async with upstream(with_secret, second.url) as one:
            first.on("/integrity/x", reply(500))
            second.on("/integrity/x", reply(200, b"yes"))
            url = f"{first.url}/integrity/x"
            assert await one.fetch(url, limit=100, accept="application/json") == b"yes"
        assert {"authorization" in request.headers for request in first.seen} == {True}
        assert ["authorization" in request.headers for request in second.seen] == [False]


# Files.


def route_of(one: Upstream, url: str) -> Route:
    found = one.route(one.check_url(url))
    assert found is not None
    return found


def file_of(server: FakeIndex, number: int = 0) -> str:
    return server.url + server.index.expected_files(NAMES[number])[0].file.path


async def whole(one: Upstream, url: str, size: int) -> bytes:
    """A file from wherever it can be had."""
    route = route_of(one, url)
    while True:
        taken = route.take()
        try:
            body = await one.whole(taken, size)
        except UpstreamError as error:
            if route.failed(error) is not None:
                raise
        else:
            route.answered()
            return body


async def test_a_file_has_its_place_at_every_source() -> None:
    digits = f"ab/cd/{'e' * 60}"
    async with upstream(
        "https://a.example/x", "https://b.example", "https://c.example", file_hosts=("files.example",)
    ) as one:
        wanted = [f"https://{base}/packages/{digits}/f.whl" for base in ("a.example/x", "b.example", "c.example")]
        for url in (
            f"https://files.example/packages/{digits}/f.whl",
            f"https://files.example/y/packages/{digits}/f.whl?z",
        ):
            assert route_of(one, url)._urls == [url, *wanted]
        for url in wanted:
            assert route_of(one, url)._urls == [url, *(other for other in wanted if other != url)]
        # A place that says nothing of the bytes: the same one below the other sources, if it lies below one at all.
        assert route_of(one, "https://a.example/x/d/f.whl")._urls[1:] == [
            "https://b.example/d/f.whl",
            "https://c.example/d/f.whl",
        ]
        for url in ("https://files.example/d/f.whl", "https://a.example/f.whl"):
            assert one.route(one.check_url(url)) is None


async def test_files_of_a_host_that_hangs_cost_one_time_limit_for_all() -> None:
    async with two() as (first, second), upstream(first.url, second.url, stall_timeout=SHORT, files_at_once=4) as one:
        first.fault("/packages/*", Hang())
        sizes = [len(FILE) + len(name) for name in NAMES]
        bodies = await asyncio.gather(*(whole(one, file_of(first, number), size) for number, size in enumerate(sizes)))
        assert bodies == [FILE + name.encode() for name in NAMES]
        assert first.count("/packages/*") <= 4
        assert await one.page(DEMO) is not None
        assert one.base == first.url  # its pages are as good as before


@pytest.mark.parametrize("action", [Status(404), Status(500), Reset(-1)], ids=["404", "500", "reset"])
async def test_a_small_object_beside_a_file_comes_from_elsewhere(action: Action) -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        first.fault(re.compile("/packages/.*"), action)
        url = file_of(first)
        assert (await one.fetch(url, limit=1000, route=route_of(one, url))).startswith(FILE)
        assert (first.request_count, second.request_count) == (1, 1)


async def test_a_file_that_is_nowhere_is_missing() -> None:
    async with two() as (first, second), upstream(first.url, second.url) as one:
        url = f"{first.url}/packages/ab/cd/{'e' * 60}/f.whl"
        with pytest.raises(Missing) as raised:
            await one.fetch(url, limit=1000, route=route_of(one, url))
        assert raised.value.url == url
        assert (first.request_count, second.request_count) == (1, 1)


async def test_one_source_has_nothing_of_all_this() -> None:
    async with FakeIndex(index()) as server, upstream(server.url) as one:
        await pages(one)
        assert one.route(one.check_url(file_of(server))) is None
        assert (one.several, one.base, one.stand_in) == (False, server.url, None)
