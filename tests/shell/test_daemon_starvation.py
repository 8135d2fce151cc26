"""Catching up for days does not hold up what is new: the daemon polls on, publishes, and removes, in the meantime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from support.equality import differences
from support.looping import daemon_of
from support.mirrors import following


def backlog(count: int) -> Index:
    index = Index()
    for number in range(count):
        name = f"project-{number:03}"
        index.publish(name, "1.0", UploadedFile(f"project_{number:03}-1.0.tar.gz", Virtual(100, number)))
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(100_000, 999)))
    return index


async def test_a_new_project_is_published_before_a_hanging_file_ends(tmp_path: Path) -> None:
    async with following(backlog(5), tmp_path) as one:
        fault = one.server.fault("/packages/*/large-*", Hang(after=0.5))
        async with daemon_of(one) as running:
            await running.until((one.web / "simple/project-004/index.html").exists)
            one.index.publish("brand-new", "1.0", UploadedFile("brand_new-1.0.tar.gz", Virtual(100, 5000)))
            await running.until((one.web / "simple/brand-new/index.html").exists)
            await running.until(lambda: (one.web / "simple/index.v1_json").exists() and "brand-new" in one.root())
            assert running.daemon.health.passes == {}
            assert not (one.web / "simple/large").exists()
            await running.until(lambda: running.told and running.told[-1].added >= 6)
            assert running.daemon.health.cursor == one.index.serial
            fault.release()
            one.server.clear_faults()
            await running.until((one.web / "simple/large/index.html").exists)
            await running.passes(1)
        assert differences(one.index, one.directory) == []


async def test_a_removal_is_carried_out_before_a_hanging_file_ends(tmp_path: Path) -> None:
    """Malware goes while a pass that takes hours is under way, its bytes as well."""
    index = backlog(10)
    async with following(index, tmp_path) as one:
        one.server.fault("/packages/*/large-*", Hang(after=0.5))
        async with daemon_of(one) as running:
            await running.until((one.web / "simple/project-003/index.html").exists)
            (file,) = one.files("project-003").values()
            assert file.exists()
            index.remove_project("project-003")
            await running.until(lambda: not (one.web / "simple/project-003").exists())
            await running.until(lambda: not file.exists())
            await running.until(lambda: (one.web / "simple/index.v1_json").exists() and "project-003" not in one.root())
            assert running.daemon.health.passes == {}
            await running.until(lambda: running.told and running.told[-1].removed == 1)


async def test_what_is_new_overtakes_a_backlog(tmp_path: Path) -> None:
    """One project at a time, the first of which hangs: a change that comes late is not the last one."""
    index = backlog(300)
    async with following(index, tmp_path) as one:
        held = one.server.fault("/packages/*/project_*", Hang())
        async with daemon_of(one, projects_at_once=1) as running:
            await running.until(lambda: one.server.count("/packages/*/project_*"))
            index.publish("brand-new", "1.0", UploadedFile("brand_new-1.0.tar.gz", Virtual(100, 5000)))
            polls = running.daemon.health.polls
            await running.until(lambda: running.daemon.health.polls > polls)
            held.release()
            one.server.clear_faults()
            await running.until(lambda: one.server.count("/simple/brand-new/"))
            assert one.server.count("/simple/project-*/") < 200
            await running.passes(1)
        assert differences(index, one.directory) == []


async def test_an_implausible_share_of_removals_is_not_begun_in_the_meantime(tmp_path: Path) -> None:
    """Each poll shows a few more: what the guard would hold as a whole is not carried out bit by bit."""
    index = backlog(10)
    async with following(index, tmp_path) as one:
        fault = one.server.fault("/packages/*/large-*", Hang(after=0.5))
        async with daemon_of(one) as running:
            await running.until((one.web / "simple/project-009/index.html").exists)
            for number in range(8):
                index.remove_project(f"project-{number:03}")
            await running.until(lambda: one.server.count("/simple/project-007/") >= 2)
            polls = running.daemon.health.polls
            await running.until(lambda: running.daemon.health.polls > polls + 3)
            assert all((one.web / f"simple/project-{number:03}").exists() for number in range(8))
            fault.release()
            one.server.clear_faults()
            await running.until(lambda: running.daemon.health.last and running.daemon.health.last.held == 8)
            assert all((one.web / f"simple/project-{number:03}").exists() for number in range(8))


async def test_a_project_that_comes_back_is_there_in_the_end(tmp_path: Path) -> None:
    """It was found to be gone; whether that was carried out before upstream had it again, or not any more."""
    index = backlog(10)
    async with following(index, tmp_path) as one:
        one.server.fault("/packages/*/large-*", Hang(after=0.5))
        async with daemon_of(one, interval=3600.0) as running:
            await running.until((one.web / "simple/project-009/index.html").exists)
            index.remove_project("project-003")
            running.daemon.poke()
            await running.until(lambda: one.server.count("/simple/project-003/") >= 2)
            index.publish("project-003", "2.0", UploadedFile("project_003-2.0.tar.gz", Virtual(100, 33)))
            running.daemon.poke()
            page = one.web / "simple/project-003/index.v1_json"
            await running.until(lambda: page.exists() and b"project_003-2.0.tar.gz" in page.read_bytes())
            assert running.daemon.health.passes == {}


async def test_projects_that_fail_in_numbers_hold_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every page that was there fails, the feed and what is new are well."""
    index = backlog(60)
    settings: dict[str, Any] = {"retries": 1, "retry_first": 0.05, "retry_most": 0.1}
    service = {"back_off_most": 0.2, "grace": 30.0}
    async with following(index, tmp_path) as one, daemon_of(one, service=service, **settings) as running:
        await running.until(lambda: running.daemon.health.lag == 0 and running.daemon.health.phase == "waiting")
        caplog.set_level(logging.INFO)
        faults = [one.server.fault(path, Status(500)) for path in ("/simple/project-*", "/simple/large/")]
        slow = one.server.fault("/packages/*/brand_new-*", Hang())
        for name in list(index.projects()):
            index.touch(name)
        index.publish("brand-new", "1.0", UploadedFile("brand_new-1.0.tar.gz", Virtual(100, 5000)))
        health = running.daemon.health
        await running.until(lambda: one.server.count("/packages/*/brand_new-*") and one.server.count("/simple/large/"))
        await running.until(lambda: sum("status 500" in line for line in caplog.messages) >= 10)
        slow.release()
        await running.until((one.web / "simple/brand-new/index.html").exists)
        assert one.server.count("/packages/*/brand_new-*") == 1  # nothing ended it
        # Since that one is well, it is the others that fail, and no more upstream.
        await running.until(lambda: health.passes.get("incomplete", 0) >= 2)
        assert health.trouble is None
        assert sum("normal again" in line for line in caplog.messages) <= 1
        for fault in faults:
            fault.remove()
        await running.until(lambda: health.lag == 0)
        await running.until(lambda: health.phase == "waiting")
    assert differences(index, one.directory) == []


async def test_that_polls_are_answered_does_not_make_it_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While no page can be had at all, the pauses grow, and it is said once."""
    index = backlog(400)
    service: dict[str, Any] = {"back_off_most": 0.2}
    settings: dict[str, Any] = {"retries": 1, "retry_first": 5.0, "retry_most": 5.0}
    async with following(index, tmp_path) as one, daemon_of(one, service=service, **settings) as running:
        await running.until(lambda: running.daemon.health.lag == 0 and running.daemon.health.phase == "waiting")
        caplog.set_level(logging.INFO)
        one.server.fault("/simple/*/", Status(500))
        for name in list(index.projects()):
            index.touch(name)
        await running.until(lambda: running.daemon.health.passes.get("unreachable", 0) >= 3)
        words = [line for line in caplog.messages if "trying again" in line or "normal again" in line]
        assert ["trying again" in line for line in words[:3]] == [True] * 3
