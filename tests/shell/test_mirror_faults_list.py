"""Faults of the root list: it is read again, XML-RPC stands in for it, and it alone removes nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Options
from heliostat.fakeindex.faults import (
    Action,
    Body,
    Cut,
    Endless,
    GzipBomb,
    GzipJunk,
    Hang,
    Reset,
    Rewrite,
    Status,
)
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

LIST = "/simple/"


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


BROKEN = [
    pytest.param(Status(500), {}, id="error"),
    pytest.param(Status(404), {}, id="not-found"),
    pytest.param(Reset(0.5), {}, id="reset"),
    pytest.param(Cut(0.5), {}, id="cut"),
    pytest.param(Cut(0.99), {}, id="cut-near-the-end"),
    pytest.param(Hang(after=0.5), {"stall_timeout": 0.6}, id="hang"),
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
    pytest.param(Body(b'{"meta":{"_last-serial":' + b"9" * 40 + b'},"projects":[]}'), {}, id="huge"),
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


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (b"null", False),
        (b'{"_last-serial":7}', False),
        (b'{"name":5,"_last-serial":7}', False),
        (b'{"name":"beta","_last-serial":-1}', True),
        (b'{"name":"beta","_last-serial":%d}' % 2**70, True),
    ],
)
async def test_one_entry_of_the_wrong_form(entry: bytes, named: bool, tmp_path: Path) -> None:
    """The other projects are mirrored, that one is listed or mirrored too, and nothing is taken for removed."""
    index = suffering.suffering_index()
    spoil = Rewrite(lambda body: re.sub(rb'\{[^{}]*"name": ?"beta"[^{}]*\}', entry, body))
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        fault = server.fault(LIST, spoil)
        summary = await run_pass(config)
        assert summary.projects == 3 + named
        assert summary.complete == named
        assert [owed.state for owed in summary.owed] == ["blocked"] * (not named)

        suffering.move_on(index)
        summary = await run_pass(config)
        assert (summary.removed, summary.projects) == (0, 4 + named)
        fault.remove()
        await complete_pass(config)
        suffering.assert_equal(config, index)

        fault = server.fault(LIST, spoil)
        summary = await run_pass(config)
        assert (summary.removed, summary.projects) == (0, 5)


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
