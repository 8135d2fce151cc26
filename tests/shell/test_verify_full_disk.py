"""Repairs on a disk that is nearly full: what is in place is counted, and makes room for the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from heliostat.errors import DiskFull
from heliostat.fakeindex import Index, UploadedFile
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.mirror.verify.result import Repaired
from support.damages import flip
from support.disks import Step, WatchedDisk
from support.equality import differences
from support.mirrors import Followed, following
from support.verified import Verified, verify

PROJECTS, FILE = 20, 20_000
FOLDERS = ("web/packages", "withheld", "partial")


class FullDisk(WatchedDisk):
    """One on which there is room for so many bytes of release files more than there are now."""

    def __init__(self, root: str, room: int) -> None:
        super().__init__(root)
        self._most = self._used() + room

    def _used(self) -> int:
        found = (path.lstat().st_size for folder in FOLDERS for path in Path(self.root, folder).rglob("*"))
        return sum(size for size in found if size == FILE)

    def before(self, step: Step) -> None:
        if step.verb == "write" and len(step.data) == FILE and self._used() + len(step.data) > self._most:
            raise DiskFull("write", step.arguments[0], "No space left on device")


async def repaired_with(room: int, one: Followed) -> tuple[Verified, Repaired]:
    """What a repair does that has room for so many bytes."""
    seen, _ = await verify(one.config)
    async with Mirror.open(one.config, disk=FullDisk(one.config.mirror.directory, room)) as mirror:
        done = await mirror.repair(lambda: seen.findings, counters=Counters(), stop=asyncio.Event())
    return seen, done


@pytest.mark.parametrize("some", [FILE * 5 + FILE // 2, FILE + FILE // 2])
async def test_what_is_repaired_makes_room_for_the_rest(some: int, tmp_path: Path) -> None:
    index = Index()
    for number in range(PROJECTS):
        index.publish(f"p{number}", "1.0", UploadedFile(f"p{number}-1.0.zip", bytes([number]) * FILE))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        for number in range(PROJECTS):
            flip(one.files(f"p{number}")[f"p{number}-1.0.zip"])
        seen, done = await repaired_with(some, one)
        assert len(seen.findings) == PROJECTS
        assert (done.left, done.store_error) == (0, None)
        assert not list((one.directory / "withheld").rglob("*.zip"))
        assert differences(one.index, one.directory) == []


async def test_what_does_not_fit_is_left_and_what_was_done_is_told(tmp_path: Path) -> None:
    """Damaged files that were cut to nothing make no room when they go."""
    index = Index()
    for number in range(PROJECTS):
        index.publish(f"p{number}", "1.0", UploadedFile(f"p{number}-1.0.zip", bytes([number]) * FILE))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        for number in range(PROJECTS):
            one.files(f"p{number}")[f"p{number}-1.0.zip"].write_bytes(b"")
        _, done = await repaired_with(FILE * 5, one)
        kept = list((one.directory / "withheld").rglob("*.zip"))
        seen, _ = await verify(one.config)
        assert done.store_error is not None
        assert 0 < len(done.fixed) < PROJECTS
        assert done.left == len(seen.findings) == len(kept)
