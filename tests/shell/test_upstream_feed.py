"""The change feed over HTTP: pages of it, faults in a 200, and servers that have none."""

import xmlrpc.client

import pytest

from heliostat.errors import FeedUnsupported, Invalid, RateLimited, TooLarge, Unavailable, UpstreamError
from heliostat.fakeindex import FakeIndex, Index
from heliostat.fakeindex.faults import Cut, Endless, GzipBomb, GzipJunk, Reset, Status, XmlBomb, XmlFault, rate_limited
from heliostat.fakeindex.options import Options
from heliostat.model import Event, Listed
from heliostat.upstream.client import Upstream
from support.scripted import QuickClock, Scripted, Seen, Wire, reply
from support.upstreams import upstream


def small_index(projects: int = 10) -> Index:
    index = Index(serial=1000)
    for number in range(projects):
        index.create(f"Project_{number}")
    return index


async def all_events(one: Upstream, since: int = 0) -> list[list[Event]]:
    return [events async for events in one.events_since(since)]


async def test_the_whole_feed_and_the_rest_of_it() -> None:
    index = small_index()
    async with FakeIndex(index) as server, upstream(server.url) as one:
        assert await one.last_serial() == index.serial
        assert await all_events(one) == [index.rows()]
        middle = index.rows()[7].serial
        assert await all_events(one, middle) == [index.rows(middle)]
        assert await all_events(one, index.serial) == []
        headers = server.requests[0].headers
        assert (headers["content-type"], headers["accept-encoding"]) == ("text/xml", "gzip")


async def test_it_asks_until_there_are_no_more_rows() -> None:
    index = small_index()
    async with FakeIndex(index, options=Options(row_cap=3)) as server, upstream(server.url) as one:
        answers = await all_events(one)
        assert [event for events in answers for event in events] == index.rows()
        assert {len(events) for events in answers[:-1]} == {3}
        assert server.count("/pypi") == len(answers) + 1


def rows(*serials: int) -> bytes:
    given = [["demo", None, 1, "create", serial] for serial in serials]
    return reply(
        200,
        xmlrpc.client.dumps((given,), methodresponse=True, allow_none=True).encode(),
        kind="text/xml; charset=UTF-8",
    )


async def test_rows_out_of_order_and_old_ones() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/pypi", rows(9, 5, 7, 3), rows(9, 5, 7, 3))
        assert [[event.serial for event in events] for events in await all_events(one, 4)] == [[5, 7, 9]]
        assert xmlrpc.client.loads(server.seen[1].body) == ((9,), "changelog_since_serial")


async def test_a_feed_that_never_ends() -> None:
    last = 0

    async def more(_: Seen, wire: Wire) -> None:
        nonlocal last
        last += 1
        await wire.write(rows(last))

    async with Scripted() as server, upstream(server.url) as one:
        server.on("/pypi", more)
        with pytest.raises(Invalid, match="does not end"):
            await all_events(one)


async def test_all_projects_with_their_serials() -> None:
    index = small_index()
    async with FakeIndex(index) as server, upstream(server.url) as one, one.serials_by_xmlrpc() as lists:
        listed = [entry async for entries in lists for entry in entries]
    assert listed == [Listed(f"Project_{n}", index[f"project-{n}"].last_serial) for n in range(10)]


