"""What a pass that broke off had placed and nobody wants any more: it goes, however it came to be unwanted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.synthetic import small_index
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.run import Mirror
from heliostat.store.disk import Disk
from support.disks import BreakingDisk, Broken, Step
from support.equality import differences
from support.mirrors import changed, complete_pass, config_for, following, run_pass
from support.verified import findings


class BreaksAtPages(BreakingDisk):
    """Breaks when the first page of a project is to be shown: its files are in place by then."""

    def __init__(self, root: str, project: str) -> None:
        super().__init__(root, 1_000_000)
        self._page = f"web/simple/{project}/"

    def before(self, step: Step) -> None:
        if step.verb == "replace" and step.arguments[1].startswith(self._page):
            self.left = 0
        super().before(step)


class BreaksAfterPages(BreakingDisk):
    """Breaks when all pages of a project are shown, and nothing is recorded yet."""

    def __init__(self, root: str, project: str) -> None:
        super().__init__(root, 1_000_000)
        self._page = f"web/simple/{project}/index.v1_json"

    def after(self, step: Step) -> None:
        if step.verb == "replace" and step.arguments[1] == self._page:
            self.left = 0


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in ("alpha", "beta", "gamma", "delta", "epsilon"):
        publish(index, name, "1.0")
    async with FakeIndex(index) as server:
        yield server


def publish(index: Index, name: str, version: str) -> None:
    built = wheel(name, version)
    index.publish(name, version, UploadedFile(built.filename, built.data, sidecar=built.metadata))


@pytest.fixture
def config(tmp_path: Path, upstream: FakeIndex) -> Config:
    return config_for(tmp_path / "pypi", upstream)


async def broken_off(config: Config, project: str, *names: str) -> None:
    with pytest.raises(Broken):
        await run_pass(config, *names, disk=BreaksAtPages(config.mirror.directory, project))
    assert list(Path(config.mirror.directory, "web/packages").glob(f"*/*/*/{project}-*")) != []


async def test_it_left_the_scope(config: Config, upstream: FakeIndex) -> None:
    upstream.index.journal_row("not a name", None, "create")
    await broken_off(changed(config, everything=False, projects=("alpha", "beta")), "beta")
    config = changed(config, everything=False, projects=("alpha",))
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory, only=["alpha"]) == []


async def test_it_left_the_scope_and_never_had_a_file(config: Config, upstream: FakeIndex) -> None:
    upstream.index.create("empty")
    config = changed(config, everything=False, projects=("alpha", "empty"))
    with pytest.raises(Broken):
        await run_pass(config, disk=BreaksAfterPages(config.mirror.directory, "empty"))
    assert Path(config.mirror.directory, "web/simple/empty/index.v1_json").exists()
    config = changed(config, projects=("alpha",))
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory, only=["alpha"]) == []


async def test_it_was_removed_upstream(config: Config, upstream: FakeIndex) -> None:
    await broken_off(config, "beta")
    upstream.index.remove_project("beta")
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []


async def test_it_was_asked_for_by_name_and_removed_upstream(config: Config, upstream: FakeIndex) -> None:
    config = changed(config, everything=False, projects=("alpha",))
    await complete_pass(config)
    await broken_off(config, "beta", "beta")
    upstream.index.remove_project("beta")
    assert (await run_pass(config, "beta")).unknown == ["beta"]
    assert differences(upstream.index, config.mirror.directory, only=["alpha"]) == []


async def test_the_file_was_removed_upstream(config: Config, upstream: FakeIndex) -> None:
    await broken_off(config, "beta")
    filename = wheel("beta", "1.0").filename
    upstream.index.remove_file("beta", "1.0", filename)
    publish(upstream.index, "beta", "2.0")
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []


async def test_it_was_quarantined_upstream_and_came_back(config: Config, upstream: FakeIndex) -> None:
    await broken_off(config, "beta")
    upstream.index.quarantine("beta")
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []
    upstream.index.clear_quarantine("beta")
    upstream.reset_log()
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []
    assert upstream.count("/packages/*") == 0  # the bytes were kept


async def test_its_quarantine_ended_in_a_pass_that_broke_off(config: Config, upstream: FakeIndex) -> None:
    await complete_pass(config)
    upstream.index.quarantine("beta")
    await complete_pass(config)
    upstream.index.clear_quarantine("beta")
    await broken_off(config, "beta")
    upstream.index.quarantine("beta")
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []
    upstream.index.remove_project("beta")
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []


class BreaksBeforeTheDocument(Disk):
    """Breaks when the link to a project's document is to go: its page is written by then, its document still there."""

    def unlink(self, path: str) -> bool:
        if path == "web/pypi/beta/json":
            raise Broken
        return super().unlink(path)


@pytest.mark.parametrize("how", ["quarantined", "removed"])
async def test_a_document_never_names_bytes_that_went(config: Config, upstream: FakeIndex, how: str) -> None:
    await complete_pass(config)
    if how == "removed":
        upstream.index.remove_project("beta")
    else:
        upstream.index.quarantine("beta")
    with pytest.raises(Broken):
        await run_pass(config, disk=BreaksBeforeTheDocument(config.mirror.directory))
    web = Path(config.mirror.directory, "web")
    assert (web / "json" / "beta").exists()
    async with Mirror.open(config):
        assert not list(web.glob("packages/*/*/*/beta-*"))
        assert not (web / "json" / "beta").exists()
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []


async def test_what_is_no_temporary_holds_nothing_up(tmp_path: Path) -> None:
    """Directories are kept aside, with what is in them; links and pipes go."""
    async with following(small_index(), tmp_path / "mirror") as one:
        partial, outside = one.directory / "partial", tmp_path / "outside"
        outside.write_bytes(b"not ours")
        for name in ("page-1", "staged-1", "dd", "sha256-00.part"):
            (partial / name).mkdir(parents=True)
            (partial / name / "x").write_bytes(name.encode())
        (partial / "empty").mkdir()
        (partial / "sha256-11.part").symlink_to(outside)
        os.mkfifo(partial / "sha256-22.part")
        await one.sync()
        assert await findings(one.config) == []
        assert list(partial.iterdir()) == []
        aside = one.directory / "withheld/damaged/in-the-way"
        assert {path.read_bytes() for path in aside.glob("*/x")} == {b"page-1", b"staged-1", b"dd", b"sha256-00.part"}
        assert outside.read_bytes() == b"not ours"
