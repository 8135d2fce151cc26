"""What lies in the way of one project, what nobody goes on with, and what ended the last pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Cut
from heliostat.mirror.status import read_status
from support.equality import differences
from support.mirrors import config_for, run_pass


def two_projects() -> Index:
    index = Index()
    for name in ("one", "two"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.tar.gz", name.encode()))
    return index


@pytest.mark.parametrize("path", ["web/simple/one", "web/pypi/one"])
async def test_a_file_in_the_way_holds_up_its_own_project_only(tmp_path: Path, path: str) -> None:
    await _held_up(tmp_path, path, "a file is in the way")


@pytest.mark.parametrize("path", ["web/json/one", "web/pypi/one/json", "web/simple/one/index.html"])
async def test_a_directory_in_the_way_holds_up_its_own_project_only(tmp_path: Path, path: str) -> None:
    await _held_up(tmp_path, path, "a directory is in the way")


async def _held_up(tmp_path: Path, path: str, reason: str) -> None:
    index, obstacle = two_projects(), tmp_path / path
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    if "file" in reason:
        obstacle.write_bytes(b"mine")
    else:
        obstacle.mkdir()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server)
        summary = await run_pass(config)
        assert [(owed.project, owed.state) for owed in summary.owed] == [("one", "failing")]
        assert reason in summary.owed[0].reason
        assert path in summary.owed[0].reason
        assert summary.store_error is None
        assert summary.projects == 1
        obstacle.unlink() if "file" in reason else obstacle.rmdir()
        assert (await run_pass(config)).complete
        assert differences(index, str(tmp_path)) == []


async def test_a_download_that_nobody_wants_any_more_goes_although_another_project_is_blocked(tmp_path: Path) -> None:
    index = two_projects()
    index.publish("bad", "1.0", UploadedFile("bad-1.0.tar.gz", b"x", url="http://192.0.2.1/bad-1.0.tar.gz"))
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(4 << 20, 5)))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server, retries=1)
        cut = server.fault("/packages/*/large-*", Cut(0.5))
        summary = await run_pass(config)
        assert {owed.project: owed.state for owed in summary.owed} == {"bad": "blocked", "large": "failing"}
        assert any((tmp_path / "partial").iterdir())
        cut.remove()
        index.remove_project("large")
        await run_pass(config)
        assert list((tmp_path / "partial").iterdir()) == []


async def test_a_download_is_kept_while_its_project_fails_before_it_comes_to_it(tmp_path: Path) -> None:
    index = Index()
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(4 << 20, 5)))
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server, retries=1)
        server.fault("/packages/*/large-*", Cut(0.5), times=1)
        await run_pass(config)
        server.fault("/simple/large/", Cut(0.5), times=1)
        await run_pass(config)
        server.reset_log()
        assert (await run_pass(config)).complete
        assert server.total_bytes < 3 << 20


async def test_status_says_what_ended_the_last_pass_until_one_ends_well(tmp_path: Path) -> None:
    index = two_projects()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path, server, retries=1)
        await run_pass(config)
        assert read_status(config).trouble is None
        await server.refuse_connections()
        await run_pass(config)
        trouble = read_status(config)
        assert trouble.trouble is not None
        assert trouble.trouble_since is not None
        await server.start()
        await run_pass(config)
        assert read_status(config).trouble is None
    other = two_projects()
    async with FakeIndex(other) as server:
        elsewhere = config_for(tmp_path, server)
        with pytest.raises(UpstreamChanged):
            await run_pass(elsewhere)
        assert "--full" in str(read_status(elsewhere).trouble)
