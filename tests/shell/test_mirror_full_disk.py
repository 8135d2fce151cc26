"""A batch for which the disk is too full is published in parts: what fits is kept, and counted as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.errors import DiskFull
from heliostat.fakeindex import Index, UploadedFile, Virtual
from support.disks import Step, WatchedDisk
from support.equality import differences
from support.mirrors import Followed, following

PROJECTS, FILE = 24, 20_000


class SmallDisk(WatchedDisk):
    """One that holds only so many bytes."""

    def __init__(self, root: str, most: int) -> None:
        super().__init__(root)
        self._most, self._sizes = most, dict[str, int]()

    def before(self, step: Step) -> None:
        if step.verb == "write" and sum(self._sizes.values()) + len(step.data) > self._most:
            Path(self.root, step.arguments[0]).write_bytes(b"as much as there was room for")
            self._sizes[step.arguments[0]] = 0
            raise DiskFull("write", step.arguments[0], "No space left on device")

    def after(self, step: Step) -> None:
        if step.verb == "write":
            self._sizes[step.arguments[0]] = len(step.data)
        elif step.verb == "unlink":
            self._sizes.pop(step.arguments[0], None)
        elif step.verb == "replace" and step.arguments[0] in self._sizes:
            self._sizes[step.arguments[1]] = self._sizes.pop(step.arguments[0])


class FullForAMoment(WatchedDisk):
    """Of the steps of a batch, the one of that number finds the disk full."""

    def __init__(self, root: str, number: int) -> None:
        super().__init__(root)
        self.left = number

    def before(self, step: Step) -> None:
        if any("/page-" in argument for argument in step.arguments) and step.verb != "unlink":
            self.left -= 1
            if self.left == 0:
                raise DiskFull(step.verb, step.arguments[0], "No space left on device")


def index() -> Index:
    made = Index()
    for number in range(PROJECTS):
        filename = f"project_{number}-1.0-py3-none-any.whl"
        file = UploadedFile(filename, Virtual(FILE, number), sidecar=b"Name: project\n")
        made.publish(f"project-{number}", "1.0", file)
    return made


def in_place(one: Followed) -> int:
    return sum(path.is_file() for path in (one.web / "packages").rglob("*"))


def published(one: Followed) -> int:
    return len(list((one.web / "simple").glob("*/index.html")))


def nothing_left(one: Followed) -> bool:
    return list((one.directory / "partial").iterdir()) == []


async def test_half_of_a_batch_fits(tmp_path: Path) -> None:
    async with following(index(), tmp_path, batch_seconds=5.0) as one:
        summary = await one.attempt(disk=SmallDisk(str(tmp_path), PROJECTS * FILE // 2))
        assert summary.store_error is not None
        assert "No space left" in summary.store_error
        assert PROJECTS // 4 < published(one) < PROJECTS // 2
        assert (summary.added, summary.projects) == (published(one), published(one))
        assert summary.files_added == in_place(one) == 2 * published(one)
        assert nothing_left(one)
        before = one.server.count("/packages/*")
        await one.sync()
        assert one.server.count("/packages/*") - before == 2 * (PROJECTS - summary.added)
        assert differences(one.index, tmp_path) == []


async def test_nothing_fits(tmp_path: Path) -> None:
    async with following(index(), tmp_path, batch_seconds=5.0) as one:
        summary = await one.attempt(disk=SmallDisk(str(tmp_path), FILE // 2))
        assert summary.store_error is not None
        assert (summary.added, summary.files_added, in_place(one)) == (0, 0, 0)
        assert nothing_left(one)
        await one.sync()
        assert differences(one.index, tmp_path) == []


@pytest.mark.parametrize("number", [1, 30, 48, 49, 100, 120, 130, 160, 200, 230, 250])
async def test_it_is_full_at_any_step(number: int, tmp_path: Path) -> None:
    """Also when a part of the batch is in place already: first of new projects, then of those that are shown."""
    async with following(index(), tmp_path, batch_seconds=5.0) as one:
        for release in ("1.0", "2.0"):
            for project in range(PROJECTS) if release == "2.0" else ():
                one.index.publish(
                    f"project-{project}", release, UploadedFile(f"project_{project}-2.0.zip", Virtual(100, project))
                )
            disk = FullForAMoment(str(tmp_path), number)
            summary = await one.sync(disk=disk)
            assert disk.left < 0 or release == "2.0"
            assert summary.files_added == (2 * PROJECTS if release == "1.0" else PROJECTS)
            assert nothing_left(one)
            assert differences(one.index, tmp_path) == []
