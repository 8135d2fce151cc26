"""The daemon's loop: what goes wrong is a state with a back-off, and is over at the first good answer."""

from __future__ import annotations

import _sqlite3
import asyncio
import contextlib
import ctypes
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from heliostat.cli.exit_codes import ExitCode, exit_code
from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from heliostat.mirror.report import Counters, Summary
from heliostat.service.daemon import Wish
from heliostat.state.ledger import Ledger
from heliostat.store.beats import got_on
from heliostat.store.threads import in_thread
from support.equality import differences
from support.looping import PATIENCE, daemon_of
from support.mirrors import following, listing, rewritten


def small() -> Index:
    index = Index()
    for number in range(3):
        index.publish(f"project-{number}", "1.0", UploadedFile(f"project_{number}-1.0.tar.gz", Virtual(100, number)))
    return index


async def test_it_follows_upstream_until_it_is_stopped(tmp_path: Path) -> None:
    index = small()
    async with following(index, tmp_path) as one, daemon_of(one) as running:
        await running.passes(1)
        assert differences(index, one.directory) == []
        health = running.daemon.health
        assert (health.trouble, health.lag, health.cursor) == (None, 0, index.serial)
        index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
        await running.until(lambda: health.cursor == index.serial and health.lag == 0)
        await running.until(lambda: health.phase == "waiting")
        assert differences(index, one.directory) == []
        await running.end()
        assert health.phase == "stopping"
        passes = {summary.started: summary.added for summary in running.told}
        assert sum(passes.values()) == 4


async def test_an_idle_poll_is_one_request_and_writes_nothing(tmp_path: Path) -> None:
    async with following(small(), tmp_path) as one, daemon_of(one, first=Wish(full=True)) as running:
        await running.passes(2)
        polls, before = running.daemon.health.polls, one.listing()
        one.server.reset_log()
        await running.until(lambda: running.daemon.health.polls >= polls + 5)
        assert {request.path for request in one.server.requests} == {"/pypi"}
        assert abs(len(one.server.requests) - (running.daemon.health.polls - polls)) <= 1
        assert rewritten(before, listing(one.directory, without=(".lock",))) == set()


async def test_an_outage_is_a_state_and_is_over_at_the_first_good_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = small()
    async with following(index, tmp_path) as one, daemon_of(one, service={"back_off_most": 0.2}) as running:
        caplog.set_level(logging.INFO)
        health = running.daemon.health
        await running.passes(1)
        one.server.fault("/*", Status(500))
        await running.until(lambda: health.passes.get("unreachable", 0) >= 3)
        assert health.trouble == "unreachable"
        assert health.trouble_since is not None
        assert "500" in (health.trouble_text or "")
        index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
        one.server.clear_faults()
        await running.until(lambda: health.trouble is None)
        await running.until((one.web / "simple/later/index.html").exists)
        assert any("normal again" in line for line in caplog.messages)
        assert "Traceback" not in caplog.text


async def test_a_full_disk_is_a_state(tmp_path: Path) -> None:
    """Nothing can be written; once it can, the daemon goes on by itself."""
    index = small()
    async with (
        following(index, tmp_path) as one,
        daemon_of(one, min_free=0.999999, service={"back_off_most": 0.1}) as running,
    ):
        health = running.daemon.health
        await running.until(lambda: health.passes.get("store", 0) >= 2)
        assert health.trouble == "store"
        one.configure(min_free=0.0)
        result = await running.daemon.reload()
        assert result.changed == ("[mirror] min-free",)
        await running.until(lambda: health.trouble is None and health.lag == 0)
        assert differences(index, one.directory) == []


async def test_a_ledger_that_cannot_grow_is_a_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite says that the disk is full, in the middle of a pass: never an end, however often; then it goes on."""
    index = small()
    service = {"back_off_most": 0.05, "give_up_after": 2}
    async with following(index, tmp_path) as one, daemon_of(one, service=service) as running:
        health = running.daemon.health
        await running.passes(1)
        await running.daemon.mirror.with_ledger(
            lambda it: it.connection.execute("PRAGMA max_page_count = 1").fetchall()
        )
        for number in range(400):
            index.publish(f"later-{number}", "1.0", UploadedFile(f"later_{number}-1.0.tar.gz", Virtual(100, number)))
        await running.until(lambda: health.passes.get("store", 0) >= 4)
        assert (health.trouble, health.defects) == ("store", 0)
        assert "heliostat.db: database or disk is full" in (health.trouble_text or "")
        summary = await running.daemon.pass_now(Wish(), lambda _: None)
        assert exit_code(summary) == ExitCode.STORE
        await running.daemon.mirror.with_ledger(
            lambda it: it.connection.execute("PRAGMA max_page_count = 1000000").fetchall()
        )
        await running.until(lambda: health.trouble is None and health.lag == 0)
        assert differences(index, one.directory) == []
        assert "Traceback" not in caplog.text


async def test_what_stays_wrong_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A project that is blocked for good does not fill the log, poll after poll; another one is news."""
    caplog.set_level(logging.INFO)
    index = small()
    publish_badly(index, "bad")
    async with following(index, tmp_path) as one, daemon_of(one) as running:
        await running.passes(6)
        await running.until(lambda: index.serial == running.daemon.health.cursor)
        assert [line.partition(";")[0] for line in incomplete(caplog)] == ["incomplete: 1 project owed"]
        publish_badly(index, "worse")
        await running.until(lambda: len(incomplete(caplog)) == 2)
        again = sum(running.daemon.health.passes.values())
        await running.passes(again + 4)
        assert [line.partition(";")[0] for line in incomplete(caplog)][1:] == ["incomplete: 2 projects owed"]


