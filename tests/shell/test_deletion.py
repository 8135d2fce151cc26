"""What an operator deletes, or the configuration denies: gone at once, kept out, and back without a download."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heliostat.errors import Refused
from heliostat.fakeindex import Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.status import read_status
from support.equality import differences
from support.equality_removed import Removed
from support.mirrors import following, rebuild, rewritten
from support.verified import findings
from support.zoo import NAMES, animals, store, tombstones

# -- delete ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), Options.static()], ids=["feed", "list"])
async def test_a_project_goes_at_once_and_stays_away(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options) as one:
        await one.sync()
        one.server.reset_log()
        result = await one.delete("Ant", reason="malware")
        assert one.server.count("*") == 0
        assert result.complete
        assert result.entries == {"ant": "deleted"}
        removed = Removed(denied=["ant"])
        assert differences(one.index, tmp_path, removed=removed) == []
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        one.index.publish("bee", "3.0", [uploaded(wheel("bee", "3.0"))])
        await one.sync(full=True)
        one.index.touch("ant")
        await one.sync()
        assert differences(one.index, tmp_path, removed=removed) == []
        [stone] = tombstones(one)
        assert (stone.project, stone.path, stone.reason) == ("ant", None, "deleted: malware")
        assert (stone.approved, stone.what) == (True, "removed")


async def test_a_release_goes_at_once_and_stays_away(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        one.server.reset_log()
        result = await one.delete("ant==1.0")
        assert one.server.count("*") == 0
        assert result.complete
        removed = Removed(denied=["ant==1.0"])
        assert differences(one.index, tmp_path, removed=removed) == []
        assert not any("packages" in path and "ant-2.0" in path for path in rewritten(before, one.listing()))
        after = one.listing()
        await one.sync()
        assert not any(path.startswith(("web/simple/ant", "web/json", "web/packages", "upstream"))
                       for path in rewritten(after, one.listing()))  # fmt: skip
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=removed) == []
        assert {stone.version for stone in tombstones(one)} == {"1.0"}
        assert {stone.reason for stone in tombstones(one)} == {"deleted: unwanted"}


async def test_the_newest_release(tmp_path: Path) -> None:
    """The document is then of the newest one that is left, and promises nothing of the other one."""
    async with following(animals(), tmp_path) as one:
        await one.sync()
        await one.delete("ant==2.0")
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant==2.0"])) == []
        document = json.loads((one.web / "json/ant").read_bytes())
        assert document["info"]["version"] == "1.0"
        assert {file["filename"] for file in document["urls"]} == {f["filename"] for f in document["releases"]["1.0"]}


async def test_all_releases_leave_an_empty_page_and_no_document(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        await one.delete("ant==1.0", "ant==2.0")
        for _ in range(2):
            assert one.page("ant")["files"] == []
            assert not (one.web / "json/ant").exists()
            assert not (one.web / "pypi/ant").exists()
            assert store(one, "ant-") == {}
            await one.sync(full=True)


async def test_a_version_in_another_spelling(tmp_path: Path) -> None:
    index = animals()
    index.publish("gnu", "1.0.0rc1", [uploaded(wheel("gnu", "1.0.0rc1"))])
    index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
    async with following(index, tmp_path) as one:
        await one.sync()
        await one.delete("gnu==1.0.0-RC.1")
        assert one.page("gnu")["versions"] == ["1.0"]
        assert differences(index, tmp_path, removed=Removed(denied=["gnu==1.0.0rc1"])) == []


async def test_without_documents_the_names_of_files_tell(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, Options(documents=False)) as one:
        await one.sync()
        await one.delete("ant==1.0")
        for _ in range(2):
            assert {file["filename"] for file in one.page("ant")["files"]} == {
                "ant-2.0-py3-none-any.whl",
                "ant-2.0.tar.gz",
            }
            assert store(one, "ant-1.0") == {}
            await one.sync(full=True)


async def test_what_was_never_here_does_not_come(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        result = await one.delete("gnu", "bee==3.0")
        assert result.entries == {"gnu": "denied", "bee==3.0": "deleted"}
        one.index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
        one.index.publish("bee", "3.0", [uploaded(wheel("bee", "3.0"))])
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(denied=["gnu", "bee==3.0"])) == []
        with pytest.raises(Refused, match="heliostat restore gnu"):
            await one.attempt("gnu")


async def test_more_than_half_of_a_mirror_is_no_question_for_the_guard(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        assert (await one.delete(*NAMES[:5])).projects == 5
        assert differences(one.index, tmp_path, removed=Removed(denied=NAMES[:5])) == []
        one.index.remove_project("fox")
        assert (await one.sync()).removed == 1  # what was deleted does not count for the day


async def test_bytes_that_another_project_lists_stay(tmp_path: Path) -> None:
    index = animals()
    for name in ("twin", "twin-1"):
        index.publish(name, "1.0", [UploadedFile("twin-1-0.zip", Virtual(500, 7), upload_time="2024-05-06T07:08:09Z")])
    async with following(index, tmp_path) as one:
        await one.sync()
        inode = one.files("twin")["twin-1-0.zip"].stat().st_ino
        await one.delete("twin")
        assert differences(index, tmp_path, removed=Removed(denied=["twin"])) == []
        assert one.files("twin-1")["twin-1-0.zip"].stat().st_ino == inode


async def test_what_is_owed_stays_owed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.server.fault("/simple/ant/", Status(500))
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        assert [owed.project for owed in (await one.attempt()).owed] == ["ant"]
        await one.delete("ant==1.0")
        assert one.page("ant")["versions"] == ["2.0"]
        status = read_status(one.config)
        assert [owed.project for owed in status.owed] == ["ant"]
        assert status.checkpoint < one.index.serial
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant==1.0"])) == []


async def test_a_lost_ledger_does_not_bring_it_back(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was = one.index["ant"].copy()
        await one.delete("ant", "bee==1.0", reason="trojan")
        removed = Removed(denied=["ant", "bee==1.0"], kept={"ant": was, "bee==1.0": one.index["bee"].copy()})
        assert differences(one.index, tmp_path, removed=removed) == []
        for path in tmp_path.glob("heliostat.db*"):
            path.unlink()
        await rebuild(one.config)
        await one.sync(full=True)
        assert differences(one.index, tmp_path, removed=removed) == []
        assert read_status(one.config).deleted == {"ant": "trojan", "bee==1.0": "trojan"}


# -- the configuration ------------------------------------------------------------------------------------------


async def test_the_configuration_denies_and_allows(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.configure(deny=("Ant", "bee == 1.0"))
        assert (await one.sync()).removed == 1
        removed = Removed(denied=["ant", "bee==1.0"])
        assert differences(one.index, tmp_path, removed=removed) == []
        assert read_status(one.config).denied == ["ant", "bee==1.0"]
        with pytest.raises(Refused, match="deny"):
            await one.attempt("ant")
        with pytest.raises(Refused, match="deny"):
            await one.restore("ant")
        one.configure(deny=("bee==2.0",))
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(denied=["bee==2.0"])) == []
        one.configure(deny=())
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert not (tmp_path / "upstream").exists() or not list((tmp_path / "upstream").iterdir())


async def test_the_guard_looks_at_what_the_configuration_denies(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.configure(deny=NAMES[:5])
        summary = await one.attempt()
        assert (summary.held, summary.held_by_scope, summary.removed) == (5, 5, 0)
        one.index.touch("ant")
        assert (await one.attempt(full=True)).held == 5
        assert (await one.sync(allow_removals=5)).removed == 5
        assert differences(one.index, tmp_path, removed=Removed(denied=NAMES[:5])) == []


async def test_what_was_asked_for_by_name_is_denied_too(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee", "cat", "dog")) as one:
        await one.sync()
        await one.sync("eel")
        one.configure(deny=("eel", "ant"))
        one.index.touch("eel")
        await one.sync()
        await one.sync()
        assert differences(one.index, tmp_path, only=["bee", "cat", "dog"]) == []


# -- restore -----------------------------------------------------------------------------------------------------


async def test_a_project_comes_back_without_a_download(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        before, was = store(one, "ant-"), one.index["ant"].copy()
        await one.delete("ant")
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant"], kept={"ant": was})) == []
        assert store(one, "ant-", "withheld") == before  # moved, not copied
        assert [stone.what for stone in tombstones(one)] == ["withheld"]
        await one.sync(full=True)
        one.server.reset_log()
        result = await one.restore("ant")
        assert (result.complete, result.entries) == (True, {"ant": "restored"})
        assert one.server.count("*.whl") == one.server.count("*.tar.gz") == one.server.count("*.metadata") == 0
        assert store(one, "ant-") == before
        assert differences(one.index, tmp_path) == []
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []
        assert not list((tmp_path / "withheld").rglob("*.*"))


async def test_a_project_comes_back_while_upstream_is_away(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        await one.delete("ant")
        one.server.fault("*", Status(503))
        result = await one.restore("ant")
        assert result.unreachable is not None or result.owed
        assert differences(one.index, tmp_path) == []
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_release_comes_back_without_a_download(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        before, was = store(one, "ant-"), one.index["ant"].copy()
        await one.delete("ant==1.0")
        await one.delete("ant==2.0")
        kept = {"ant==1.0": was, "ant==2.0": was}
        assert store(one, "ant-") == {}
        await one.restore("ant==2.0")
        removed = Removed(denied=["ant==1.0"], kept={"ant==1.0": was})
        assert differences(one.index, tmp_path, removed=removed) == []
        one.server.reset_log()
        await one.restore("ant==1.0")
        assert one.server.count("*.whl") == one.server.count("*.tar.gz") == 0
        assert differences(one.index, tmp_path) == []
        assert store(one, "ant-") == before
        assert kept


@pytest.mark.parametrize("lost", ["ant-1.0-py3-none-any.whl", "ant-1.0-py3-none-any.whl.metadata"])
async def test_without_what_was_lost_meanwhile(lost: str, tmp_path: Path) -> None:
    """Upstream is asked for it, as long as it may have it; what is left comes back in any case."""
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was = {each.filename for release in one.index["ant"].releases.values() for each in release.files}
        await one.delete("ant")
        for path in (tmp_path / "withheld/packages").rglob(lost):
            path.unlink()
        result = await one.restore("ant")
        assert (result.complete, result.failed, result.entries) == (True, {}, {"ant": "restored"})
        assert differences(one.index, tmp_path) == []

        one.index.remove_project("ant")
        await one.sync()
        for path in (tmp_path / "withheld/packages").rglob(lost):
            path.unlink()
        result = await one.restore("ant")
        assert (result.failed, result.entries) == ({}, {"ant": "restored"})
        await one.sync(full=True)
        assert set(one.files("ant")) == was - {lost}
        assert await findings(one.config) == []


async def test_what_could_not_be_restored_is_kept(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        one.index.remove_project("ant")
        await one.sync()
        before = store(one, "ant-", "withheld")
        obstacle = one.web / "json/ant"
        obstacle.mkdir()
        result = await one.restore("ant")
        assert set(result.failed) == {"ant"}
        await one.sync(full=True)
        assert store(one, "ant-", "withheld") == before
        obstacle.rmdir()
        result = await one.restore("ant")
        assert (result.failed, result.entries) == ({}, {"ant": "restored"})
        assert store(one, "ant-") == before


async def test_without_the_bytes_it_is_fetched_again(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        await one.delete("ant", "bee==1.0")
        result = await one.restore("ant", "bee==1.0")
        assert result.entries == {"ant": "allowed", "bee==1.0": "allowed"}
        assert result.complete
        assert differences(one.index, tmp_path) == []


async def test_purged_bytes_are_not_kept_whatever_the_policy_says(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        await one.delete("ant", "bee==1.0", purge=True)
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant", "bee==1.0"])) == []
        await one.delete("cat", "dog==1.0")
        assert store(one, "cat", "withheld")
        await one.delete("cat", "dog==1.0", purge=True)
        removed = Removed(denied=["ant", "bee==1.0", "cat", "dog==1.0"])
        assert differences(one.index, tmp_path, removed=removed) == []


async def test_kept_bytes_go_when_their_time_is_over(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, policy="withhold") as one:
        await one.sync()
        was = one.index["ant"].copy()
        await one.delete("ant")
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant"], kept={"ant": was})) == []
        status = read_status(one.config)
        assert (status.kept_files, status.kept_until is not None) == (9, True)
        one.configure(withhold_days=0.0)
        await one.sync()
        assert differences(one.index, tmp_path, removed=Removed(denied=["ant"])) == []
        assert [stone.what for stone in tombstones(one)][:2] == ["withheld", "expired"]
        assert read_status(one.config).kept_files == 0
        await one.restore("ant")
        assert differences(one.index, tmp_path) == []


async def test_nothing_to_restore(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        result = await one.restore("ant==1.0", "gnu")
        assert (result.complete, set(result.entries.values())) == (False, {"nothing kept"})
        assert differences(one.index, tmp_path) == []
