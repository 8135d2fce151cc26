"""Files with the same bytes under different names: they share a digest, but neither a place nor a download."""

from __future__ import annotations

from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from support.equality import differences
from support.mirrors import config_for, run_pass

LARGE = 3 << 20


async def test_large_twins_in_one_project_and_in_two_are_all_mirrored(tmp_path: Path) -> None:
    index = Index()
    twin = Virtual(LARGE, 7)
    index.publish("one", "1.0", [UploadedFile("one-1.0.tar.gz", twin), UploadedFile("one-1.0.zip", twin)])
    index.publish("two", "1.0", UploadedFile("two-1.0.tar.gz", twin))
    index.publish("three", "1.0", UploadedFile("three-1.0.tar.gz", b"small"))
    async with FakeIndex(index) as server:
        summary = await run_pass(config_for(tmp_path, server))
        assert summary.complete, summary
        assert summary.store_error is None
        assert differences(index, str(tmp_path)) == []
        again = await run_pass(config_for(tmp_path, server))
        assert again.requests == 1


async def test_a_file_that_cannot_fit_stops_its_own_project_only(tmp_path: Path) -> None:
    index = Index()
    index.publish("absurd", "1.0", UploadedFile("absurd-1.0.tar.gz", Virtual(3 << 20, 1), stated_size=10**15))
    index.publish("small", "1.0", UploadedFile("small-1.0.tar.gz", b"small"))
    async with FakeIndex(index) as server:
        summary = await run_pass(config_for(tmp_path, server))
        assert [(owed.project, owed.state) for owed in summary.owed] == [("absurd", "failing")]
        assert "file system" in summary.owed[0].reason
        assert summary.store_error is None
        assert summary.projects == 1
