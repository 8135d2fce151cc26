"""Faults of the change feed: the root list stands in for it, and it is asked again."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
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
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

FEED = "/pypi"
LIST = "/simple/"


def feed_calls(server: FakeIndex) -> int:
    return sum(1 for request in server.requests if request.method == "POST")


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


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
    pytest.param(Hang(), {"stall_timeout": 0.6}, id="hang"),
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