@pytest.mark.parametrize(
    ("action", "error", "tries"),
    [
        (XmlFault(), Unavailable, 3),
        (XmlFault(-32601, "server error; requested method not found"), FeedUnsupported, 1),
        (XmlFault(-32500, "RuntimeError: PyPI no longer supports this method."), FeedUnsupported, 1),
        (XmlFault(-32602, "client error; serial: Input should be a valid integer"), Invalid, 2),
        (rate_limited(17), RateLimited, 3),
        (rate_limited(), RateLimited, 3),
        (XmlBomb("entities"), Invalid, 2),
        (XmlBomb("external"), Invalid, 2),
        (XmlBomb("nesting"), Invalid, 2),
        (Endless(), Invalid, 2),
        (Endless(b"<value>", honest=False), Invalid, 2),
        (GzipBomb(1 << 30), Invalid, 2),
        (GzipJunk(), Invalid, 2),
        (Cut(), Unavailable, 3),
        (Reset(), Unavailable, 3),
        (Status(500), Unavailable, 3),
        (Status(503), Unavailable, 3),
        (Status(429), RateLimited, 3),
        (Status(401), Unavailable, 1),
        (Status(403), FeedUnsupported, 1),
        (Status(404), FeedUnsupported, 1),
        (Status(405), FeedUnsupported, 1),
        (Status(501), FeedUnsupported, 1),
    ],
)
async def test_what_goes_wrong(action: XmlFault, error: type[UpstreamError], tries: int) -> None:
    async with FakeIndex(small_index()) as server, upstream(server.url, clock=QuickClock()) as one:
        fault = server.fault("/pypi", action)
        for call in (one.last_serial(), all_events(one)):
            before = fault.fired
            with pytest.raises(error) as caught:
                await call
            # Whether a hostile body is too large or nested too deep depends on how it is cut.
            assert (Invalid if isinstance(caught.value, TooLarge) else type(caught.value)) is error
            assert fault.fired - before == tries
        with pytest.raises(error):
            async with one.serials_by_xmlrpc() as lists:
                _ = [entries async for entries in lists]
        assert one.figures().metadata.in_flight == 0


async def test_a_rate_limit_in_a_200_holds_back_everything() -> None:
    clock = QuickClock()
    async with FakeIndex(small_index()) as server, upstream(server.url, clock=clock) as one:
        server.fault("/pypi", rate_limited(17), times=1)
        assert await one.last_serial() == server.index.serial
        assert clock.sleeps == [17.0]
        assert one.figures().rate_limited == 1
        server.fault("/pypi", rate_limited(), times=1)
        server.fault("/pypi", rate_limited(500), times=1)
        with pytest.raises(RateLimited):
            async with one.serials_by_xmlrpc() as lists:
                _ = [entries async for entries in lists]
        assert one.figures().held == 500.0


async def test_what_passes_is_tried_again() -> None:
    async with FakeIndex(small_index()) as server, upstream(server.url) as one:
        for action in (Status(500), Cut(), GzipJunk(), XmlFault()):
            server.fault("/pypi", action, times=1)
            assert await all_events(one) == [server.index.rows()]


@pytest.mark.parametrize("kind", ["text/html", "application/json", None])
async def test_an_answer_that_is_no_xml_means_no_feed(kind: str | None) -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/pypi", reply(200, b"<html>Welcome</html>", kind=kind))
        with pytest.raises(FeedUnsupported, match="no XML-RPC here"):
            await one.last_serial()


async def test_a_redirect_keeps_the_call() -> None:
    async with Scripted() as server, upstream(server.url) as one:
        server.on("/pypi", reply(301, Location="/pypi/"))
        server.on("/pypi/", rows(9), rows())
        assert [[event.serial for event in events] for events in await all_events(one)] == [[9]]
        assert server.seen[1].method == "POST"
        assert server.seen[1].body == server.seen[0].body
        server.on("/pypi", reply(303, Location="/pypi/"))
        with pytest.raises(Invalid, match="redirected"):
            await one.last_serial()


async def test_a_fault_does_not_keep_its_permit() -> None:
    async with Scripted() as server, upstream(server.url, metadata_at_once=1, clock=QuickClock()) as one:
        bad = reply(200, b"<methodResponse><x/></methodResponse>" + b" " * 200_000, kind="text/xml")
        server.on("/pypi", bad, rows(9), rows())
        assert [[event.serial for event in events] for events in await all_events(one)] == [[9]]


async def test_an_upstream_without_a_feed() -> None:
    async with FakeIndex(small_index(), options=Options.static()) as server, upstream(server.url) as one:
        with pytest.raises(FeedUnsupported):
            await one.last_serial()
        with pytest.raises(FeedUnsupported):
            await all_events(one)
        assert server.count("/pypi") == 2