def publish_badly(index: Index, name: str) -> None:
    """A project whose only file has a name that cannot be a path."""
    index.publish(name, "1.0", UploadedFile("../up.tar.gz", Virtual(100, 1)))


def incomplete(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("incomplete")]


async def test_unknown_names_are_told_from_what_is_owed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with following(small(), tmp_path) as one, daemon_of(one) as running:
        await running.passes(1)
        summary = await running.daemon.sync_now(["Nobody"])
        assert summary.unknown == ["Nobody"]
        await running.until(lambda: incomplete(caplog))
        assert [line.partition(";")[0] for line in incomplete(caplog)] == ["incomplete: unknown upstream: 'nobody'"]


async def test_a_mirror_that_vanishes_is_named(tmp_path: Path) -> None:
    index, directory = small(), tmp_path / "pypi"
    directory.mkdir()
    async with (
        following(index, directory) as one,
        daemon_of(one, state=str(tmp_path / "state"), min_free=0.000001, service={"back_off_most": 0.1}) as running,
    ):
        await running.passes(1)
        directory.rename(tmp_path / "elsewhere")
        index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
        await running.until(lambda: running.daemon.health.trouble == "store")
        text = running.daemon.health.trouble_text or ""  # whoever meets it first says so
        assert "No such file or directory" in text


async def test_another_upstream_waits_for_an_operator(tmp_path: Path) -> None:
    """As after a restart with such a configuration; going back ends the trouble."""
    index = small()
    service = {"back_off_most": 0.1}
    async with (
        FakeIndex(small()) as other,
        following(index, tmp_path) as one,
        daemon_of(one, service=service) as running,
    ):
        await running.passes(1)
        right = one.config
        one.configure(url=(other.url,))
        await running.daemon.reload()
        await running.until(lambda: running.daemon.health.passes.get("approval", 0) >= 2)
        assert running.daemon.health.trouble == "approval"
        assert "--full" in (running.daemon.health.trouble_text or "")
        with pytest.raises(UpstreamChanged):
            await running.daemon.sync_now(["project-1"])
        one.config = right
        await running.daemon.reload()
        await running.until(lambda: running.daemon.health.trouble is None)


