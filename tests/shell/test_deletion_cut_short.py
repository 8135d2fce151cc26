"""Deleting, restoring, and keeping out of reach, cut short at any instant: nothing is lost, nothing is left over."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from heliostat.mirror.run import Mirror
from heliostat.mirror.status import read_status
from heliostat.store.disk import Operations
from support.disks import BreakingDisk, Broken, RecordingDisk, Step, cuts
from support.equality import differences
from support.equality_removed import Removed
from support.invariants import broken_promises, unaccounted
from support.mirrors import Followed, following
from support.power import explained, opened
from support.volume import Volume
from support.zoo import animals

TRIES, SEED = 10, 20261125
#: What is deleted: a whole project, and a release of another one.
ENTRIES = ("ant", "bee==1.0")


async def broken_everywhere(
    one: Followed, action: Callable[[Operations | None], Awaitable[object]], check: Callable[[], Awaitable[None]]
) -> int:
    """Break at the first change, at the second...; ``check`` looks at what a next pass makes of it; how many there are."""
    before = Volume.of(one.config.mirror.directory)
    for good in itertools.count():
        try:
            await action(BreakingDisk(one.config.mirror.directory, good))
        except Broken:
            await one.sync()
            await check()
            shutil.rmtree(one.config.mirror.directory)
            before.make(one.config.mirror.directory)
        else:
            await check()
            return good
    raise AssertionError


def as_recorded(one: Followed, **kept: object) -> list[str]:
    """What differs from what the ledger says was deleted; ``kept`` of it must be out of reach."""
    deleted = read_status(one.config).deleted
    removed = Removed(denied=list(deleted), kept={entry: kept[entry] for entry in deleted})  # type: ignore[misc]
    return differences(one.index, one.directory, removed=removed)


async def test_a_delete_that_breaks_at_any_change(tmp_path: Path) -> None:
    async with following(animals(), tmp_path / "mirror", policy="withhold") as one:
        await one.sync()
        kept = {entry: one.index[entry.partition("==")[0]].copy() for entry in ENTRIES}

        async def check() -> None:
            assert as_recorded(one, **kept) == []

        points = await broken_everywhere(one, lambda disk: one.delete(*ENTRIES, disk=disk), check)
        assert points > 25
        assert sorted(read_status(one.config).deleted) == sorted(ENTRIES)


async def test_a_restore_that_breaks_at_any_change(tmp_path: Path) -> None:
    async with following(animals(), tmp_path / "mirror", policy="withhold") as one:
        await one.sync()
        kept = {entry: one.index[entry.partition("==")[0]].copy() for entry in ENTRIES}
        await one.delete(*ENTRIES)

        async def check() -> None:
            assert as_recorded(one, **kept) == []

        points = await broken_everywhere(one, lambda disk: one.restore(*ENTRIES, disk=disk), check)
        assert points > 25
        assert differences(one.index, one.directory) == []


async def test_bytes_whose_time_is_over_that_break_at_any_change(tmp_path: Path) -> None:
    async with following(animals(), tmp_path / "mirror", policy="withhold") as one:
        await one.sync()
        one.index.remove_project("ant")
        one.index.remove_release("bee", "1.0")
        await one.sync()
        one.configure(withhold_days=0.0)

        async def check() -> None:
            assert differences(one.index, one.directory) == []

        assert await broken_everywhere(one, lambda disk: one.sync(disk=disk), check) > 10


@pytest.mark.parametrize("policy", ["withhold", "retain", "propagate"])
async def test_no_promise_is_broken_wherever_the_power_goes(tmp_path: Path, policy: str) -> None:
    """Deleted, restored, removed upstream, restored against its will, and given up."""
    chance = random.Random(SEED)
    async with following(animals(), tmp_path / "mirror", policy=policy, batch_projects=2) as one:
        steps: list[Step] = []

        async def recorded(action: Callable[[Operations], Awaitable[object]]) -> None:
            disk = RecordingDisk(one.config.mirror.directory, f"{one.config.mirror.directory}/heliostat.db")
            await action(disk)
            disk.close()
            steps.extend(disk.steps)

        await recorded(lambda disk: one.sync(disk=disk))
        start = len(steps)
        await recorded(lambda disk: one.delete(*ENTRIES, disk=disk))
        await recorded(lambda disk: one.restore(*ENTRIES, disk=disk))
        one.index.remove_project("cat")
        one.index.remove_release("dog", "1.0")
        await recorded(lambda disk: one.sync(disk=disk))
        await recorded(lambda disk: one.restore("cat", "dog==1.0", disk=disk))
        one.configure(withhold_days=0.0, policy="propagate")
        await recorded(lambda disk: one.sync(disk=disk))
        await recorded(lambda disk: one.delete("cat", "dog==1.0", disk=disk))
        seen, gone = 0, {"ant", "cat"}
        every = [cut for cut in cuts(steps) if cut.number > start]
        for cut in every:
            for _ in range(TRIES if cut.pending else 1):
                left, seen = cut.left(chance), seen + 1
                found = broken_promises(left, strict=False, gone=gone)
                if cut.ledger is not None:
                    found += unaccounted(left, opened(cut.ledger), gone=gone)
                assert not found, explained(steps, cut, found)
        assert seen > 200
        for number, cut in enumerate(chance.sample(every, 20)):
            directory = tmp_path / f"left-{number}"
            cut.left(chance).make(directory)
            assert cut.ledger is not None
            (directory / "heliostat.db").write_bytes(cut.ledger)
            one.configure(directory=str(directory))
            async with Mirror.open(one.config):
                pass
            await one.delete("cat", "dog==1.0", "ant", "bee==1.0", purge=True)
            await one.sync()
            removed = Removed(denied=["ant", "bee==1.0"])  # the index has nothing of the others
            assert differences(one.index, directory, removed=removed) == [], cut.number
