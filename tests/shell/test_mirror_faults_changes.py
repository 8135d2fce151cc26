"""Faults of what tells the changes: each way stands in for the other, and an upstream that is gone comes back."""

import asyncio
import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.fakeindex.faults import (
    Action,
    Body,
    Cut,
    Endless,
    GzipBomb,
    GzipJunk,
    Hang,
    Redirect,
    Reset,
    Status,
    XmlBomb,
    XmlFault,
    method_removed,
    rate_limited,
)
from heliostat.fakeindex.synthetic import many_projects, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

FEED = "/pypi"
LIST = "/simple/"


def feed_calls(server: FakeIndex) -> int:
    return sum(1 for request in server.requests if request.method == "POST")


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


# The feed.

REMOVED = [
    pytest.param(Status(404), id="not-found"),
    pytest.param(Status(405), id="not-allowed"),
    pytest.param(XmlFault(-32601, "server error; requested method not found"), id="no-such-method"),
    pytest.param(method_removed(), id="removed"),
    pytest.param(Body(b"<!DOCTYPE html><title>Hello</title>", content_type="text/html"), id="a-web-page"),
]


@pytest.mark.parametrize("action", REMOVED)
async def test_a_feed_that_was_taken_away(action: Action, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list is read instead, with one line, and the feed is left alone until --full."""
    caplog.set_level(logging.INFO)
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        fault = server.fault(FEED, action, method="POST")
        for version in ("2.0", "3.0", "4.0"):
            suffering.publish_victim(index, version)
            summary = await complete_pass(config)
            assert summary.checkpoint == summary.cursor == index.serial
            suffering.assert_equal(config, index)
        assert fault.fired == 1
        assert len(warnings(caplog, "upstream has no change feed")) == 1

        fault.remove()
        await complete_pass(config, full=True)
        suffering.publish_victim(index, "5.0")
        server.reset_log()
        await complete_pass(config)
        assert feed_calls(server) > 0
        assert server.count(LIST) == 0
        suffering.assert_equal(config, index)


UNWELL = [
    pytest.param(XmlFault(-32403), {}, id="xml-fault"),
    pytest.param(rate_limited(), {}, id="rate-limit"),
    pytest.param(Status(503), {}, id="unavailable"),
    pytest.param(Reset(0.5), {}, id="reset"),
    pytest.param(Cut(0.5), {}, id="cut"),
    pytest.param(Hang(), {"stall_timeout": 0.3}, id="hang"),
    pytest.param(Endless(), {}, id="endless"),
    pytest.param(Endless(b"<value><int>1</int></value>", honest=False), {}, id="endless-values"),
    pytest.param(GzipJunk(), {}, id="not-gzip"),
    pytest.param(GzipBomb(256 << 20), {}, id="bomb"),
    pytest.param(XmlBomb("entities"), {}, id="entities"),
    pytest.param(XmlBomb("external"), {}, id="external-entity"),
    pytest.param(XmlBomb("nesting"), {}, id="nesting"),
    pytest.param(Body(b"", content_type="text/xml"), {}, id="empty"),
    pytest.param(Body(b"<methodResponse/>", content_type="text/xml"), {}, id="no-value"),
    pytest.param(Body(b"\x00\xff not xml", content_type="text/xml"), {}, id="not-xml"),
    pytest.param(Redirect("http://elsewhere.invalid/pypi", 307), {}, id="redirect-elsewhere"),
]


@pytest.mark.parametrize(("action", "settings"), UNWELL)
async def test_a_feed_that_is_unwell(
    action: Action, settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: it is asked again.  For good: the list is read, with one line a pass, and the feed is tried the next time."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=2, **settings)
        await complete_pass(config)

        suffering.publish_victim(index, "2.0")
        once = server.fault(FEED, action, method="POST", times=1)
        server.reset_log()
        await complete_pass(config)
        assert once.fired == 1
        assert server.count(LIST) == 0
        suffering.assert_equal(config, index)

        suffering.publish_victim(index, "3.0")
        fault = server.fault(FEED, action, method="POST")
        caplog.clear()
        summary = await complete_pass(config)
        assert summary.checkpoint == index.serial
        assert fault.fired
        assert server.count(LIST) == 1
        assert len(warnings(caplog, "reading the root list instead")) == 1
        suffering.assert_equal(config, index)

        fault.remove()
        suffering.publish_victim(index, "4.0")
        await complete_pass(config)
        assert server.count(LIST) == 1
        suffering.assert_equal(config, index)


async def test_feed_alone_does_not_fall_back(tmp_path: Path) -> None:
    """Who configured the feed gets an error that names it, and no list of everything."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, changes="feed")
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        fault = server.fault(FEED, XmlBomb("entities"), method="POST")
        server.reset_log()
        summary = await run_pass(config)
        assert summary.unreachable is not None
        assert f"{server.url}/pypi: " in summary.unreachable
        assert not summary.complete
        assert server.count(LIST) == 0
        fault.remove()
        await complete_pass(config)
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("cap", [1, 7])
async def test_rows_come_in_several_answers(cap: int, tmp_path: Path) -> None:
    """An answer that is full is followed by another, until the cursor stops moving."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        server.options.row_cap = cap
        since = index.serial
        for number in range(6):
            suffering.publish_victim(index, f"2.{number}")
            index.publish(f"more-{number}", "1.0", uploaded(wheel(f"more-{number}", "1.0")))
        server.reset_log()
        summary = await complete_pass(config)
        assert summary.cursor == index.serial
        assert feed_calls(server) > len(index.rows(since)) // cap
        assert server.count(LIST) == 0
        suffering.assert_equal(config, index)


# The root list.

BROKEN = [
    pytest.param(Status(500), {}, id="error"),
    pytest.param(Status(404), {}, id="not-found"),
    pytest.param(Reset(0.5), {}, id="reset"),
    pytest.param(Cut(0.5), {}, id="cut"),
    pytest.param(Cut(0.99), {}, id="cut-near-the-end"),
    pytest.param(Hang(after=0.5), {"stall_timeout": 0.3}, id="hang"),
    pytest.param(Endless(), {"max_root": 4 << 20}, id="endless"),
    pytest.param(Endless(b'{"name":"x"},', honest=False), {"max_root": 4 << 20}, id="endless-entries"),
    pytest.param(GzipJunk(), {}, id="not-gzip"),
    pytest.param(GzipJunk(cut=True), {}, id="half-gzip"),
    pytest.param(GzipBomb(64 << 20), {"max_root": 4 << 20}, id="bomb"),
    pytest.param(Body(b""), {}, id="empty"),
    pytest.param(Body(b"[" * (3 << 20)), {}, id="nesting"),
    pytest.param(Body(b'{"meta":{"api-version":"1.4"},"projects":null}'), {}, id="no-list"),
    pytest.param(Body(b'{"meta":{"api-version":"2.0"},"projects":[]}'), {}, id="version"),
    pytest.param(Body(b'{"meta":{"_last-serial":-1},"projects":[{"name":"a","_last-serial":-7}]}'), {}, id="negative"),
    pytest.param(Body(b'{"meta":{},"projects":[{"name":"a","_last-serial":' + b"9" * 40 + b"}]}"), {}, id="huge"),
    pytest.param(Body(b'{"meta":{},"projects":[{"name":"\\ud800"}]}'), {}, id="surrogate"),
    pytest.param(Body(b"<!DOCTYPE html><title>Log in</title>", content_type="text/html"), {}, id="a-web-page"),
]


@pytest.mark.parametrize(("action", "settings"), BROKEN)
async def test_a_broken_root_list(
    action: Action, settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full comparison does without it where XML-RPC has the names, and nothing is taken for removed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=2, reconcile_hours=0.01, **settings)
        fault = server.fault(LIST, action)
        await complete_pass(config)
        assert fault.fired
        assert len(warnings(caplog, "the root list cannot be had")) == 1
        suffering.assert_equal(config, index)

        suffering.move_on(index)
        index.remove_project("beta")
        await complete_pass(config, full=True)
        suffering.assert_equal(config, index)

        fault.remove()
        suffering.publish_victim(index, "3.0")
        server.reset_log()
        await complete_pass(config, full=True)
        assert server.count(LIST) == 1
        suffering.assert_equal(config, index)


@pytest.mark.parametrize(("action", "settings"), BROKEN)
async def test_a_broken_root_list_and_nothing_else(action: Action, settings: dict[str, Any], tmp_path: Path) -> None:
    """Where there is no feed it says so, changes nothing, and goes on when the list is back."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server, retries=2, **settings)
        fault = server.fault(LIST, action)
        summary = await run_pass(config)
        assert summary.unreachable is not None
        assert f"{server.url}/simple/" in summary.unreachable
        assert len(summary.unreachable.splitlines()) == 1
        assert not summary.complete
        assert summary.projects == 0
        fault.remove()
        await complete_pass(config)
        suffering.assert_equal(config, index)

        suffering.move_on(index)
        fault = server.fault(LIST, action)
        summary = await run_pass(config)
        assert summary.unreachable is not None
        assert (summary.removed, summary.projects) == (0, 4)
        fault.remove()
        await complete_pass(config)
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("action", [Status(500), Reset(0.5), Cut(0.5), GzipJunk(cut=True), Body(b"{}")])
async def test_a_root_list_that_fails_once(action: Action, tmp_path: Path) -> None:
    """It is read again; what came of the first counts for nothing."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        fault = server.fault(LIST, action, times=1)
        await complete_pass(config)
        assert fault.fired == 1
        suffering.assert_equal(config, index)


async def test_an_empty_root_list_removes_nothing(tmp_path: Path) -> None:
    """Complete, well-formed, of a higher serial, and a lie: every page still answers."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        body = b'{"meta":{"_last-serial":%d,"api-version":"1.4"},"projects":[]}' % (index.serial + 5)
        server.fault(LIST, Body(body))
        summary = await run_pass(config)
        assert (summary.removed, summary.projects, summary.held) == (0, 4, 0)
        suffering.assert_equal(config, index)


# An upstream that is not there.


async def refused(config: Config, server: FakeIndex, projects: int) -> None:
    summary = await run_pass(config)
    assert summary.unreachable is not None
    assert f"{server.url}/" in summary.unreachable
    assert "cannot connect to" in summary.unreachable
    assert not summary.complete
    assert summary.projects == projects


@pytest.mark.parametrize("options", [Options(), Options(xmlrpc=False)], ids=["feed", "list"])
async def test_upstream_is_not_there(options: Options, tmp_path: Path) -> None:
    """Nobody listens: said once, nothing changes, and when it is back the mirror goes on."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=options) as server:
        config = config_for(tmp_path / "mirror", server)
        await server.refuse_connections()
        await refused(config, server, 0)
        await server.start()
        cursor = (await complete_pass(config)).cursor
        suffering.assert_equal(config, index)

        suffering.move_on(index)
        await server.refuse_connections()
        await refused(config, server, 4)
        summary = await run_pass(config)
        assert (summary.cursor, summary.checkpoint) == (cursor, cursor)
        await server.start()
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_named_projects_and_upstream_is_not_there(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects=("demo",))
        await server.refuse_connections()
        summary = await run_pass(config)
        assert summary.unreachable is not None
        assert not summary.complete
        await server.start()
        await complete_pass(config)


async def test_upstream_goes_away_in_mid_pass_and_comes_back(tmp_path: Path) -> None:
    """What was published by then stays, the rest stays owed, and not each of a thousand is tried in vain."""
    index = many_projects(400, files_per_project=2, sidecars=1, size=500)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects_at_once=8)
        counters = Counters()
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=counters, stop=asyncio.Event()))
            await server.seen("/simple/project-*/", 100)
            await server.refuse_connections()
            summary = await running
        assert summary.unreachable is not None
        assert not summary.complete
        assert 0 < summary.projects < 400
        assert sum(summary.owed_by_state.values()) == 400 - summary.projects
        assert summary.owed_by_state.get("failing", 0) < 50
        assert summary.cursor == index.serial > summary.checkpoint
        suffering.assert_nothing_left(config)

        await server.start()
        server.reset_log()
        summary = await complete_pass(config)
        assert summary.added == server.count("/simple/project-*/")
        suffering.assert_equal(config, index)


async def test_upstream_is_away_for_a_moment(tmp_path: Path) -> None:
    """Every connection is reset, a few times: nobody notices but the count of retries."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=8)
        fault = server.fault("*", Reset(-1), times=5, skip=6)
        await complete_pass(config)
        assert fault.fired == 5
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("settings", [{}, {"projects_at_once": 1}], ids=["many-at-once", "one-at-once"])
async def test_a_dozen_failing_projects_are_not_an_upstream_that_is_down(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """However many fail for good, and however early they come, the others are mirrored after two passes at most."""
    index = many_projects(30, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=1, **settings)
        server.fault(re.compile("/(simple|pypi)/project-00000(0.|1[0-4])/.*"), Status(503))
        await run_pass(config)
        summary = await run_pass(config)
        assert summary.unreachable is None
        assert summary.owed_by_state == {"failing": 15}
        assert summary.projects == 15
        suffering.assert_others_equal(config, index, *(f"project-{number:07}" for number in range(15)))


async def test_one_failing_project_alone_is_not_an_upstream_that_is_down(tmp_path: Path) -> None:
    """The feed was read a moment before."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault("/simple/demo/", Status(503))
        for _ in range(2):
            summary = await run_pass(config)
            assert summary.unreachable is None
            suffering.assert_owed(summary, "failing", "status 503")


# Absurd announcements.

ABSURD_NAMES = [
    pytest.param("n" * 280, id="long"),
    "../../etc",
    "..",
    "-",
    "a/b",
    "a\\b",
    "a\nb",
    "\u202eevil",
    "n\u00e4m\u0435",
    "<script>alert(1)</script>",
    "%2e%2e",
    "name ",
]


@pytest.mark.parametrize("name", ABSURD_NAMES, ids=ascii)
async def test_an_absurd_name_in_the_feed(name: str, tmp_path: Path) -> None:
    """It is blocked and listed; nothing is asked about it, nothing written, and everything else goes on."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.move_on(index)
        rows = b"".join(
            b"<value><array><data><value><string>%b</string></value><value><nil/></value><value><int>1</int></value>"
            b"<value><string>create</string></value><value><int>%d</int></value></data></array></value>" % (raw, serial)
            for raw, serial in (*_rows(index), (_xml(name), index.serial + 1))
        )
        answer = b"<methodResponse><params><param><value><array><data>%b</data></array></value></param></params></methodResponse>"
        index.skip_serials(1)
        server.fault(FEED, Body(answer % rows, content_type="text/xml"), method="POST", skip=1, times=1)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", "project name", project=name)
        assert summary.checkpoint == summary.cursor == index.serial
        suffering.assert_others_equal(config, index)
        assert [path.name for path in tmp_path.iterdir()] == ["mirror"]


@pytest.mark.parametrize("name", [*ABSURD_NAMES, "a\x00b"], ids=ascii)
async def test_an_absurd_name_in_the_root_list(name: str, tmp_path: Path) -> None:
    """As in the feed; and when it is gone from the list it is forgotten."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        fault = server.fault(
            LIST, suffering.rewrite(lambda body: body["projects"].append({"name": name, "_last-serial": 1001}))
        )
        summary = await run_pass(config)
        assert [(one.project, one.state) for one in summary.owed] == [(name, "blocked")]
        assert not summary.complete
        assert summary.checkpoint == index.serial
        suffering.assert_equal(config, index)

        fault.remove()
        suffering.publish_victim(index, "2.0")
        await complete_pass(config)
        suffering.assert_equal(config, index)


def _rows(index: Index) -> list[tuple[bytes, int]]:
    return [(row.display.encode(), row.serial) for row in index.rows()]


def _xml(name: str) -> bytes:
    return name.replace("&", "&amp;").replace("<", "&lt;").encode()


def row(name: str, serial: str) -> bytes:
    """A row of the changelog whose name and serial are these elements."""
    between = "<value><nil/></value><value><int>1</int></value><value>create</value>"
    return f"<value><array><data>{name}{between}{serial}</data></array></value>".encode()


ABSURD_ROWS = [
    b"<value><int>7</int></value>",
    b"<value><array><data></data></array></value>",
    b"<value><array><data>" + b"<value><int>1</int></value>" * 5 + b"</data></array></value>",
    row("<value>x</value>", "<value><int>-5</int></value>"),
    row("<value>x</value>", f"<value><int>{'9' * 40}</int></value>"),
    row("<value>x</value>", "<value><string>1100</string></value>"),
    row(f"<value>{'x' * (1 << 20)}</value>", "<value><int>1100</int></value>"),
    row("<value><array><data><value>x</value></data></array></value>", "<value><int>1100</int></value>"),
]


@pytest.mark.parametrize("absurd", ABSURD_ROWS, ids=range(len(ABSURD_ROWS)))
async def test_absurd_rows_in_the_feed(absurd: bytes, tmp_path: Path) -> None:
    """The whole answer counts for nothing, and the list says what changed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.move_on(index)
        answer = b"<methodResponse><params><param><value><array><data>%b</data></array></value></param></params></methodResponse>"
        server.fault(FEED, Body(answer % absurd, content_type="text/xml"), method="POST", skip=1)
        summary = await complete_pass(config)
        assert summary.cursor == index.serial
        suffering.assert_equal(config, index)


async def test_two_spellings_of_one_name_in_the_root_list(tmp_path: Path) -> None:
    """They are one project, and its higher serial counts."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault(
            LIST, suffering.rewrite(lambda body: body["projects"].append({"name": "DEMO", "_last-serial": 1001}))
        )
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_a_feed_that_was_away_is_asked_for_again_at_the_next_reconcile(tmp_path: Path) -> None:
    index = Index()
    index.publish("one", "1.0", UploadedFile("one-1.0.tar.gz", b"1"))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server, reconcile_hours=1000.0)
        await run_pass(config)
        away = server.fault("/pypi", Status(404), method="POST")
        index.touch("one")
        await run_pass(config)
        away.remove()
        server.reset_log()
        await run_pass(config)
        assert server.count("/pypi") == 0
        index.touch("one")
        await run_pass(dataclasses.replace(config, mirror=dataclasses.replace(config.mirror, reconcile_hours=1e-9)))
        assert server.count("/pypi") > 0
        server.reset_log()
        index.touch("one")
        assert (await run_pass(config)).complete
        assert server.count("/simple/") == 0
