"""A mirror of an index with several sources: whatever becomes of one of them, the mirror ends equal to the index."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat import names
from heliostat.config import Config
from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.connection import Exchange
from heliostat.fakeindex.damage import Flipped, with_content
from heliostat.fakeindex.faults import Action, Cut, Fault, Hang, Reset, Status, Wrong, _send_part
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.planning import plan_pass
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from heliostat.mirror.status import read_status
from support import suffering
from support.equality import differences
from support.mirrors import changed, complete_pass, config_for, owed_names, run_pass
from support.served import static_server
from support.upstreams import source_lines

LARGE = 20 << 20
CONTENT = Virtual(LARGE, 11)
FILE = "/packages/*/large-1.0.tar.gz"
HOW = pytest.mark.parametrize("options", [Options(), Options(xmlrpc=False)], ids=["feed", "list"])


class Sources:
    """Two servers of one index, each with its own copy: what changes has to be done to each, sooner or later.

    Both say the same of themselves, and link files relatively, as a mirror of a mirror does.
    """

    def __init__(self, first: FakeIndex, second: FakeIndex, directory: Path, **overrides: Any) -> None:
        self.first, self.second = first, second
        self.config = config_for(directory, first, **overrides)
        self.config = changed(self.config, url=(first.url, second.url))
        self.same()

    def same(self) -> None:
        """The addresses in their documents are the same ones."""
        self.second.index.bases = self.first.index.bases

    def both(self, change: Callable[[Index], object]) -> None:
        change(self.first.index)
        change(self.second.index)

    async def sync(self, *wanted: str, **options: Any) -> Summary:
        return await complete_pass(self.config, *wanted, **options)

    async def attempt(self, *wanted: str, **options: Any) -> Summary:
        return await run_pass(self.config, *wanted, **options)

    def equal(self, *, to: FakeIndex | None = None) -> None:
        assert differences((to or self.first).index, self.config.mirror.directory) == []


@asynccontextmanager
async def sources(
    directory: Path,
    make: Callable[[], Index] = suffering.suffering_index,
    options: Options | None = None,
    **overrides: Any,
) -> AsyncIterator[Sources]:
    options = replace(options or Options(), relative_urls=True)
    async with FakeIndex(make(), options=options) as first, FakeIndex(make(), options=replace(options)) as second:
        yield Sources(first, second, directory, **overrides)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Callable[[], Any]]:
    """A mirror that stays open from pass to pass, as in the daemon."""
    async with Mirror.open(config) as mirror:
        yield lambda: mirror.run(counters=Counters(), stop=asyncio.Event())


def large() -> Index:
    index = Index()
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", CONTENT))
    return index


# The index.


@HOW
async def test_the_first_source_is_not_there(options: Options, tmp_path: Path) -> None:
    async with sources(tmp_path, options=options) as both:
        await both.first.refuse_connections()
        summary = await both.sync()
        both.equal()
        assert summary.upstream == both.second.url
        status = read_status(both.config)
        assert status.upstream == both.second.url
        both.both(suffering.move_on)
        await both.sync()
        both.equal()
        await both.first.start()
        both.both(lambda index: index.yank("alpha", "1.0"))
        both.second.reset_log()
        summary = await both.sync()
        both.equal()
        assert both.second.request_count == 0
        assert summary.upstream == both.first.url
        assert read_status(both.config).upstream == both.first.url


@HOW
@pytest.mark.parametrize("action", [Status(503), Hang(), Reset(0.5), Cut()], ids=["503", "hang", "reset", "cut"])
async def test_the_first_source_fails(action: Action, options: Options, tmp_path: Path) -> None:
    async with sources(tmp_path, options=options, stall_timeout=0.6) as both:
        both.first.fault("*", action)
        summary = await both.sync()
        both.equal()
        assert summary.upstream == both.second.url


async def test_the_first_source_goes_away_in_mid_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Index:
        return many_projects(120, files_per_project=2, sidecars=1, size=500)

    with source_lines(caplog) as said:
        async with sources(tmp_path, make, projects_at_once=8) as both:
            running = asyncio.create_task(both.sync())
            await both.first.seen("/simple/project-*/", 40)
            await both.first.refuse_connections()
            await running
            both.equal()
            assert both.second.count("/simple/project-*/") >= 70
    pages = [line for line in said if f"{both.first.url} is left" in line and "is asked instead" in line]
    assert len(pages) == 1


async def test_it_comes_back_while_the_daemon_runs(tmp_path: Path) -> None:
    async with sources(tmp_path, source_rest=0) as both, opened(both.config) as one_pass:
        await one_pass()
        await both.first.refuse_connections()
        both.both(suffering.move_on)
        assert (await one_pass()).upstream == both.second.url
        both.equal()
        await both.first.start()
        both.second.reset_log()
        assert (await one_pass()).upstream == both.first.url
        both.both(lambda index: index.yank("alpha", "1.0"))
        assert (await one_pass()).upstream == both.first.url
        both.equal()
        assert both.second.request_count == 0


async def test_what_rests_is_not_asked_in_the_next_pass(tmp_path: Path) -> None:
    async with sources(tmp_path) as both, opened(both.config) as one_pass:
        both.first.fault("*", Status(500))
        await one_pass()
        both.both(suffering.move_on)
        both.first.reset_log()
        await one_pass()
        both.equal()
        assert both.first.count("/simple/*") + both.first.count("/pypi*") == 0


async def test_when_none_is_there_the_pass_names_each(tmp_path: Path) -> None:
    async with sources(tmp_path) as both:
        await both.first.refuse_connections()
        both.second.fault("*", Status(502))
        for _ in range(2):
            summary = await both.attempt()
            assert summary.unreachable is not None
            for said in (both.first.url, "Connection refused", both.second.url, "status 502"):
                assert said in summary.unreachable


async def test_a_dry_run(tmp_path: Path) -> None:
    async with sources(tmp_path) as both:
        await both.first.refuse_connections()
        plan = await plan_pass(both.config, counters=Counters(), stop=asyncio.Event())
        assert plan.unreachable is None
        assert (plan.upstream, len(plan.adds)) == (both.second.url, len(both.first.index))


async def test_named_projects(tmp_path: Path) -> None:
    async with sources(tmp_path, projects=("demo", "alpha")) as both:
        await both.first.refuse_connections()
        await both.sync()
        assert differences(both.first.index, tmp_path, only=("demo", "alpha")) == []
        both.both(suffering.move_on)
        await both.sync()
        await both.sync("beta")
        assert differences(both.first.index, tmp_path, only=("demo", "alpha", "beta")) == []


async def test_a_static_source_stands_in_for_one_with_a_feed(tmp_path: Path) -> None:
    """That it has no feed says nothing of the first source, which is followed by its feed again."""
    async with sources(tmp_path) as both:
        both.second.options.xmlrpc = both.second.options.serial_header = False
        await both.sync()
        both.both(suffering.move_on)
        await both.first.refuse_connections()
        await both.sync()
        both.equal()
        await both.first.start()
        both.both(lambda index: index.yank("alpha", "1.0"))
        both.first.reset_log()
        await both.sync()
        both.equal()
        assert both.first.count("/simple/") == 0
        assert both.first.count("/pypi") > 1


async def test_another_mirror_stands_in(tmp_path: Path) -> None:
    """What a plain web server shows of a heliostat's tree is as good as the index: the two meet again where they were."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        central = config_for(tmp_path / "central", server)
        await complete_pass(central)
        with static_server(tmp_path / "central" / "web") as served:
            region = changed(config_for(tmp_path / "region", server), url=(server.url, served.url))
            await complete_pass(region, "alpha")
            suffering.move_on(index)
            await complete_pass(central)
            await server.refuse_connections()
            summary = await complete_pass(region)
            assert summary.upstream == served.url
            assert differences(index, tmp_path / "region") == []
            await server.start()
            index.yank("alpha", "1.0")
            server.reset_log()
            await complete_pass(region)
            assert differences(index, tmp_path / "region") == []
            assert server.count("/simple/*") == 1
            assert server.count("/packages/*") == 0


