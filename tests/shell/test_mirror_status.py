"""``heliostat status``: read beside or without a running mirror, after each kind of state."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from heliostat.errors import MirrorLocked, StateError
from heliostat.fakeindex import UploadedFile
from heliostat.fakeindex.faults import Status as HttpStatus
from heliostat.fakeindex.synthetic import small_index
from heliostat.mirror.lock import hold_lock
from heliostat.mirror.run import Mirror
from heliostat.mirror.status import read_status
from support.mirrors import changed, following


async def test_a_complete_mirror(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        earlier = time.time()
        await one.sync()
        status = read_status(one.config)
        assert (status.directory, status.upstream) == (str(tmp_path), one.server.url)
        assert status.upstream_serial == status.cursor == status.checkpoint == one.index.serial
        assert status.upstream_seen is not None
        assert status.last_poll is not None
        assert earlier <= status.last_poll <= status.upstream_seen <= time.time()
        names = [name for name in one.index.projects() if name != "quarantined"]
        assert status.projects == len(names)
        assert status.states == {"current": len(names)}
        files = [expected.file for name in names for expected in one.index.expected_files(name)]
        assert (status.files, status.bytes) == (len(files), sum(file.size for file in files))
        assert (status.owed, status.running) == ([], None)


async def test_every_state(tmp_path: Path) -> None:
    index = small_index()
    index.publish("bare", "1.0", [UploadedFile("bare-1.0.zip", b"no hash", hashes="none")])
    async with following(index, tmp_path, retries=1) as one:
        await one.attempt()
        index.quarantine("zeta")
        index.remove_project("old")
        index.yank("alpha", "1.0")
        one.server.fault("/simple/alpha/", HttpStatus(503))
        await one.attempt()
        status = read_status(one.config)
        assert status.states == {"blocked": 1, "current": 23, "failing": 1, "gone": 2, "quarantined": 2}
        assert {(owed.project, owed.state) for owed in status.owed} == {("alpha", "failing"), ("bare", "blocked")}
        reasons = {owed.project: owed.reason for owed in status.owed}
        assert "503" in reasons["alpha"]
        assert "hash" in reasons["bare"]
        assert status.checkpoint < status.cursor == index.serial
        for name in list(index.projects())[:20]:
            if name != "alpha":
                index.remove_project(name)
        await one.attempt()
        assert read_status(one.config).states["held"] >= 15


async def test_removals_that_wait_are_listed_with_their_reason(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha", "zeta", "signed", "old")) as one:
        await one.sync()
        one.configure(projects=("alpha",))
        await one.attempt()
        status = read_status(one.config)
        assert {owed.project for owed in status.owed if owed.state == "held"} == {"zeta", "signed", "old"}
        assert all("scope" in owed.reason for owed in status.owed)
        await one.sync(allow_removals=3)
        assert read_status(one.config).states == {"current": 1, "excluded": 3}


async def test_an_upstream_that_does_not_answer(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        before = read_status(one.config)
        await one.server.stop()
        one.configure(retries=1)
        assert (await one.attempt()).unreachable
        status = read_status(one.config)
        assert status.trouble is not None
        assert "refused" in status.trouble
        assert (status.states, status.cursor, status.last_poll) == (before.states, before.cursor, before.last_poll)


async def test_beside_a_running_mirror(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        async with Mirror.open(one.config):
            status = read_status(one.config)
            assert status.running is not None
            assert str(os.getpid()) in status.running
        assert read_status(one.config).running is None


async def test_after_a_crash_its_number_may_be_another_process_s(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        (tmp_path / ".lock").write_text(f"{os.getppid()} since 2026-01-01 00:00:00 UTC\n")
        assert read_status(one.config).running is None
        await one.sync()
        with hold_lock(str(tmp_path / ".lock")), pytest.raises(MirrorLocked, match=f"process {os.getpid()} since"):
            await one.sync()


async def test_two_that_look_do_not_take_each_other_for_a_mirror(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        with (tmp_path / ".lock").open() as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            assert read_status(one.config).running is None
        await one.sync()


async def test_reading_writes_nothing(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        before = one.listing(), sorted(tmp_path.rglob("*"))
        read_status(one.config)
        assert (one.listing(), sorted(tmp_path.rglob("*"))) == before


async def test_without_a_ledger(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        with pytest.raises(StateError, match="has this mirror been run"):
            read_status(one.config)
        (tmp_path / "heliostat.db").write_bytes(b"nonsense" * 1000)
        with pytest.raises(StateError, match="rebuild"):
            read_status(one.config)


async def test_a_first_run_that_reached_nobody_shows_no_credentials(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, retries=1) as one:
        url = one.server.url.replace("//", "//user:secret@")
        await one.server.stop()
        one.configure(url=(url,))
        assert (await one.attempt()).unreachable
        status = read_status(one.config)
        assert "secret" not in repr(status)
        assert (status.projects, status.cursor, status.upstream_serial) == (0, 0, None)


async def test_state_on_another_disk(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as one:
        one.config = changed(one.config, state=str(tmp_path / "state"))
        await one.sync()
        assert not (one.directory / "heliostat.db").exists()
        assert not (one.directory / ".lock").exists()
        assert read_status(one.config).projects > 20
        (tmp_path / "state" / "heliostat.db").unlink()
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/packages/*") == 0


def test_nobody_else_can_hold_the_lock(tmp_path: Path) -> None:
    """Nor that of a mirror which an older version made."""
    path = tmp_path / ".lock"
    for _ in range(2):
        with hold_lock(str(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_text("")
        path.chmod(0o644)
