"""An interrupted verify goes on where it was, and finds what an uninterrupted one finds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.mirror.report import Counters
from heliostat.mirror.verify import run as verify_run
from heliostat.mirror.verify.sorter import Sorter
from support.mirrors import Followed, following
from support.verified import verify


def many(count: int = 120) -> Index:
    index = Index()
    for number in range(count):
        name = f"project-{number}"
        index.publish(name, "1.0", UploadedFile(f"project_{number}-1.0.zip", os.urandom(2000)))
    return index


def damage(one: Followed) -> None:
    for number in range(0, 120, 10):
        name = f"project-{number}"
        (file,) = one.files(name).values()
        file.write_bytes(b"x" * 2000)
    (one.web / "simple/project-5/index.v1_json").write_bytes(b"{")


class StopsAt(asyncio.Event):
    """Is set as soon as it has been looked at so often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def is_set(self) -> bool:
        self._left -= 1
        if self._left <= 0:
            self.set()
        return super().is_set()


async def test_at_whatever_instant_it_is_ended(tmp_path: Path) -> None:
    async with following(many(), tmp_path / "mirror") as one:
        await one.sync()
        damage(one)
        whole, _ = await verify(one.web)
        assert len(whole.findings) == 13
        interrupted = resumed = 0
        for looks in range(2, 40, 3):
            folder = tmp_path / f"state-{looks}"
            for turn in range(60):
                seen, _ = await verify(one.web, folder=folder, stop=StopsAt(looks + turn))
                resumed += seen.result.resumed
                if not seen.result.interrupted:
                    break
                interrupted += 1
            assert seen.findings == whole.findings
            assert (seen.result.projects, seen.result.files) == (whole.result.projects, whole.result.files)
        assert interrupted > 10
        assert resumed > 5


async def test_another_question_begins_anew(tmp_path: Path) -> None:
    async with following(many(), tmp_path / "mirror") as one:
        await one.sync()
        folder = tmp_path / "state"
        seen, _ = await verify(one.web, folder=folder, stop=StopsAt(8))
        assert seen.result.interrupted
        seen, _ = await verify(one.web, folder=folder, quick=True)
        assert not seen.result.resumed
        assert seen.result.files == 120


async def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    async with following(many(1), tmp_path / "mirror") as one:
        await one.sync()
        folder = tmp_path / "state"
        folder.mkdir()
        (folder / "precious").write_bytes(b"x")
        with pytest.raises(StoreError, match="precious"):
            await verify(one.web, folder=folder)
        assert (folder / "precious").exists()


async def test_a_sample_takes_so_many_and_others_another_time(tmp_path: Path) -> None:
    async with following(many(), tmp_path / "mirror") as one:
        await one.sync()
        damage(one)
        some, _ = await verify(one.web, sample_most=30)
        assert some.result.hashed == 30
        assert some.result.files == 120
        share, _ = await verify(one.web, sample_share=0.5)
        assert 20 < share.result.hashed < 100
        nothing, _ = await verify(one.web, sample_most=0)
        assert {found.kind for found in nothing.findings} == {"page"}
        quick, _ = await verify(one.web, quick=True)
        assert (quick.result.hashed, {found.kind for found in quick.findings}) == (0, {"page"})


async def test_some_projects_only(tmp_path: Path) -> None:
    async with following(many(), tmp_path / "mirror") as one:
        await one.sync()
        damage(one)
        (one.web / "packages/stray").write_bytes(b"x")
        for where in (one.config, one.web):
            seen, _ = await verify(where, projects=("project-10", "project-11"))
            assert (seen.result.projects, [found.project for found in seen.findings]) == (2, ["project-10"])
            serial = one.page("project-110")["meta"]["_last-serial"]
            seen, _ = await verify(where, since_serial=serial - 1)
            assert seen.result.projects == 10
            assert [found.project for found in seen.findings] == ["project-110"]
        page = one.web / "simple/project-3/index.v1_json"
        os.utime(page, (4_000_000_000, 4_000_000_000))
        seen, _ = await verify(one.web, since_time=3_000_000_000.0)
        assert seen.result.projects == 1
        seen, _ = await verify(one.config, projects=("unknown",))
        assert seen.findings == []


async def test_no_faster_than_asked(tmp_path: Path) -> None:
    """The budget is kept by waiting: its clock is looked at, not ours."""
    async with following(many(10), tmp_path / "mirror") as one:
        await one.sync()
        counters = Counters()
        seen, _ = await verify(one.web, rate=200_000, counters=counters)
        assert seen.findings == []
        assert seen.result.seconds >= (seen.result.bytes - 100_000) / 200_000


def test_lines_come_in_order_whatever_their_number(tmp_path: Path) -> None:
    sorter = Sorter(str(tmp_path), "lines")
    lines = [b"%d" % (number * 7919 % 3001) for number in range(9000)]
    for start in range(0, 9000, 90):
        sorter.add(lines[start : start + 90])
        sorter.flush()
    assert sorter.runs == 100
    assert list(sorter.sorted()) == sorted(set(lines))
    assert list(sorter.sorted()) == sorted(set(lines))
    sorter.discard()
    assert os.listdir(tmp_path) == []


def test_positions_are_noted_often_enough() -> None:
    assert verify_run._EVERY <= 10