# Serials.


@HOW
async def test_a_source_that_is_behind_is_not_followed(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sources(tmp_path, options=options) as both:
        await both.sync()
        suffering.move_on(both.first.index)
        cursor = (await both.sync()).cursor
        await both.first.refuse_connections()
        with source_lines(caplog) as said:
            summary = await both.attempt()
        assert summary.unreachable is not None
        assert "Connection refused" in summary.unreachable
        behind = f"{both.second.url}: behind: its serial is {both.second.index.serial}, where {cursor} was seen before"
        assert behind in summary.unreachable
        assert len([line for line in said if "behind" in line]) == 1
        assert (summary.cursor, summary.checkpoint) == (cursor, cursor)
        with_full = await both.attempt(full=True)  # and it is no other upstream that could be confirmed
        assert with_full.unreachable is not None
        assert with_full.cursor == cursor
        both.equal()

        suffering.move_on(both.second.index)
        both.second.index.yank("alpha", "1.0")
        await both.sync()
        both.equal(to=both.second)


async def test_a_third_source_goes_on_where_the_second_is_behind(tmp_path: Path) -> None:
    async with sources(tmp_path) as both, FakeIndex(suffering.suffering_index(), options=both.first.options) as third:
        third.index.bases = both.first.index.bases
        both.config = changed(both.config, url=(*both.config.upstream.url, third.url))
        suffering.move_on(both.first.index)
        await both.sync()
        suffering.move_on(third.index)
        third.index.yank("alpha", "1.0")
        await both.first.refuse_connections()
        summary = await both.sync()
        both.equal(to=third)
        assert summary.upstream == third.url


@HOW
async def test_the_first_source_comes_back_behind_the_second(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It did not go back: it never was where the second one is.  It is followed again when it has caught up."""
    async with sources(tmp_path, options=options, source_rest=0) as both, opened(both.config) as one_pass:
        await one_pass()
        await both.first.refuse_connections()
        suffering.move_on(both.second.index)
        cursor = (await one_pass()).cursor
        await both.first.start()
        both.same()
        with source_lines(caplog) as said:
            for _ in range(3):
                summary = await one_pass()
                assert summary.complete, summary
                assert (summary.cursor, summary.upstream) == (cursor, both.second.url)
        assert len([line for line in said if "behind" in line]) == 1
        suffering.move_on(both.first.index)
        assert (await one_pass()).upstream == both.first.url
        both.both(lambda index: index.yank("alpha", "1.0"))
        assert (await one_pass()).upstream == both.first.url
        both.equal()


@HOW
async def test_the_first_source_that_goes_back_is_another_upstream(options: Options, tmp_path: Path) -> None:
    async with sources(tmp_path, options=options) as both:
        both.both(suffering.move_on)
        await both.sync()
        index: Any = both.first.index
        real, index._journal.serial = index.serial, 900
        with pytest.raises(UpstreamChanged, match="went back"):
            await both.attempt()
        index._journal.serial = real
        await both.sync()
        both.equal()


async def test_another_first_source_has_to_be_confirmed(tmp_path: Path) -> None:
    async with sources(tmp_path) as both:
        await both.first.refuse_connections()
        await both.sync()
        await both.first.start()
        both.same()
        both.config = changed(both.config, url=(both.first.url,))
        await both.sync()  # the list got shorter, or longer, behind its first entry
        both.config = changed(both.config, url=(both.first.url, both.second.url))
        await both.sync()
        both.config = changed(both.config, url=(both.second.url, both.first.url))
        with pytest.raises(UpstreamChanged):
            await both.attempt()
        await both.sync(full=True)
        both.equal()


async def test_a_page_of_a_source_that_is_behind_is_never_accepted(tmp_path: Path) -> None:
    """However often it is tried: the first source announced something newer, and will have it again."""
    async with sources(tmp_path, stuck_after=2, stale_tries=1) as both:
        await both.sync()
        suffering.publish_victim(both.first.index, "2.0")
        both.first.fault(re.compile("/(simple|pypi)/demo/.*"), Status(503))
        for _ in range(4):
            summary = await both.attempt()
            reason = suffering.assert_owed(summary, "failing", "stale")
            assert both.second.url in reason or both.first.url in reason
        both.first.clear_faults()
        await both.sync()
        both.equal()


async def test_what_a_source_does_not_have_yet_is_not_removed(tmp_path: Path) -> None:
    """Neither feed nor list: there two answers of "not found" count, but only the first source's."""
    async with sources(tmp_path, options=Options(xmlrpc=False), projects=("alpha", "demo", "newcomer")) as both:
        suffering.move_on(both.first.index)
        await both.sync()
        for look in range(4):
            if look == 1:
                both.first.clear_faults()
                await both.first.refuse_connections()
            elif look == 0:
                both.first.fault("/simple/newcomer/", Status(404))
            summary = await both.attempt()
            assert "newcomer" in owed_names(summary)
            assert summary.removed == 0
        assert (tmp_path / "web/simple/newcomer").exists()
        await both.first.start()
        both.same()
        await both.sync()
        assert differences(both.first.index, tmp_path, only=("alpha", "demo", "newcomer")) == []
        both.both(lambda index: index.remove_project("newcomer") if "newcomer" in index else None)
        await both.attempt()
        await both.sync()
        assert not (tmp_path / "web/simple/newcomer").exists()


# Files.


@pytest.mark.parametrize("etags", [True, False], ids=["etags", "no-etags"])
@pytest.mark.parametrize("how", [Cut(), Reset(), Hang(after=0.5)], ids=["cut", "reset", "hang"])
async def test_a_large_file_goes_on_at_another_source(how: Action, etags: bool, tmp_path: Path) -> None:
    async with sources(tmp_path, large, Options(etags=etags), stall_timeout=0.5) as both:
        both.first.fault(FILE, how)
        await both.sync()
        both.equal()
        sent = [
            sum(one.sent for one in server.requests if one.path.endswith(".gz")) for server in (both.first, both.second)
        ]
        (resumed,) = (one for one in both.second.requests if one.path.endswith("/large-1.0.tar.gz"))
        assert resumed.status == 206
        assert resumed.range is not None
        assert "if-range" not in resumed.headers
        assert sent[1] == LARGE - int(resumed.range.removeprefix("bytes=").removesuffix("-"))
        assert LARGE <= sum(sent) < LARGE * 1.3
        assert sent[1] <= LARGE * 0.75


async def test_the_next_pass_goes_on_at_another_source(tmp_path: Path) -> None:
    async with sources(tmp_path, large, retries=1) as both:
        both.first.fault(FILE, Cut())
        fault = both.second.fault(FILE, Status(500))
        assert not (await both.attempt()).complete
        part = tmp_path / names.partial_path("sha256", CONTENT.digests.sha256)
        there = part.stat().st_size
        assert there > LARGE // 3
        etag, host = part.with_suffix(".etag").read_text().split("\n")
        assert (etag, host) == (f'"{CONTENT.digests.md5}"', both.first.url)
        fault.remove()
        both.first.clear_faults()
        await both.first.refuse_connections()
        both.second.reset_log()
        await both.sync()
        both.equal()
        (resumed,) = (one for one in both.second.requests if one.path.endswith("/large-1.0.tar.gz"))
        assert (resumed.range, resumed.sent) == (f"bytes={there}-", LARGE - there)
        assert "if-range" not in resumed.headers


async def test_its_own_etag_is_sent_to_the_source_that_gave_it(tmp_path: Path) -> None:
    async with sources(tmp_path, large, retries=1) as both:
        both.first.fault(FILE, Cut())
        both.second.fault(FILE, Status(500))
        assert not (await both.attempt()).complete
        both.first.clear_faults()
        both.first.reset_log()
        await both.sync()
        both.equal()
        (resumed,) = (one for one in both.first.requests if one.path.endswith("/large-1.0.tar.gz"))
        assert resumed.headers["if-range"] == f'"{CONTENT.digests.md5}"'


@pytest.mark.parametrize("action", [Wrong(), Status(404), Status(500), Cut(), Reset(-1)], ids=str)
@pytest.mark.parametrize("where", ["wheel", "sidecar", "sdist", "large"])
async def test_a_file_that_one_source_does_not_give_is_had_from_another(
    where: str, action: Action, tmp_path: Path
) -> None:
    async with sources(tmp_path) as both:
        fault = both.first.fault(suffering.place(where, "1.0"), action)
        await both.sync()
        both.equal()
        assert fault.fired >= 1
        assert both.second.count(suffering.place(where, "1.0")) == 1
        assert both.second.count("/simple/*") == 0
        suffering.assert_nothing_left(both.config)


class WrongAndCut(Cut, frozen=True, tag="wrongandcut"):
    """Half of the file, and not even that is right."""

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        wrong = with_content(fault.honest(exchange.request), lambda content: Flipped(content, 10))
        await _send_part(exchange, wrong, self.after)
        exchange.close()


async def test_wrong_bytes_from_one_and_the_rest_from_the_other(tmp_path: Path) -> None:
    """Bytes of two sources that do not fit say nothing of the one that gave the second half."""
    async with sources(tmp_path, large) as both:
        both.first.fault(FILE, WrongAndCut())
        await both.sync()
        both.equal()
        asked = [one.range for one in both.second.requests if one.path.endswith("/large-1.0.tar.gz")]
        assert len(asked) == 2
        assert asked[0] is not None
        assert asked[1] is None
        assert both.first.count(FILE) == 1


@pytest.mark.parametrize("action", [Wrong(), Status(404), Status(500)], ids=str)
async def test_a_file_that_no_source_gives_holds_back_its_project(action: Action, tmp_path: Path) -> None:
    async with sources(tmp_path) as both:
        for server in (both.first, both.second):
            server.fault(suffering.place("wheel", "1.0"), action)
        summary = await both.attempt()
        suffering.assert_owed(summary, "failing", f"{both.first.url}/packages/")
        suffering.assert_others_equal(both.config, both.first.index)
        both.first.clear_faults()
        await both.sync()
        both.equal()


async def test_files_on_a_host_of_their_own(tmp_path: Path) -> None:
    """The page names the first source's file host; the second source has the same files at its own address."""
    async with (
        FakeIndex(suffering.suffering_index(), options=Options(files_host=True)) as first,
        FakeIndex(suffering.suffering_index(), options=Options(relative_urls=True)) as second,
    ):
        config = changed(config_for(tmp_path, first), url=(first.url, second.url))
        first.fault("/packages/*", Status(503))
        await complete_pass(config)
        assert differences(first.index, tmp_path) == []
        assert second.count("/simple/*") == 0
        assert second.count("/packages/*") > 0


async def test_a_file_whose_own_address_may_not_be_requested(tmp_path: Path) -> None:
    """A mirror may keep links to a host that is not ours to ask; the sources have the file nevertheless."""
    async with (
        FakeIndex(suffering.suffering_index(), options=Options(files_host=True)) as first,
        FakeIndex(suffering.suffering_index()) as second,
    ):
        config = config_for(tmp_path, first.url)
        summary = await run_pass(config)
        assert set(summary.owed_by_state) == {"blocked"}
        config = changed(config, url=(first.url, second.url))
        await complete_pass(config, full=True)
        assert differences(first.index, tmp_path) == []


async def test_one_source_pays_nothing(tmp_path: Path) -> None:
    async with FakeIndex(large()) as server:
        config = config_for(tmp_path, server, retries=1)
        server.fault(FILE, Cut())
        assert not (await run_pass(config)).complete
        part = tmp_path / names.partial_path("sha256", CONTENT.digests.sha256)
        assert part.with_suffix(".etag").read_text() == f'"{CONTENT.digests.md5}"'
        server.clear_faults()
        await complete_pass(config)
        assert differences(server.index, tmp_path) == []


async def test_the_first_source_s_list_is_read_when_its_feed_fails_and_the_others_are_behind(tmp_path: Path) -> None:
    async with sources(tmp_path) as one:
        await one.sync()
        one.first.index.publish("brand-new", "1.0", UploadedFile("brand_new-1.0.tar.gz", Virtual(100, 5)))
        await one.sync()
        one.first.index.publish("another", "1.0", UploadedFile("another-1.0.tar.gz", Virtual(100, 6)))
        one.first.fault("/pypi", Status(503))
        summary = await one.attempt()
        assert summary.unreachable is None
        assert (summary.added, summary.owed_by_state) == (1, {})
        one.equal()
        one.first.fault("/simple/", Status(503))
        summary = await one.attempt()
        assert "behind" in (summary.unreachable or "")
