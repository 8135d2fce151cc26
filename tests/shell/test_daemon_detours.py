"""What goes wrong at every poll of a daemon is told once, and what it makes it ask for is asked ever less often."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from heliostat.service.daemon import Wish
from heliostat.service.figures import Figures
from support.looping import Running, daemon_of
from support.mirrors import Followed, following, listing, rewritten

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
#: Far longer than any test: pauses only grow.
PAUSES = {"back_off_most": 3600.0}


def several() -> Index:
    index = Index()
    for name in NAMES:
        publish(index, name)
    return index


def publish(index: Index, name: str, version: str = "1.0") -> None:
    index.publish(name, version, UploadedFile(f"{name}-{version}.tar.gz", Virtual(100, len(name + version))))


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """The log's lines with these words that people see."""
    return [one.levelname for one in caplog.records if words in one.getMessage() and one.levelno >= logging.INFO]


async def polls(one: Followed, running: Running, count: int, path: str = "/pypi") -> None:
    """Wait until upstream was asked so many times more."""
    before = one.server.count(path)
    await running.until(lambda: one.server.count(path) >= before + count)


@pytest.mark.parametrize("projects", [NAMES, ()], ids=["some", "everything"])
async def test_without_the_feed_it_asks_for_all_less_and_less_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, projects: tuple[str, ...]
) -> None:
    index, instead = several(), "/simple/alpha/" if projects else "/simple/"
    settings: dict[str, Any] = {"projects": projects, "everything": not projects, "retries": 1}
    async with following(index, tmp_path) as one, daemon_of(one, service=PAUSES, **settings) as running:
        await running.passes(2)
        caplog.set_level(logging.INFO)
        one.server.fault("/pypi", Status(500))
        one.server.reset_log()
        await polls(one, running, 40)
        assert 0 < one.server.count(instead) <= 15
        assert said(caplog, "the change feed cannot be had") == ["WARNING"]
        assert running.daemon.health.trouble is None
        # Whoever asks for a whole pass gets it.
        before = one.server.count(instead)
        publish(index, "alpha", "2.0")
        summary = await running.daemon.pass_now(Wish(), lambda _: None)
        assert one.server.count(instead) > before
        assert (summary.updated, summary.missed) == (1, False)
        # It is back: the next poll is an ordinary one.
        one.server.clear_faults()
        publish(index, "beta", "2.0")
        await running.until(lambda: "beta-2.0.tar.gz" in one.files("beta"))
        assert said(caplog, "the change feed can be had again") == ["INFO"]


async def test_a_poll_that_told_nothing_is_none(tmp_path: Path) -> None:
    async with (
        following(several(), tmp_path) as one,
        daemon_of(one, service=PAUSES, projects=NAMES, everything=False, retries=1) as running,
    ):
        await running.passes(2)
        health = running.daemon.health
        one.server.fault("/pypi", Status(500))
        await running.until(lambda: health.last is not None and health.last.missed)
        answered, counted = health.answered, health.polls
        last = (one.web / "last-modified").read_text()
        await running.until(lambda: health.last is not None and health.last.missed)
        await polls(one, running, 2)
        if health.last is not None and health.last.missed:
            figures = Figures(config=one.config, ledger=None, disk=None, last=health.last, result="complete")
            assert figures.last_poll is None
        if health.polls == counted:  # it was not its turn meanwhile to ask after each project
            assert health.answered == answered
            assert (one.web / "last-modified").read_text() == last


