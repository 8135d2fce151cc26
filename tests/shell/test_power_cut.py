"""The power goes, or the disk breaks, after any change on disk: the tree stays honest and the next pass completes it.

What is checked is said in docs/durability.md.  One long record is made of passes that do all there is to do; it is
replayed up to each of its steps, with what was not synced there or not, at random.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import NamedTuple

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import provenance_for
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.run import Mirror
from heliostat.state.ledger import Ledger
from support.disks import BreakingDisk, Broken, Cut, RecordingDisk, Step, cuts
from support.equality import differences
from support.invariants import broken_promises, unaccounted
from support.mirrors import complete_pass, config_for
from support.power import explained, opened
from support.volume import Volume

#: Outcomes of each cut that are looked at, and outcomes in all that are completed by a real pass.
TRIES, COMPLETED = 10, 60
SEED = 20260902


def first_index() -> Index:
    index = Index()
    for version in ("1.0", "1.1"):
        for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"):
            publish(index, name, version)
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(3 << 20, 5)))
    index.publish("beta", "9.0", odd())
    return index


def odd() -> UploadedFile:
    """A file of several projects, whose name tells of none."""
    return UploadedFile("odd.zip", b"the same bytes", sidecar=b"Name: odd\n", upload_time="2026-02-03T04:05:06.000000Z")


def publish(index: Index, name: str, version: str) -> None:
    built, source = wheel(name, version), sdist(name, version)
    uploaded = UploadedFile(built.filename, built.data, sidecar=built.metadata)
    if name == "alpha":
        uploaded.provenance = provenance_for(uploaded)
    index.publish(name, version, [uploaded, UploadedFile(source.filename, source.data)])


def update(index: Index) -> None:
    """New, dropped, shared and yanked files; a release in quarantine, and a project."""
    index.publish("gamma", "9.0", odd())
    publish(index, "alpha", "2.0")
    index.remove_release("beta", "1.0")
    publish(index, "beta", "1.2")
    index.yank("gamma", "1.0", "because")
    index.quarantine_release("delta", "1.1")
    index.quarantine("alpha")
    publish(index, "theta", "1.0")
    index.publish("large", "2.0", UploadedFile("large-2.0.tar.gz", Virtual(2 << 20, 6)))


def remove(index: Index) -> None:
    """A project goes, a file goes, another one changes hands or is uploaded again, quarantines end."""
    index.remove_release("beta", "9.0")
    index.remove_release("gamma", "9.0")
    index.publish("eta", "9.0", odd())
    again = sdist("eta", "1.0")
    index.remove_file("eta", "1.0", again.filename)
    index.publish("eta", "1.0", UploadedFile(again.filename, again.data))
    index.remove_project("epsilon")
    name = sdist("zeta", "1.0").filename
    index.remove_file("zeta", "1.0", name)
    index.clear_quarantine("alpha")
    index.clear_release_quarantine("delta", "1.1")
    publish(index, "eta", "1.2")


CHANGES: tuple[Callable[[Index], None], ...] = (lambda index: None, update, remove)
#: Removed upstream before that pass, so that their pages may be gone from there on.
GONE = {2: frozenset({"epsilon"})}


class Recorded(NamedTuple):
    server: FakeIndex
    steps: list[Step]
    #: Where each pass begins.
    starts: list[int]

    def gone(self, cut: Cut) -> frozenset[str]:
        number = sum(1 for start in self.starts if start < cut.number) - 1
        return frozenset().union(*(names for since, names in GONE.items() if number >= since))


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[Recorded]:
    """All the passes, and the index as they left it, still running."""
    async with FakeIndex(first_index()) as server:
        config = settings(tmp_path / "recorded", server)
        steps: list[Step] = []
        starts: list[int] = []
        for change in CHANGES:
            change(server.index)
            starts.append(len(steps))
            disk = RecordingDisk(config.mirror.directory, f"{config.mirror.directory}/heliostat.db")
            await complete_pass(config, disk=disk)
            disk.close()
            steps += disk.steps
        assert differences(server.index, config.mirror.directory) == []
        yield Recorded(server, steps, starts)


def settings(directory: Path, server: FakeIndex) -> Config:
    """Small batches, so that there are several in each pass; and all files that there may be."""
    return config_for(directory, server, batch_projects=3, projects_at_once=4, gzip_root=True)


async def test_no_promise_is_broken_wherever_the_power_goes(recorded: Recorded) -> None:
    chance = random.Random(SEED)
    seen = 0
    for cut in cuts(recorded.steps):
        for _ in range(TRIES if cut.pending else 1):
            left, seen = cut.left(chance), seen + 1
            found = broken_promises(left, strict=not cut.pending, gone=recorded.gone(cut))
            if cut.ledger is not None:
                found += unaccounted(left, opened(cut.ledger), gone=recorded.gone(cut))
            assert not found, explained(recorded.steps, cut, found)
    assert seen > 1000


async def test_the_next_pass_completes_what_the_power_left(recorded: Recorded, tmp_path: Path) -> None:
    chance = random.Random(SEED + 1)
    every = list(cuts(recorded.steps))
    for number, cut in enumerate(sorted(chance.sample(every, COMPLETED), key=lambda cut: cut.number)):
        left = cut.left(chance)
        await completed(cut, left, tmp_path / f"left-{number}", recorded.server, gone=recorded.gone(cut))


async def test_one_form_of_a_page_is_new_and_the_other_old(recorded: Recorded, tmp_path: Path) -> None:
    number = 0
    for cut, following in itertools.pairwise(cuts(recorded.steps)):
        shows = any(step.verb == "replace" and "web/simple/" in step.arguments[1] for step in cut.pending)
        for ending in ("_json", "html") if shows and not following.pending else ():
            left = cut.left_if(functools.partial(data_of, ending=ending))
            assert broken_promises(left, strict=False, gone=recorded.gone(cut)) == []
            await completed(cut, left, tmp_path / f"left-{number}", recorded.server, gone=recorded.gone(cut))
            number += 1
    assert number > 10


def data_of(step: Step, ending: str) -> bytes | None:
    """The data of a step for a path that ends so; None for others."""
    return step.data if step.arguments[-1].endswith(ending) else None


async def test_a_rebuild_may_lose_the_power_too(tmp_path: Path) -> None:
    """Without a ledger it is made anew from the pages, and pages that another version wrote are written anew too."""
    chance = random.Random(SEED + 2)
    async with FakeIndex(first_index()) as server:
        config = settings(tmp_path / "mirror", server)
        await complete_pass(config)
        before = Volume.of(config.mirror.directory)
        for path in list(before.nodes):
            if path.startswith("heliostat.db"):
                del before.nodes[path]
            elif path.startswith("web/simple/") and not path.endswith("_json"):
                before.nodes[path].data = before.nodes[path].data.replace(b"<!DOCTYPE", b"<!-- old --><!DOCTYPE")
        old = settings(tmp_path / "old", server)
        shutil.rmtree(old.mirror.directory)
        before.make(old.mirror.directory)
        disk = RecordingDisk(old.mirror.directory, f"{old.mirror.directory}/heliostat.db")
        await complete_pass(old, disk=disk)
        disk.close()
        every = list(cuts(disk.steps, before))
        for cut in every:
            for _ in range(TRIES):
                found = broken_promises(cut.left(chance), strict=True)
                assert not found, explained(disk.steps, cut, found)
        for number, cut in enumerate(chance.sample(every, 10)):
            await completed(cut, cut.left(chance), tmp_path / f"left-{number}", server)


async def test_killed_just_after_it_made_the_ledger(tmp_path: Path) -> None:
    """A new ledger over a tree that is not empty is never taken for a first run."""
    async with FakeIndex(first_index()) as server:
        config = settings(tmp_path / "mirror", server)
        await complete_pass(config)
        database = f"{config.mirror.directory}/heliostat.db"
        os.unlink(database)
        Ledger(database).close()
        server.index.remove_project("beta")
        assert (await complete_pass(config)).removed == 1
        assert differences(server.index, config.mirror.directory) == []


async def test_a_disk_that_breaks_at_any_change(tmp_path: Path) -> None:
    """A plain exception, from that change on: clean-up fails as well.  Then the disk is whole again."""
    index = Index()
    for name in ("alpha", "beta", "gamma"):
        publish(index, name, "1.0")
    async with FakeIndex(index) as server:
        config = settings(tmp_path / "mirror", server)
        points = await broken_everywhere(config, server)
        index.publish("beta", "1.1", UploadedFile("beta-1.1.tar.gz", Virtual(2 << 20, 7)))
        index.remove_release("alpha", "1.0")
        index.remove_project("gamma")
        points += await broken_everywhere(config, server)
        assert points > 60


async def broken_everywhere(config: Config, server: FakeIndex) -> int:
    """Break at the first change, at the second...; from each the next pass completes.  How many changes there are."""
    before = Volume.of(config.mirror.directory)
    for good in itertools.count():
        disk = BreakingDisk(config.mirror.directory, good)
        try:
            await complete_pass(config, disk=disk)
        except Broken:
            await complete_pass(config)
            assert differences(server.index, config.mirror.directory) == [], good
            shutil.rmtree(config.mirror.directory)
            before.make(config.mirror.directory)
        else:
            return good
    raise AssertionError


async def completed(cut: Cut, left: Volume, directory: Path, server: FakeIndex, *, gone: Collection[str] = ()) -> None:
    """What the cut left, on a real disk, and one real pass over it: equal.  A start alone breaks no promise either."""
    left.make(directory)
    if cut.ledger is not None:
        (directory / "heliostat.db").write_bytes(cut.ledger)
    config = settings(directory, server)
    async with Mirror.open(config):
        pass
    assert broken_promises(Volume.of(directory), strict=False, gone=gone) == [], cut.number
    await complete_pass(config)
    found = differences(server.index, directory)
    assert not found, [cut.number, *found]
    assert list((directory / "partial").iterdir()) == []
