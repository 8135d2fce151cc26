"""The scrub of a daemon: what is damaged is found and repaired, within the budget, beside everything else."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import platform
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.mirror.scrub import Looker
from heliostat.mirror.verify.reading import Budget, Stopping
from support.damages import DAMAGES, Damage, flip, in_place, wheel
from support.equality import differences
from support.looping import daemon_of
from support.mirrors import Followed, following, listing, rewritten
from support.scrubbed import scrubbed, with_scrub
from support.verified import rich_index, verify


def many(count: int, size: int = 1000) -> Index:
    """So many projects, each with one file."""
    index = Index()
    for number in range(count):
        index.publish(f"p{number:03}", "1.0", UploadedFile(f"p{number:03}-1.0.zip", bytes([number % 256]) * size))
    return index


def served(one: Followed) -> int:
    """Files that pages name."""
    with sqlite3.connect(one.directory / "heliostat.db") as ledger:
        (found,) = ledger.execute("SELECT files FROM totals").fetchone()
    ledger.close()
    return int(found)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_found_and_repaired_and_nothing_else_touched(damage: Damage, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror", root_interval=10_000) as one:
        await one.sync()
        place = wheel(one).relative_to(one.web).as_posix()
        async with scrubbed(one) as scrub:
            await scrub.running.passes(1)
            good = listing(one.web)
            damage.do(one)
            damaged = rewritten(good, listing(one.web))
            await scrub.rounds(2)
            await scrub.running.until(lambda: scrub.figures.repaired and not scrub.figures.unrepaired)
            kinds = {kind for kind, _ in damage.found}
            if len(kinds) > 1:
                kinds -= {"root"}  # what a page should be there the ledger says
            assert {kind for kind, count in scrub.figures.found.items() if count} >= kinds
        if damage.ledger:
            await (
                one.sync()
            )  # the root list may have been mended by what the ledger said then; it has a pace of its own
        assert differences(one.index, one.directory) == []
        seen, _ = await verify(one.config)
        assert seen.findings == []
        about = {in_place(path, place) for _, path in damage.found} | damaged
        after = {path for path in rewritten(good, listing(one.web)) if not path.startswith(("changes/", "simple/"))}
        assert after <= about | {"json/beta", "pypi/beta/json", "last-modified"}
        assert not [path for path in listing(one.directory) if path.startswith(("withheld/", "partial/"))]


async def test_what_is_whole_is_read_again_and_again_and_never_touched(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        good = listing(one.web, without=("last-modified",))
        async with scrubbed(one) as scrub:
            assert scrub.figures.oldest is None
            await scrub.rounds(3)
            assert (scrub.figures.found, scrub.figures.repaired, scrub.figures.trouble) == ({}, 0, None)
            assert scrub.figures.oldest is not None
            assert scrub.figures.bytes > sum(path.stat().st_size for path in one.files("beta").values())
        assert rewritten(good, listing(one.web, without=("last-modified",))) == set()


async def test_while_it_is_off_there_is_nothing_of_it(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        async with scrubbed(one, enabled=False) as scrub:
            await scrub.running.passes(3)
            assert scrub.daemon.health.scrub is None
            assert await scrub.daemon.mirror.with_ledger(lambda ledger: ledger.get("scrub")) is None
            assert not any(thread.name.startswith("heliostat-scrub") for thread in threading.enumerate())


async def test_a_reload_switches_it_on_and_off(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one, scrubbed(one, enabled=False) as scrub:
        for _ in range(2):
            one.config = with_scrub(one.config)
            await scrub.daemon.reload()
            await scrub.rounds(2)
            one.config = with_scrub(one.config, enabled=False)
            await scrub.daemon.reload()
            await scrub.running.until(lambda: scrub.daemon.health.scrub is None)
        passes = sum(scrub.daemon.health.passes.values())
        await scrub.running.passes(passes + 2)
        assert scrub.daemon.health.scrub is None


async def test_the_next_process_goes_on_in_the_middle_of_a_round(tmp_path: Path) -> None:
    """None is left out, and none is read twice but for the one that was being read."""
    async with following(many(40, size=5000), tmp_path / "mirror") as one:
        await one.sync()
        checked = 0
        for _ in range(3):  # each gets on a little
            async with scrubbed(one, bytes_per_second=60_000) as scrub:
                await scrub.running.until(lambda: scrub.figures.files >= 3)
            checked += scrub.figures.projects
        async with scrubbed(one) as scrub:
            position = await scrub.position()
            assert position.name == f"p{checked - 1:03}"
            await scrub.running.until(lambda: scrub.figures.oldest is not None)
            (kept,) = {(await scrub.position()).last_began}
            assert kept == position.began


async def test_it_goes_on_in_the_middle_of_a_project(tmp_path: Path) -> None:
    index = Index()
    files = [UploadedFile(f"large-1.{number}.zip", bytes([number]) * 30_000) for number in range(20)]
    for file in files:
        index.publish("large", file.filename[6:-4], file)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        read = 0
        async with scrubbed(one, bytes_per_second=300_000) as scrub:
            await scrub.running.until(lambda: scrub.figures.files >= 5)
        read += scrub.figures.files
        assert read < len(files)
        async with scrubbed(one, every_days=30) as scrub:
            assert (await scrub.position()).current == "large"
            await scrub.running.until(lambda: scrub.figures.projects)
            assert read + scrub.figures.files == len(files)


class Virtual(threading.Event):
    """Waiting costs nothing but virtual time."""

    now = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        Virtual.now += timeout or 0.0
        return self.is_set()


async def test_no_more_is_read_than_the_budget_allows(tmp_path: Path) -> None:
    """Bytes are counted as they are read, and the clock is one that goes on only while the budget has it wait."""
    async with following(many(5, size=300_000), tmp_path / "mirror") as one:
        await one.sync()
        clock = Virtual()
        Virtual.now = 0.0
        allowed, faster = 100_000, False

        class Counted(Budget):
            def take(self, count: int) -> None:
                super().take(count)
                if faster:
                    return
                assert self.bytes <= allowed * (Virtual.now + 1) + self.piece + 300_000

        budget = Counted(allowed, stop=clock, clock=lambda: Virtual.now)
        looker = Looker(one.config, budget)
        for number in range(5):
            assert looker.project(f"p{number:03}", "", lambda _: None).findings == []
        assert budget.bytes > 5 * 300_000
        assert Virtual.now >= (budget.bytes - 300_000) / allowed - 1
        faster = True
        budget.limit(10 * allowed)
        before, began = budget.bytes, Virtual.now
        looker.project("p000", "", lambda _: None)
        looker.project("p001", "", lambda _: None)
        assert Virtual.now - began < (budget.bytes - before) / allowed


async def test_what_cannot_be_repaired_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(rich_index(), tmp_path / "mirror", retries=1) as one:
        await one.sync()
        flip(wheel(one))
        one.server.fault("/packages/*", Status(500))
        caplog.set_level(logging.INFO, "heliostat.service.scrubber")
        async with scrubbed(one, again=0.01) as scrub:
            await scrub.running.until(lambda: scrub.figures.unrepaired)
            await scrub.rounds(5)
            ours = [record for record in caplog.records if record.name.endswith(".scrubber")]
            assert len([record for record in ours if wheel(one).name in record.getMessage()]) == 1
            assert len([record for record in ours if "could not be repaired" in record.getMessage()]) == 1
            assert sum(scrub.figures.found.values()) == 1
            (kept,) = (await scrub.position()).open
            assert kept.project == "beta"
            one.server.clear_faults()
            await scrub.running.until(lambda: not scrub.figures.unrepaired)
        assert differences(one.index, one.directory) == []
        assert not [path for path in listing(one.directory) if path.startswith("withheld/")]


async def test_beside_publishing_nothing_is_called_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "heliostat")
    async with following(many(10), tmp_path / "mirror") as one:
        await one.sync()
        async with scrubbed(one, pace=None, settings={"interval": 0.01}) as scrub:
            await scrub.rounds(1)
            for number in range(40):
                name = f"p{number % 10:03}"
                one.index.publish(name, f"2.{number}", UploadedFile(f"{name}-2.{number}.zip", os.urandom(2000)))
                if number % 7 == 3:
                    one.index.remove_release(name, "1.0") if number == 3 else None
                await asyncio.sleep(0.01)
            one.index.remove_project("p009")
            serial = one.index.serial
            await scrub.running.until(lambda: scrub.daemon.health.checkpoint >= serial)
            await scrub.rounds(2)
            assert scrub.figures.found == {}
            assert scrub.figures.trouble is None
        assert differences(one.index, one.directory) == []
        assert not [record for record in caplog.records if record.getMessage().startswith("scrub")]


async def test_it_waits_until_the_mirror_had_its_first_pass(tmp_path: Path) -> None:
    async with following(many(3), tmp_path / "mirror") as one, scrubbed(one) as scrub:
        await scrub.rounds(2)
        assert scrub.figures.found == {}
        assert served(one) == 3


async def test_traps_are_found_and_do_not_hold_it_up(tmp_path: Path) -> None:
    async with following(many(6), tmp_path / "mirror") as one:
        await one.sync()
        (outside := tmp_path / "outside").write_bytes(b"outside")
        trapped = [one.files(f"p{number:03}")[f"p{number:03}-1.0.zip"] for number in range(6)]
        for path in trapped[:5]:
            path.unlink()
        os.mkfifo(trapped[0])
        trapped[1].symlink_to(outside)
        trapped[2].symlink_to(trapped[2].name)
        trapped[3].mkdir()
        (trapped[3] / "in it").write_bytes(b"mine")
        with open(trapped[4], "wb") as sparse:
            sparse.truncate(1 << 40)
        (one.web / "simple/p005/index.v1_json").write_bytes(b"[" * (5 << 20))
        (one.web / "simple/p005/\x1b[31mstrange\n").write_bytes(b"")
        async with scrubbed(one) as scrub:
            await scrub.rounds(3)
            await scrub.running.until(lambda: scrub.figures.unrepaired == 1)
            (left,) = (await scrub.position()).open
            assert (left.kind, left.raw != "") == ("unreferenced", True)
        assert outside.read_bytes() == b"outside"
        (one.web / "simple/p005/\x1b[31mstrange\n").unlink()
        aside = one.directory / "withheld/damaged" / trapped[3].relative_to(one.web)
        assert (aside / "in it").read_bytes() == b"mine"
        shutil.rmtree(one.directory / "withheld/damaged")
        assert differences(one.index, one.directory) == []


async def test_it_reads_with_the_disks_idle_priority(tmp_path: Path) -> None:
    ioprio_get = {"x86_64": 252, "aarch64": 31, "riscv64": 31}[platform.machine()]

    def io_class(thread: int) -> int:
        return int(ctypes.CDLL(None).syscall(ioprio_get, 1, thread)) >> 13

    async with following(many(3), tmp_path / "mirror") as one:
        await one.sync()
        async with scrubbed(one) as scrub:
            await scrub.rounds(1)
            (ours,) = (thread for thread in threading.enumerate() if thread.name.startswith("heliostat-scrub"))
            assert ours.native_id is not None
            assert (io_class(ours.native_id), io_class(threading.get_native_id())) == (3, 0)


async def test_a_position_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    async with following(many(3), tmp_path / "mirror") as one:
        await one.sync()
        async with daemon_of(one) as running:
            await running.daemon.mirror.with_ledger(lambda ledger: ledger.put(scrub="{no"))
        async with scrubbed(one) as scrub:
            await scrub.rounds(2)
            assert scrub.figures.trouble is None


async def test_a_look_can_be_ended_at_any_time(tmp_path: Path) -> None:
    async with following(many(1), tmp_path / "mirror") as one:
        await one.sync()
        budget = Budget()
        looker = Looker(one.config, budget)
        budget.stop.set()
        with pytest.raises(Stopping):
            looker.project("p000", "", lambda _: None)
