"""What becomes of what upstream removed: it goes, is kept out of reach for a while, or stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heliostat.fakeindex import Options
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.status import read_status
from support.equality import differences
from support.equality_removed import MARK, Removed
from support.mirrors import following, rebuild, rewritten
from support.verified import verify
from support.zoo import animals, store, tombstones

# -- withhold ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), Options.static()], ids=["feed", "list"])
async def test_a_removed_project_is_kept_out_of_reach_for_a_while(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options, policy="withhold") as one:
        await one.sync()
        before, was = store(one, "ant-"), one.index["ant"].copy()
        one.index.remove_project("ant")
        assert (await one.sync()).removed == 1
        assert differences(one.index, tmp_path, removed=Removed(kept={"ant": was})) == []
        assert store(one, "ant-", "withheld") == before
        assert [(stone.project, stone.what) for stone in tombstones(one)] == [("ant", "withheld")]
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=Removed(kept={"ant": was})) == []
        one.configure(withhold_days=0.0)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert not list((tmp_path / "withheld").iterdir())


async def test_a_removed_release_is_kept_out_of_reach_for_a_while(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, withhold=("Ant",)) as one:
        await one.sync()
        was = one.index["ant"].copy()
        one.index.remove_release("ant", "1.0")
        one.index.remove_release("bee", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(kept={"ant==1.0": was})) == []
        kinds = {(stone.project, stone.what) for stone in tombstones(one)}
        assert kinds == {("ant", "withheld"), ("bee", "removed")}
        one.configure(withhold_days=0.0)
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_file_that_is_back_upstream_is_not_fetched_again(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was, files = one.index["ant"].copy(), list(one.index["ant"].releases["1.0"].files)
        one.index.remove_release("ant", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(kept={"ant==1.0": was})) == []
        one.index.publish("ant", "1.0", files)
        one.server.reset_log()
        await one.sync()
        assert one.server.count("*.whl") == one.server.count("*.tar.gz") == 0
        assert differences(one.index, tmp_path) == []


async def test_what_upstream_removed_is_restored_and_stays(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        before, was = store(one, "ant-"), one.index["ant"].copy()
        one.index.remove_project("ant")
        await one.sync()
        one.server.reset_log()
        result = await one.restore("ant")
        assert (result.complete, result.entries) == (True, {"ant": "restored"})
        assert one.server.count("*") == 0
        assert store(one, "ant-") == before
        removed = Removed(retained={"ant": was})
        assert differences(one.index, tmp_path, removed=removed) == []
        await one.sync(full=True)
        one.configure(sweep_days=0.01, heartbeat=0.0)
        await one.sync()
        assert differences(one.index, tmp_path, removed=removed) == []
        assert read_status(one.config).states["retained"] == 1
        assert [stone.what for stone in tombstones(one)] == ["withheld", "restored"]
        await one.delete("ant", purge=True)
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant"])) == []


async def test_a_release_that_upstream_removed_is_restored_and_stays(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was = one.index["ant"].copy()
        one.index.remove_release("ant", "1.0")
        await one.sync()
        one.server.reset_log()
        result = await one.restore("ant==1.0")
        assert (result.complete, result.entries) == (True, {"ant==1.0": "restored"})
        assert one.server.count("*") == 0
        removed = Removed(retained={"ant==1.0": was})
        assert differences(one.index, tmp_path, removed=removed) == []
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=removed) == []
        assert read_status(one.config).retained_files == 2
        one.index.remove_release("ant", "2.0")
        await one.sync()
        assert one.page("ant")["versions"] == ["3.0", "1.0"]


async def test_a_quarantined_project_that_is_removed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        before = store(one, "ant-")
        one.index.quarantine("ant")
        await one.sync()
        one.index.remove_project("ant")
        await one.sync()
        assert store(one, "ant-", "withheld") == before
        one.configure(withhold_days=0.0)
        await one.sync()
        assert differences(one.index, tmp_path) == []


# -- retain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), Options.static()], ids=["feed", "list"])
async def test_a_removed_project_stays(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options, policy="retain") as one:
        await one.sync()
        before, was = one.listing(), one.index["ant"].copy()
        one.index.remove_project("ant")
        summary = await one.sync()
        assert (summary.removed, summary.held) == (0, 0)
        removed = Removed(retained={"ant": was})
        assert differences(one.index, tmp_path, removed=removed) == []
        after = one.listing()
        assert not any(path.startswith(("web/packages", "web/json")) for path in rewritten(before, after))
        assert one.page("ant")["project-status"] == {"status": "archived", "reason": MARK}
        await one.sync(full=True)
        one.configure(sweep_days=0.01, heartbeat=0.0)
        await one.sync()
        await one.sync()
        assert differences(one.index, tmp_path, removed=removed) == []
        assert not any("ant" in path for path in rewritten(after, one.listing()))
        assert read_status(one.config).states["retained"] == 1
        assert [(stone.project, stone.what) for stone in tombstones(one)] == [("ant", "retained")]


async def test_however_many_stay_nothing_waits_for_approval(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain", propagate=("fox",)) as one:
        await one.sync()
        was = {name: one.index[name].copy() for name in ("ant", "bee", "cat", "dog", "eel")}
        for name in (*was, "fox"):
            one.index.remove_project(name)
        summary = await one.sync()
        assert (summary.held, summary.removed) == (0, 1)
        assert differences(one.index, tmp_path, removed=Removed(retained=was)) == []


async def test_a_removed_release_stays_as_yanked(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, retain=("ant",)) as one:
        await one.sync()
        was = one.index["ant"].copy()
        one.index.yank("ant", "1.0", "broken")
        one.index.remove_release("ant", "2.0")
        one.index.remove_release("bee", "1.0")
        await one.sync()
        removed = Removed(retained={"ant==2.0": was})
        assert differences(one.index, tmp_path, removed=removed) == []
        yanked = {file["filename"]: file["yanked"] for file in one.page("ant")["files"]}
        assert yanked["ant-2.0.tar.gz"] == MARK
        assert yanked["ant-1.0.tar.gz"] == "broken"
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        one.server.reset_log()
        await one.sync()
        assert differences(one.index, tmp_path, removed=removed) == []
        assert one.server.count("*ant-2.0*") == 0
        stones = [(stone.version, stone.what) for stone in tombstones(one) if stone.project == "ant"]
        assert len(stones) == 2
        assert {what for _, what in stones} == {"retained"}


async def test_what_is_back_upstream_is_ordinary_again(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain") as one:
        await one.sync()
        one.index.remove_project("ant")
        files = list(one.index["bee"].releases["1.0"].files)
        one.index.remove_release("bee", "1.0")
        await one.sync()
        one.index.publish("ant", "9.0", [uploaded(wheel("ant", "9.0")), uploaded(sdist("ant", "9.0"))])
        one.index.publish("bee", "1.0", files)
        await one.sync()
        status = read_status(one.config)
        assert "retained" not in status.states
        page = one.page("ant")
        assert page["project-status"]["status"] == "active"
        assert page["versions"] == ["9.0", "1.0", "2.0"]  # what upstream does not list stays, as yanked
        assert {bool(file["yanked"]) for file in page["files"] if "9.0" in file["filename"]} == {False}
        assert {file["yanked"] for file in page["files"] if "9.0" not in file["filename"]} == {MARK}
        assert {bool(file["yanked"]) for file in one.page("bee")["files"]} == {False}


async def test_another_policy_lets_it_go(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain") as one:
        await one.sync()
        was = one.index["ant"].copy()
        one.index.remove_project("ant")
        one.index.remove_release("bee", "1.0")
        await one.sync()
        assert read_status(one.config).retained_files == 2
        one.configure(policy="withhold")
        assert (await one.sync()).removed == 1
        kept = {"ant": was, "bee==1.0": one.index.previous("bee")}
        assert differences(one.index, tmp_path, removed=Removed(kept=kept)) == []  # type: ignore[arg-type]


async def test_what_is_deleted_here_does_not_stay(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain") as one:
        await one.sync()
        one.index.remove_project("ant")
        await one.sync()
        await one.delete("ant", "bee==1.0")
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant", "bee==1.0"])) == []
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant", "bee==1.0"])) == []


async def test_one_sign_makes_nothing_archived(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain") as one:
        await one.sync()
        one.index.touch("ant")
        one.server.fault("/simple/ant/", Status(404), times=3)
        await one.attempt()
        assert one.page("ant")["project-status"]["status"] == "active"
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_rebuild_knows_what_stays(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was = one.index["ant"].copy()
        one.index.remove_project("ant")
        await one.sync()
        await one.restore("ant")
        for path in tmp_path.glob("heliostat.db*"):
            path.unlink()
        await rebuild(one.config)
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=Removed(retained={"ant": was})) == []
        assert json.loads((one.web / "json/ant").read_bytes())["info"]["version"] == "2.0"


async def test_verify_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="retain") as one:
        await one.sync()
        one.index.remove_project("ant")
        one.index.remove_release("bee", "2.0")
        await one.sync()
        await one.delete("cat", "dog==1.0", "eel==2.0")
        for against in (False, True):
            seen, _ = await verify(one.config, against_upstream=against)
            assert seen.findings == []