async def test_a_defect_is_seen_and_ends_the_process_after_several_in_a_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here what shows the progress of a pass is at fault."""
    shown = 0

    @contextlib.asynccontextmanager
    async def showing(_: Counters) -> AsyncIterator[None]:
        nonlocal shown
        shown += 1
        if shown in (2, 4, 5, 6):
            raise ValueError("nobody thought of this")
        yield

    service = {"back_off_most": 0.01, "give_up_after": 3}
    async with following(small(), tmp_path) as one, daemon_of(one, service=service, showing=showing) as running:
        await running.passes(2)
        assert running.daemon.health.trouble == "defect"
        await running.passes(3)
        assert running.daemon.health.passes == {"complete": 2, "defect": 1}
        with pytest.raises(ValueError, match="nobody thought"):
            async with asyncio.timeout(PATIENCE):
                await running.task
        assert running.daemon.health.passes["defect"] == 4
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 2  # one for each time that it came
    assert any("giving up" in line for line in caplog.messages)


async def test_what_is_owed_is_tried_again_without_asking_the_feed(tmp_path: Path) -> None:
    """The next poll is an hour away; a project that failed is tried again at its own time."""
    index = small()
    async with following(index, tmp_path) as one:
        one.server.fault("/packages/*/project_1-*", Status(404), times=1)
        async with daemon_of(one, interval=3600.0) as running:
            await running.until((one.web / "simple/project-1/index.html").exists)
            await running.passes(2)
            assert running.daemon.health.polls == 1
            assert one.server.count("/pypi") <= 1
        assert differences(index, one.directory) == []


async def test_pokes_are_one_poll_and_never_overlap(tmp_path: Path) -> None:
    index = small()
    async with following(index, tmp_path) as one, daemon_of(one, interval=3600.0) as running:
        await running.passes(1)
        health = running.daemon.health
        polls = health.polls
        index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
        for _ in range(1000):
            running.daemon.poke(["project-1", "..", "Project_1"])
        await running.until((one.web / "simple/later/index.html").exists)
        await running.until(lambda: health.phase == "waiting")
        assert health.polls == polls + 1


async def test_a_poke_does_not_take_in_what_the_configuration_leaves_out(tmp_path: Path) -> None:
    index = small()
    async with following(index, tmp_path, projects=("project-1",)) as one, daemon_of(one, interval=3600.0) as running:
        await running.passes(1)
        running.daemon.poke(["project-2", "project-1"])
        await running.passes(2)
        assert not (one.web / "simple/project-2").exists()


async def test_sync_now_in_between(tmp_path: Path) -> None:
    """While a pass hangs in a file, and while none runs: both times at once, and with its own result."""
    index = small()
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(100_000, 999)))
    index.publish("other", "1.0", UploadedFile("other-1.0.tar.gz", Virtual(100, 8)))
    names = ("project-0", "large")
    async with following(index, tmp_path, projects=names) as one:
        fault = one.server.fault("/packages/*/large-*", Hang(after=0.5))
        async with daemon_of(one, interval=3600.0) as running:
            await running.until((one.web / "simple/project-0/index.html").exists)
            summary = await running.daemon.sync_now(["Other"])
            assert (summary.added, summary.complete) == (1, True)
            assert one.files("other")
            assert running.daemon.health.passes == {}
            fault.release()
            one.server.clear_faults()
            await running.passes(1)
            unknown = await running.daemon.sync_now(["nobody-has-it", "project-0"])
            assert unknown.unknown == ["nobody-has-it"]
            assert not unknown.complete
            one.server.fault("/*", Status(500))
            away = await running.daemon.sync_now(["project-0"])
            assert [(one.project, one.state) for one in away.owed] == [("project-0", "failing")]


async def test_sync_now_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    """What was read of a project before somebody asked for it may be too old."""
    index = small()
    async with following(index, tmp_path) as one:
        fault = one.server.fault("/packages/*/project_1-1.0*", Hang())
        async with daemon_of(one, interval=3600.0) as running:
            await running.until(lambda: one.server.count("/packages/*/project_1-1.0*"))
            asked = asyncio.create_task(running.daemon.sync_now(["project-1"]))
            await running.until(lambda: not running.daemon._errands)
            index.publish("project-1", "2.0", UploadedFile("project_1-2.0.tar.gz", Virtual(100, 50)))
            fault.release()
            one.server.clear_faults()
            summary = await asked
            assert summary.complete
            assert "project_1-2.0.tar.gz" in one.files("project-1")


async def test_a_listener_that_fails_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(summary: Summary) -> None:
        raise RuntimeError(f"cannot stand {summary.added}")

    async with following(small(), tmp_path) as one, daemon_of(one) as running:
        running.daemon.after_pass.insert(0, fails)
        await running.passes(2)
        assert running.daemon.health.trouble is None
        assert running.told
    assert "cannot stand" in caplog.text


async def test_progress_stands_still_only_when_nothing_is_awaited(tmp_path: Path) -> None:
    async with following(small(), tmp_path) as one, daemon_of(one, interval=3600.0) as running:
        await running.passes(1)
        await running.until(lambda: running.daemon.health.phase == "waiting")
        first = running.daemon.progressed()
        await asyncio.sleep(0.01)
        assert running.daemon.progressed() > first  # waiting is what it is to do
        running.daemon.health.quiet_until = 0.0
        stuck = running.daemon.progressed()
        await asyncio.sleep(0.01)
        assert running.daemon.progressed() == stuck


async def test_work_in_a_thread_that_does_not_end_is_no_progress(tmp_path: Path) -> None:
    """Whatever else goes on; work that takes long and says so is."""
    held, steps = threading.Event(), SimpleQueue[None]()

    def hang() -> None:
        held.wait(PATIENCE)

    def long_work() -> None:
        while not held.is_set():
            got_on()
            steps.put(None)
            time.sleep(0.001)

    async with following(small(), tmp_path) as one, daemon_of(one) as running:
        await running.passes(1)
        polls = running.daemon.health.polls
        work = asyncio.create_task(in_thread(hang))
        await asyncio.sleep(0)
        await running.until(lambda: running.daemon.health.polls > polls + 3)
        stuck = running.daemon.progressed()
        await running.until(lambda: running.daemon.health.polls > polls + 6)
        assert running.daemon.progressed() == stuck
        held.set()
        await work
        await running.until(lambda: running.daemon.progressed() > stuck)
        held.clear()
        work = asyncio.create_task(in_thread(long_work))
        await asyncio.sleep(0)
        steps.get(timeout=PATIENCE)
        first = running.daemon.progressed()
        await running.until(lambda: steps.qsize() > 3 and running.daemon.progressed() > first)
        held.set()
        await work


async def test_projects_that_never_move_are_a_hang_although_polls_are_answered(tmp_path: Path) -> None:
    """Once they stand still for longer than any time limit of a request explains."""
    index = small()
    async with following(index, tmp_path) as one, daemon_of(one, stall_timeout=50.0) as running:
        await running.passes(1)
        one.server.fault("/packages/*later*", Hang())
        index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
        await running.until(lambda: one.server.count("/packages/*later*"))
        polls, first = running.daemon.health.polls, running.daemon.progressed()
        await running.until(lambda: running.daemon.health.polls > polls + 3)
        assert running.daemon.progressed() > first
        running.daemon._progress._moved -= 3600  # as if it had been so for an hour
        polls, stuck = running.daemon.health.polls, running.daemon.progressed()
        await running.until(lambda: running.daemon.health.polls > polls + 3)
        assert running.daemon.progressed() == stuck
        one.server.clear_faults()
        await running.end()


async def test_retry_after_holds_back_the_next_poll_and_a_poke_too(tmp_path: Path) -> None:
    async with (
        following(small(), tmp_path) as one,
        daemon_of(one, changes="feed", service={"back_off_most": 0.1}) as running,
    ):
        await running.passes(1)
        one.server.fault("/*", Status(503, retry_after=3000))
        await running.until(lambda: running.daemon.health.trouble == "unreachable")
        await running.until(lambda: running.daemon.health.phase == "waiting")
        one.server.clear_faults()
        one.server.reset_log()
        running.daemon.poke()
        left = (running.daemon.health.next_poll or 0) - running.daemon.health.started
        assert left > 500
        await asyncio.sleep(0.1)
        assert one.server.count("/pypi") == 0


async def test_a_wait_that_upstream_asks_for_is_told_and_kept_by_a_reload_and_an_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = small()
    async with following(index, tmp_path) as one, daemon_of(one, changes="feed") as running:
        daemon = running.daemon
        await running.passes(1)
        daemon.look_at_hold()
        assert daemon.health.held_until is None
        one.server.fault("/*", Status(503, retry_after=300), times=1)
        await running.until(lambda: daemon.mirror.sources.pauses.hold)
        daemon.look_at_hold()
        assert daemon.health.held_by == one.server.url
        assert 290 < (daemon.health.held_until or 0) - time.time() <= 300
        one.server.reset_log()
        one.configure(metadata_at_once=7)
        await daemon.reload()
        order = asyncio.create_task(daemon.pass_now(Wish(), lambda _: None))
        began = daemon.health.passes.get("interrupted", 0)
        await running.until(lambda: daemon.health.passes.get("interrupted", 0) > began and daemon.mirror.figures)
        await asyncio.sleep(0.1)
        assert not one.server.requests
        assert daemon.mirror.sources.pauses.hold is not None
        told = [line for line in caplog.messages if "asks to wait" in line]
        assert len(told) == 1
        assert told[0].startswith(f"{one.server.url} asks to wait: nothing is asked of it for 300 s, until ")
        await running.end()
        await asyncio.gather(order, return_exceptions=True)


async def test_another_upstream_is_not_made_to_wait(tmp_path: Path) -> None:
    async with FakeIndex(small()) as other, following(small(), tmp_path) as one, daemon_of(one) as running:
        mirror = running.daemon.mirror
        await running.passes(1)
        one.server.fault("/*", Status(503, retry_after=300), times=1)
        await running.until(lambda: mirror.sources.pauses.hold)
        here = one.config.upstream.url[0]
        for urls, held in (((other.url, here), here), ((here,), here), ((other.url,), None)):
            one.configure(url=urls)
            await running.daemon.reload()
            hold = mirror.sources.pauses.hold
            assert (hold and hold.server) == held


def held_by_sqlite() -> int:
    """Bytes that SQLite holds in this process."""
    count = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    count.restype = ctypes.c_int64
    return int(count())


async def test_the_ledger_is_not_held_in_memory_from_pass_to_pass(tmp_path: Path) -> None:
    def touch_much(ledger: Ledger) -> None:
        rows = [(f"project-{number}", "why" * 100) for number in range(20_000)]
        with ledger.transaction() as connection:
            connection.executemany("INSERT INTO tombstones (at, project, reason) VALUES (0, ?, ?)", rows)

    mib = 1 << 20
    async with following(small(), tmp_path) as one, daemon_of(one) as running:
        await running.passes(1)
        before = held_by_sqlite()
        await running.daemon.mirror.with_ledger(touch_much)
        assert held_by_sqlite() > before + 4 * mib
        one.index.publish("more", "1.0", UploadedFile("more-1.0.tar.gz", b"more"))
        await running.until(lambda: held_by_sqlite() < before + mib)
