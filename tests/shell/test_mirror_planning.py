"""``--dry-run``: what a pass would do, with the right counts, and not one byte written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import Config
from heliostat.errors import StateError, UpstreamChanged, UpstreamError
from heliostat.fakeindex import FakeIndex, UploadedFile, Virtual
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import small_index, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.planning import plan_pass
from heliostat.mirror.report import Counters, Plan
from heliostat.mirror.run import Mirror
from support.equality import differences
from support.mirrors import changed, config_for, following, listing


async def plan(config: Config, *names: str, **options: Any) -> Plan:
    """A plan; nothing may be different on disk afterwards, not even the lock."""
    directory = Path(config.mirror.directory)
    before = listing(directory), sorted(directory.rglob("*"))
    made = await plan_pass(config, names=names, counters=Counters(), stop=asyncio.Event(), **options)
    assert (listing(directory), sorted(directory.rglob("*"))) == before
    return made


async def test_the_plan_of_a_first_run_is_what_it_then_does(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        made = await plan(one.config)
        assert list(tmp_path.iterdir()) == []
        assert (made.updates, made.removals, made.problems) == ([], [], [])
        files = [expected.file for name in one.index.projects() for expected in one.index.expected_files(name)]
        assert made.free_bytes > 0
        assert one.server.count("/packages/*") == 0
        summary = await one.sync()
        assert made.adds == sorted(path.name for path in (tmp_path / "web/simple").iterdir() if path.is_dir())
        # The two projects that share a file are planned each for itself.
        assert made.files == summary.files_added + 1
        assert made.bytes == sum(file.size for file in files)


async def test_a_missing_directory_stays_missing(tmp_path: Path) -> None:
    async with FakeIndex(small_index()) as server:
        config = config_for(tmp_path / "here", server)
        config = changed(config, directory=str(tmp_path / "not-there"))
        made = await plan(config)
        assert len(made.adds) == 26
        assert made.free_bytes > 0
        assert not (tmp_path / "not-there").exists()


async def test_the_plan_of_an_update(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.touch("zeta")
        await one.sync()
        made = await plan(one.config)
        assert (made.adds, made.updates, made.removals, made.files, made.bytes) == ([], [], [], 0, 0)
        new = [uploaded(wheel("alpha", "2.0")), uploaded(sdist("alpha", "2.0"))]
        one.index.publish("alpha", "2.0", new)
        one.index.publish("brand-new", "1.0", [UploadedFile("brand-new-1.0.zip", Virtual(3 << 20, 1))])
        one.index.yank("zeta", "1!3.1")
        one.index.remove_project("old")
        one.index.quarantine("signed")
        made = await plan(one.config)
        assert made.adds == ["brand-new"]
        assert made.updates == ["alpha", "signed", "zeta"]
        assert made.removals == ["old"]
        assert made.files == 4  # three files and a sidecar
        assert made.bytes == (3 << 20) + sum(file.size for file in new)
        summary = await one.sync()
        assert (summary.added, summary.updated, summary.removed) == (1, 3, 1)
        assert summary.files_added == made.files
        assert differences(one.index, tmp_path) == []


async def test_the_plan_of_names(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha",)) as one:
        await one.sync()
        made = await plan(one.config, "Zeta", "alpha", "unicorn")
        assert (made.adds, made.updates) == (["zeta"], ["alpha"])
        assert [(problem.project, problem.state) for problem in made.problems] == [("unicorn", "failing")]
        assert one.server.count("/simple/") == 0


async def test_the_plan_of_another_scope(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha", "zeta")) as one:
        await one.sync()
        one.configure(projects=("alpha", "signed"))
        made = await plan(one.config)
        assert (made.adds, made.removals) == (["signed"], ["zeta"])
        await one.sync(allow_removals=1)
        one.configure(everything=True, projects=())
        made = await plan(one.config)
        assert len(made.adds) == 24
        assert made.removals == []


async def test_projects_that_cannot_be_looked_at_are_problems(tmp_path: Path) -> None:
    index = small_index()
    index.publish("bare", "1.0", [UploadedFile("bare-1.0.zip", b"no hash", hashes="none")])
    index.publish("far", "1.0", [UploadedFile("far-1.0.zip", b"far", url="http://elsewhere.invalid/far-1.0.zip")])
    async with following(index, tmp_path, retries=1) as one:
        one.server.fault("/simple/alpha/", Status(503))
        made = await plan(one.config)
        problems = {problem.project: problem.state for problem in made.problems}
        assert problems == {"alpha": "failing", "bare": "blocked", "far": "blocked"}
        assert not {"alpha", "bare", "far"} & set(made.adds)


async def test_provenance_objects_are_counted(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("signed",)) as one:
        assert (await plan(one.config)).files == 3
        one.configure(provenance=False)
        assert (await plan(one.config)).files == 2


async def test_what_a_pass_would_refuse_the_plan_refuses(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path / "mirror") as one:
        await one.sync()
        one.configure(url=(f"{one.server.url}/another",))
        with pytest.raises(UpstreamChanged):
            await plan(one.config)
        one.configure(url=(one.server.url,))
        await one.server.stop()
        with pytest.raises(UpstreamError):
            await plan(one.config)


async def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        path = tmp_path / "heliostat.db"
        path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\xff"))
        with pytest.raises(StateError, match="rebuild"):
            await plan(one.config)


async def test_beside_a_running_mirror(tmp_path: Path) -> None:
    """It takes no lock."""
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        async with Mirror.open(one.config):
            made = await plan_pass(one.config, counters=Counters(), stop=asyncio.Event())
            assert made.updates == []
