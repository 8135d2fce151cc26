"""``--dry-run``: what a pass would do, with the right counts, and not one byte written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.exit_codes import exit_code, plan_exit_code
from heliostat.cli.messages import plan_lines
from heliostat.config import Config
from heliostat.errors import StateError, UpstreamChanged
from heliostat.fakeindex import FakeIndex, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from heliostat.fakeindex.synthetic import many_projects, small_index, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.planning import plan_pass
from heliostat.mirror.report import Counters, Plan
from heliostat.mirror.run import Mirror
from support.equality import differences
from support.mirrors import Followed, changed, config_for, following, listing


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
        for missing in ("not-there", "not-there/nor-here"):
            made = await plan(changed(config, directory=str(tmp_path / missing)))
            assert len(made.adds) == 26
            assert made.free_bytes > 0
            assert made.missing_directory == str(tmp_path / missing)
            assert plan_exit_code(made) == 6  # as the pass would, until it is made
            assert not (tmp_path / "not-there").exists()


async def test_a_plan_that_was_stopped_says_so(tmp_path: Path) -> None:
    async with following(many_projects(40, 1, 0), tmp_path, projects_at_once=2) as one:
        hanging = one.server.fault("/simple/project-0000010/", Hang())
        stop = asyncio.Event()
        planning = asyncio.create_task(plan_pass(one.config, counters=Counters(), stop=stop))
        async with asyncio.timeout(60):
            while not hanging.fired:
                await asyncio.sleep(0.01)
        stop.set()
        hanging.release()
        made = await planning
        assert made.interrupted
        assert len(made.adds) < 40
        lines = plan_lines(made)
        assert "incomplete" in lines[0]
        assert lines[-1].startswith("so far: would fetch")
        whole = await plan(one.config)
        assert (len(whole.adds), whole.interrupted, whole.missing_directory) == (40, False, None)
        assert not any("incomplete" in line or "so far" in line for line in plan_lines(whole))


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
        with pytest.raises(UpstreamChanged):
            await plan(one.config, "alpha")


@pytest.mark.parametrize("names", [(), ("alpha", "zeta")])
@pytest.mark.parametrize("projects", [(), ("alpha", "zeta", "signed")])
async def test_an_upstream_that_is_down_is_told_as_a_pass_tells_it(
    tmp_path: Path, projects: tuple[str, ...], names: tuple[str, ...]
) -> None:
    async with following(small_index(), tmp_path, projects=projects, retries=1) as one:
        await one.sync()
        await one.server.refuse_connections()
        made, summary = await plan(one.config, *names), await one.attempt(*names)
        assert made.unreachable is not None
        assert summary.unreachable is not None
        assert plan_exit_code(made) == exit_code(summary) == 5


async def test_an_upstream_that_gives_no_page_is_not_asked_for_every_one(tmp_path: Path) -> None:
    async with following(many_projects(100, 1, 0, 10), tmp_path, retries=1, projects_at_once=1) as one:
        one.server.fault("/simple/project-*", Status(503))
        made = await plan(one.config)
        assert plan_exit_code(made) == 5
        assert one.server.count("/simple/project-*") == 10


# -- removals --------------------------------------------------------------------------------------------------


def drop_upstream(one: Followed, count: int) -> None:
    for number in range(count):
        one.index.remove_project(f"project-{number:07}")


def drop_from_scope(one: Followed, count: int) -> None:
    one.configure(everything=False, projects=tuple(f"project-{number:07}" for number in range(count, 10)))


@pytest.mark.parametrize("drop", [drop_upstream, drop_from_scope])
async def test_held_removals_are_planned_as_held(tmp_path: Path, drop: Callable[[Followed, int], None]) -> None:
    async with following(many_projects(10, 1, 0, 10), tmp_path) as one:
        await one.sync()
        drop(one, 7)
        names = [f"project-{number:07}" for number in range(7)]
        for _ in range(2):  # before they are held, and while they are
            made = await plan(one.config)
            assert (made.held, made.removals, made.updates, made.problems) == (names, [], [], [])
            assert made.held_by_scope == (7 if drop is drop_from_scope else 0)
            some = await plan(one.config, allow_removals=3)
            assert (len(some.removals), len(some.held)) == (3, 4)
            assert sorted(some.removals + some.held) == names
            everything = await plan(one.config, allow_removals=7)
            assert (everything.removals, everything.held, everything.problems) == (names, [], [])
            assert [plan_exit_code(one) for one in (made, some, everything)] == [7, 7, 0]
            summary = await one.attempt()
            assert (summary.held, summary.held_by_scope, exit_code(summary)) == (7, made.held_by_scope, 7)
        assert plan_exit_code(await plan(one.config, "project-0000009")) == 7
        summary = await one.attempt(allow_removals=3)
        assert (summary.removed, summary.held) == (3, 4)
        await one.sync(allow_removals=4)
        assert plan_exit_code(await plan(one.config)) == 0


async def test_plausible_removals_of_both_kinds_count_together(tmp_path: Path) -> None:
    async with following(many_projects(10, 1, 0, 10), tmp_path) as one:
        await one.sync()
        drop_from_scope(one, 3)
        for number in (3, 4, 5):
            one.index.remove_project(f"project-{number:07}")
        made = await plan(one.config)
        assert made.removals == [f"project-{number:07}" for number in (0, 1, 2)]
        assert made.held == [f"project-{number:07}" for number in (3, 4, 5)]
        assert made.held_by_scope == 0
        summary = await one.attempt()
        assert (summary.removed, summary.held, summary.held_by_scope) == (3, 3, 0)


async def test_what_stays_blocked_is_planned_as_owed(tmp_path: Path) -> None:
    index = small_index()
    index.publish("bare", "1.0", [UploadedFile("bare-1.0.zip", b"no hash", hashes="none")])
    async with following(index, tmp_path) as one:
        assert exit_code(await one.attempt()) == 3
        made = await plan(one.config)
        assert [(problem.project, problem.state) for problem in made.problems] == [("bare", "blocked")]
        assert plan_exit_code(made) == 3
        assert plan_exit_code(await plan(one.config, "alpha")) == exit_code(await one.attempt("alpha")) == 3


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