async def test_a_root_list_that_cannot_be_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When a full reconcile is due, the feed does; the list is tried again less and less often."""
    index = several()
    async with following(index, tmp_path) as one, daemon_of(one, service=PAUSES, retries=1) as running:
        await running.passes(2)
        caplog.set_level(logging.INFO)
        one.server.fault("/simple/", Status(500))
        one.configure(reconcile_hours=0.0)
        await running.daemon.reload()
        one.server.reset_log()
        await polls(one, running, 40)
        assert 0 < one.server.count("/simple/") <= 15
        assert said(caplog, "the root list cannot be had") == ["WARNING"]
        publish(index, "alpha", "2.0")
        await running.until(lambda: "alpha-2.0.tar.gz" in one.files("alpha"))
        one.server.clear_faults()
        await running.daemon.pass_now(Wish(), lambda _: None)
        assert said(caplog, "the root list can be had again") == ["INFO"]


async def test_polls_beside_projects_under_way_that_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = several()
    async with following(index, tmp_path) as one, daemon_of(one, retries=1, service={"back_off_most": 0.05}) as running:
        await running.passes(1)
        caplog.set_level(logging.INFO)
        one.server.fault("/packages/*2.0*", Hang())
        publish(index, "alpha", "2.0")
        await running.until(lambda: one.server.count("/packages/*2.0*"))
        one.server.fault("/pypi", Status(500))
        one.server.fault("/simple/", Status(500))
        await polls(one, running, 5)
        assert said(caplog, "upstream does not tell what changed") == ["WARNING"]
        await running.end()


async def test_removals_that_wait_are_told_once_and_written_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(several(), tmp_path) as one, daemon_of(one) as running:
        await running.passes(2)
        caplog.set_level(logging.INFO)
        one.configure(everything=False, projects=("alpha",))
        await running.daemon.reload()
        held = running.daemon.health.passes
        await running.until(lambda: held.get("held", 0) >= 2)
        before = listing(one.directory, without=(".lock",))
        await running.until(lambda: held.get("held", 0) >= 8)
        assert said(caplog, "are implausible and wait") == ["ERROR"]
        assert rewritten(before, listing(one.directory, without=(".lock",))) == set()
        # Once they are approved, others are news.
        await running.daemon.pass_now(Wish(allow_removals=5), lambda _: None)
        assert not (one.web / "simple/beta").exists()


async def test_what_is_wrong_for_the_same_reason_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = several()
    settings: dict[str, Any] = {"retries": 1, "retry_first": 0.01, "retry_most": 0.02}
    async with following(index, tmp_path) as one, daemon_of(one, service={"back_off_most": 0.1}, **settings) as running:
        await running.passes(2)
        caplog.set_level(logging.INFO)
        one.server.fault("/simple/alpha/", Status(500))
        publish(index, "alpha", "2.0")
        await running.until(lambda: one.server.count("/simple/alpha/") >= 5)
        assert said(caplog, "/simple/alpha/: status 500") == ["WARNING"]
        one.server.fault("/*", Status(503))
        health = running.daemon.health
        await running.until(lambda: health.passes.get("unreachable", 0) >= 4)
        assert said(caplog, "status 503; trying again") == ["WARNING"]
        assert said(caplog, "normal again") == []
        assert health.trouble == "unreachable"


async def test_an_outage_that_begins_while_a_pass_works_is_not_over_when_that_pass_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = several()
    async with following(index, tmp_path) as one, daemon_of(one, service=PAUSES, retries=1) as running:
        await running.passes(2)
        caplog.set_level(logging.INFO)
        held = one.server.fault("/packages/*2.0*", Hang())
        publish(index, "alpha", "2.0")
        await running.until(lambda: one.server.count("/packages/*2.0*") >= 1)
        outage = [one.server.fault(path, Status(503)) for path in ("/pypi", "/simple/")]
        health = running.daemon.health
        running.daemon.poke()
        await running.until(lambda: health.trouble == "unreachable")
        before = sum(health.passes.values())
        held.release()
        await running.until(lambda: sum(health.passes.values()) > before)
        assert (one.web / "packages").exists()
        assert health.trouble == "unreachable"
        assert said(caplog, "normal again") == []
        for count in (1, 2, 3):
            running.daemon.poke()
            await running.until(lambda: health.passes.get("unreachable", 0) >= count)  # noqa: B023
        assert said(caplog, "status 503; trying again") == ["WARNING"]
        for fault in outage:
            fault.remove()
        running.daemon.poke()
        await running.until(lambda: health.trouble is None)
        assert len(said(caplog, "normal again")) == 1


async def test_named_projects_in_an_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing at all is answered: that is one trouble until it is over, whatever is asked in which order."""
    settings: dict[str, Any] = {"projects": NAMES, "everything": False, "retries": 1}
    async with following(several(), tmp_path) as one, daemon_of(one, service={"back_off_most": 0.1}, **settings) as it:
        await it.passes(2)
        caplog.set_level(logging.INFO)
        one.server.fault("/*", Status(503))
        health = it.daemon.health
        await it.until(lambda: health.passes.get("unreachable", 0) >= 5)
        assert said(caplog, "normal again") == []
        one.server.clear_faults()
        await it.until(lambda: health.trouble is None and health.lag == 0)
