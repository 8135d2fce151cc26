"""What leaves the mirror, in which order, on which evidence, and what waits for an operator."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Frozen, Redirect, Rewrite, Stale, Status
from heliostat.fakeindex.synthetic import many_projects, provenance_for, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.state.database import open_readonly
from heliostat.state.queries import Queries
from heliostat.state.rows import Tombstone
from support.disks import Step, WatchedDisk
from support.equality import differences
from support.mirrors import Followed, complete_pass, config_for, following, rewritten
from support.plainserver import plainly_served

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


#: The root list, but nothing is in it.
EMPTY_LIST = Rewrite(lambda body: json.dumps(json.loads(body) | {"projects": []}).encode())


def animals(*names: str) -> Index:
    """Two releases each, wheel and sdist; ``ant`` has a provenance object too."""
    index = Index()
    for name in names or NAMES:
        for version in ("1.0", "2.0"):
            index.publish(name, version, [uploaded(wheel(name, version)), uploaded(sdist(name, version))])
    if "ant" in index:
        file = index["ant"].releases["1.0"].files[0]
        index.set_provenance("ant", "1.0", file.filename, provenance_for(file))
    return index


def tombstones(one: Followed) -> list[Tombstone]:
    with contextlib.closing(open_readonly(str(one.directory / "heliostat.db"))) as connection:
        return Queries(connection).tombstones()


def gone(one: Followed) -> list[str]:
    """Projects with a tombstone, in the order in which they went."""
    return [stone.project for stone in tombstones(one) if stone.path is None]


class Noting(WatchedDisk):
    """Notes every change."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.steps: list[Step] = []

    def after(self, step: Step) -> None:
        self.steps.append(step)

    def touching(self, *parts: str, verb: str = "") -> list[int]:
        """The numbers of the steps whose last path contains all ``parts``."""
        return [
            number
            for number, step in enumerate(self.steps)
            if step.arguments and all(part in step.arguments[-1] for part in parts) and verb in ("", step.verb)
        ]

    def synced_between(self, low: int, high: int) -> bool:
        return any(step.verb == "sync" for step in self.steps[low:high])


# -- what goes, and in which order -----------------------------------------------------------------------------


async def test_a_project_goes_pages_first_bytes_last(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.remove_project("ant")
        disk = Noting(tmp_path)
        summary = await one.sync(disk=disk)
        assert differences(one.index, tmp_path) == []
        assert (summary.removed, summary.files_removed) == (1, 7)  # four files, two sidecars, a provenance object
        assert "ant" not in one.root()
        pages = disk.touching("web/simple/ant/", verb="unlink")
        documents = disk.touching("web/pypi/ant", verb="unlink") + disk.touching("web/json/ant", verb="unlink")
        bytes_ = disk.touching("web/packages/", "ant", verb="unlink") + disk.touching("web/integrity/", verb="unlink")
        root = disk.touching("web/simple/index", verb="replace")
        assert (len(pages), len(documents), len(bytes_), len(root)) == (3, 2, 7, 3)
        assert max(pages) < min(documents)
        assert max(documents) < min(bytes_) <= max(bytes_) < min(root)
        assert disk.synced_between(max(documents), min(bytes_))
        [stone] = tombstones(one)
        assert (stone.project, stone.path, stone.serial, stone.approved) == ("ant", None, one.index.serial, False)
        assert "removed upstream" in stone.reason


@pytest.mark.parametrize("what", ["release", "file"])
async def test_files_go_after_the_pages_that_named_them(tmp_path: Path, what: str) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        name = "ant-1.0-py3-none-any.whl"
        path = str(one.files("ant")[name].relative_to(tmp_path))
        if what == "release":
            one.index.remove_release("ant", "1.0")
        else:
            one.index.remove_file("ant", "1.0", name)
        disk = Noting(tmp_path)
        summary = await one.sync(disk=disk)
        assert differences(one.index, tmp_path) == []
        shown = [
            step
            for part in ("index.html", "index.v1_json")
            for step in disk.touching("simple/ant/", part, verb="replace")
        ]
        removed = disk.touching("ant-1.0", verb="unlink")
        assert len(removed) == summary.files_removed == (4 if what == "release" else 3)
        assert max([*shown, *disk.touching("web/json/ant", verb="replace")]) < min(removed)
        assert disk.synced_between(max(shown), min(removed))
        stones = tombstones(one)
        assert {stone.path for stone in stones} >= {path, f"{path}.metadata"}
        assert all(stone.project == "ant" and stone.path for stone in stones)
        kept = {other for other in before if "ant-2.0" in other and other.startswith("web/packages")}
        assert len(kept) == 3
        assert all(one.listing()[other] == before[other] for other in kept)
        assert summary.removed == 0


async def test_the_last_release_of_a_project_goes_and_the_project_stays(tmp_path: Path) -> None:
    async with following(animals("ant"), tmp_path) as one:
        await one.sync()
        one.index.remove_release("ant", "1.0")
        one.index.remove_release("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert one.page("ant")["files"] == []
        assert not (tmp_path / "web/json/ant").exists()  # without releases there is no document


async def test_removed_and_created_again_is_a_new_project(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        old = one.files("bee")
        one.index.remove_project("bee")
        one.index.publish("Bee", "3.0", [uploaded(wheel("Bee", "3.0"))])
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert summary.removed == 0
        assert gone(one) == []
        assert not any(path.exists() for path in old.values())


async def test_removed_created_and_removed_again(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for _ in range(2):
            one.index.remove_project("bee")
            await one.sync()
            assert differences(one.index, tmp_path) == []
            one.index.publish("bee", "1.0", [uploaded(wheel("bee", "1.0"))])
            await one.sync()
            assert differences(one.index, tmp_path) == []
        assert gone(one) == ["bee", "bee"]


async def test_created_and_removed_between_two_polls_leaves_no_trace(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
        one.index.remove_project("gnu")
        summary = await one.sync()
        assert (summary.added, summary.removed) == (0, 0)
        assert gone(one) == []
        assert differences(one.index, tmp_path) == []


async def test_yanking_changes_pages_only(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        changes: list[Callable[[], None]] = [
            lambda: one.index.yank("ant", "1.0", "a reason & <more>"),
            lambda: one.index.yank("ant", "1.0"),
            lambda: one.index.unyank("ant", "1.0"),
        ]
        for change in changes:
            before = one.listing()
            change()
            one.server.reset_log()
            await one.sync()
            assert differences(one.index, tmp_path) == []
            assert not any("packages" in path for path in rewritten(before, one.listing()))
            assert one.server.count("/packages/*") == 0


# -- evidence --------------------------------------------------------------------------------------------------


async def test_a_removal_event_is_not_believed_while_the_page_is_there(tmp_path: Path) -> None:
    """A cache may still have the page: its serial is too low to count, but it is no 404 either."""
    async with following(animals(), tmp_path, stale_tries=1) as one:
        await one.sync()
        before = one.listing()
        one.index.remove_project("ant")
        stale = one.server.fault(lambda request: "ant" in request.path, Stale())
        summary = await one.attempt()
        assert [owed.project for owed in summary.owed] == ["ant"]
        assert not any("ant" in path for path in rewritten(before, one.listing()))
        stale.remove()
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert gone(one) == ["ant"]


async def test_one_404_is_not_believed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.yank("ant", "1.0")
        missing = one.server.fault("/simple/ant/", Status(404))
        for attempts in (1, 2, 3):
            summary = await one.attempt()
            [owed] = summary.owed
            assert (owed.project, owed.state, owed.attempts) == ("ant", "failing", attempts)
            assert "second sign" in owed.reason
            assert summary.checkpoint < summary.cursor
        assert differences(one.index, tmp_path, owed=["ant"]) == []
        assert one.page("ant")["files"]
        missing.remove()
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_404_of_the_document_alone_removes_nothing(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.yank("ant", "1.0")
        one.server.fault("/pypi/ant/json", Status(404))
        summary = await one.attempt()
        assert [owed.project for owed in summary.owed] == ["ant"]
        assert (tmp_path / "web/json/ant").exists()
        assert one.page("ant")["files"]


async def test_a_404_behind_a_redirect(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.remove_project("cat")
        one.server.fault("/simple/cat/", Redirect("/elsewhere/cat"))
        assert (await one.sync()).removed == 1
        assert differences(one.index, tmp_path) == []


async def test_a_removal_followed_from_a_plain_file_server(tmp_path: Path) -> None:
    """One that has no page under ``simple/NAME/`` in JSON, but ``index.v1_json`` below it."""
    (tmp_path / "central").mkdir()
    async with following(animals(), tmp_path / "central") as one:
        await one.sync()
        with plainly_served(one.web) as url:
            config = config_for(tmp_path / "region", url)
            await complete_pass(config)
            one.index.remove_project("cat")
            one.index.publish("bee", "3.0", [uploaded(wheel("bee", "3.0"))])
            await one.sync()
            await complete_pass(config)
            assert not (tmp_path / "region" / "web" / "simple" / "cat").exists()
            assert differences(one.index, tmp_path / "region") == []


async def test_absence_from_the_list_with_a_404(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, changes="list") as one:
        await one.sync()
        one.index.remove_project("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        [stone] = tombstones(one)
        assert "absent from the root list" in stone.reason


async def test_absence_from_the_list_alone_is_not_believed(tmp_path: Path) -> None:
    """The list of an index in trouble must not empty the mirror."""
    async with following(animals(), tmp_path, changes="list") as one:
        await one.sync()
        before = one.listing()
        one.index.touch("ant")
        one.server.fault("/simple/", EMPTY_LIST)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert not any(path.startswith("web/packages") for path in rewritten(before, one.listing()))
        assert gone(one) == []


async def test_a_list_that_is_older_than_the_project_is_no_sign(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.server.fault("/simple/", Frozen())
        one.index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
        await one.sync()
        one.server.fault("/simple/gnu/", Status(404), times=2)
        summary = await one.attempt(full=True)  # the list of before, in which there is no gnu yet
        assert summary.removed == 0
        assert "gnu" in one.root()


@pytest.mark.parametrize("changes", ["auto", "list"])
async def test_two_404s_where_there_is_neither_feed_nor_list(tmp_path: Path, changes: Any) -> None:
    options = {"projects": ("ant", "bee", "cat"), "changes": changes, "projects_at_once": 1}
    async with following(animals(), tmp_path, Options(xmlrpc=False), **options) as one:
        await one.sync()
        one.index.remove_project("cat")
        one.configure(confirm_seconds=3600.0)
        for _ in range(3):
            summary = await one.attempt()
            assert [owed.project for owed in summary.owed] == ["cat"]
        one.configure(confirm_seconds=0.0)
        await one.attempt()
        assert gone(one) == ["cat"]
        assert differences(one.index, tmp_path, only=["ant", "bee"]) == []


async def test_404s_of_everything_are_not_believed(tmp_path: Path) -> None:
    options = {"projects": ("ant", "bee", "cat"), "changes": "list"}
    async with following(animals(), tmp_path, Options(xmlrpc=False), **options) as one:
        await one.sync()
        one.server.fault("/simple/*", Status(404))
        for _ in range(3):
            assert len((await one.attempt()).owed) == 3
        assert gone(one) == []
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path, only=["ant", "bee", "cat"]) == []


async def test_a_page_that_shrinks_to_none_is_looked_at_twice(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.release_files("ant", "1.0")
        one.index.release_files("ant", "2.0")
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/simple/ant/") == 2
        assert one.page("ant")["files"] == []
        assert differences(one.index, tmp_path) == []


async def test_a_page_that_is_empty_for_a_moment_is_not_believed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = one.listing()

        def without_files(body: bytes) -> bytes:
            return json.dumps({**json.loads(body), "files": [], "versions": []}).encode()

        one.index.touch("ant")
        empty = one.server.fault("/simple/ant/", Rewrite(without_files), times=1)
        await one.sync()
        assert empty.fired == 1
        assert differences(one.index, tmp_path) == []
        assert not any("packages" in path for path in rewritten(before, one.listing()))


# -- the guard -------------------------------------------------------------------------------------------------


async def test_more_than_half_of_a_small_mirror_waits_and_everything_else_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for name in ("ant", "bee", "cat", "dog"):
            one.index.remove_project(name)
        one.index.yank("eel", "1.0")
        one.index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
        for _ in range(2):
            summary = await one.attempt()
            assert (summary.held, summary.removed) == (4, 0)
            assert summary.owed_by_state == {"held": 4}
            assert {owed.project for owed in summary.owed} == {"ant", "bee", "cat", "dog"}
            assert all("removed upstream" in owed.reason for owed in summary.owed)
            assert summary.cursor == one.index.serial
        assert one.page("eel")["files"][0]["yanked"] is True
        assert (tmp_path / "web/simple/gnu").exists()
        assert len(one.files("ant")) == 4
        assert all(path.exists() for path in one.files("ant").values())

        caplog.clear()
        summary = await one.attempt(allow_removals=3)
        assert (summary.held, summary.removed) == (1, 3)
        assert "--allow-removals 1'" in caplog.text
        summary = await one.sync(allow_removals=1)
        assert (summary.held, summary.removed) == (0, 1)
        assert differences(one.index, tmp_path) == []
        assert sorted(gone(one)) == ["ant", "bee", "cat", "dog"]
        # One of the four that were left would be plausible by itself, but it was approved: none counts for the day.
        assert [stone.approved for stone in tombstones(one)] == [True, True, True, True]


async def test_what_is_held_and_comes_back_is_held_no_more(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for name in ("ant", "bee", "cat", "dog"):
            one.index.remove_project(name)
        assert (await one.attempt()).held == 4
        for name in ("ant", "bee", "cat", "dog"):
            one.index.publish(name, "9.0", [uploaded(wheel(name, "9.0"))])
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert gone(one) == []


@pytest.mark.parametrize("xmlrpc", [True, False])
async def test_what_a_list_lacked_for_a_moment_is_held_no_more_when_it_is_back(xmlrpc: bool, tmp_path: Path) -> None:
    """No event tells it: the next complete list does."""
    async with following(animals(), tmp_path, Options(xmlrpc=xmlrpc)) as one:
        await one.sync()
        one.index.touch("ant")
        one.server.fault("/simple/", EMPTY_LIST)
        one.server.fault("/simple/*/", Status(404))
        assert (await one.attempt(full=xmlrpc)).held >= 5
        one.server.clear_faults()
        one.index.touch("bee")
        assert (await one.sync(full=xmlrpc)).removed == 0
        assert differences(one.index, tmp_path) == []


async def test_a_list_older_than_the_removal_does_not_end_its_wait(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.server.fault("/simple/", Frozen())
        for name in ("ant", "bee", "cat", "dog"):
            one.index.remove_project(name)
        assert (await one.attempt()).held == 4
        one.server.reset_log()
        assert (await one.attempt(full=True)).held == 4
        assert one.server.count("/simple/*/") == 0


async def test_more_than_a_hundred_and_one_in_a_hundred_within_a_day(tmp_path: Path) -> None:
    async with following(many_projects(400, 1, 0, 10), tmp_path) as one:
        await one.sync()
        names = [f"project-{number:07}" for number in range(400)]
        for name in names[:60]:
            one.index.remove_project(name)
        assert (await one.sync()).removed == 60
        for name in names[60:100]:
            one.index.remove_project(name)
        assert (await one.sync()).removed == 40
        one.index.remove_project(names[100])
        summary = await one.attempt()
        assert (summary.removed, summary.held) == (0, 1)
        assert (await one.sync(allow_removals=1)).removed == 1
        assert differences(one.index, tmp_path) == []


async def test_too_many_at_once(tmp_path: Path) -> None:
    async with following(many_projects(400, 1, 0, 10), tmp_path) as one:
        await one.sync()
        for number in range(101):
            one.index.remove_project(f"project-{number:07}")
        summary = await one.attempt()
        assert (summary.removed, summary.held) == (0, 101)
        assert differences(one.index, tmp_path, owed=[f"project-{number:07}" for number in range(101)]) == []
        await one.sync(allow_removals=101)
        assert differences(one.index, tmp_path) == []


async def test_an_index_that_lost_everything_takes_nothing_with_it(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, changes="list") as one:
        await one.sync()
        before = one.listing()
        for name in NAMES:
            one.index.remove_project(name)
        summary = await one.attempt()
        assert summary.held == 6
        after = one.listing()
        assert all(after[path] == found for path, found in before.items() if path.startswith("web/packages"))
        assert all((tmp_path / f"web/simple/{name}/index.html").exists() for name in NAMES)


# -- one place for each project --------------------------------------------------------------------------------


async def test_another_spelling_is_the_same_project(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        one.index.publish("ANT", "3.0", [uploaded(wheel("ANT", "3.0"))])
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert "ANT" in one.root()
        assert "ant" not in one.root()
        assert sorted(path.name for path in (tmp_path / "web/simple").iterdir() if path.is_dir()) == sorted(NAMES)
        assert not any("packages" in path for path in before.keys() & rewritten(before, one.listing()))


@pytest.mark.parametrize(("old", "new"), [("bee", "wasp"), ("bee", "aphid")])
@pytest.mark.parametrize("by", ["feed", "list", "full"])
async def test_a_renamed_project_takes_its_bytes_along(tmp_path: Path, old: str, new: str, by: str) -> None:
    async with following(animals(), tmp_path, changes="list" if by == "list" else "auto") as one:
        await one.sync()
        before = {path: found for path, found in one.listing().items() if path.startswith("web/packages")}
        one.index.rename(old, new)
        one.server.reset_log()
        await one.sync(full=by == "full")
        assert differences(one.index, tmp_path) == []
        assert not (tmp_path / "web/simple" / old).exists()
        after = {path: found for path, found in one.listing().items() if path.startswith("web/packages")}
        assert after == before
        assert one.server.count("*.whl") == one.server.count("*.tar.gz") == 0
        one.index.remove_project(new)
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_shared_bytes_stay_until_the_last_project_that_names_them_is_gone(tmp_path: Path) -> None:
    index = animals()
    for name in ("twin", "twin-1"):
        index.publish(name, "1.0", [UploadedFile("twin-1-0.zip", Virtual(500, 7), upload_time="2024-05-06T07:08:09Z")])
    async with following(index, tmp_path) as one:
        await one.sync()
        shared = one.files("twin")["twin-1-0.zip"]
        inode = shared.stat().st_ino
        index.remove_project("twin")
        await one.sync()
        assert differences(index, tmp_path) == []
        assert shared.stat().st_ino == inode
        index.remove_project("twin-1")
        await one.sync()
        assert not shared.exists()
        assert differences(index, tmp_path) == []


@pytest.mark.parametrize("xmlrpc", [True, False])
async def test_one_that_is_gone_is_asked_for_by_name(tmp_path: Path, xmlrpc: bool) -> None:
    """It stays gone, and is owed to nobody; when it comes back it is served."""
    index = Index()
    for name in ("ant", "twin"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", name.encode()))
    async with following(index, tmp_path, Options(xmlrpc=xmlrpc)) as one:
        await one.sync()
        index.remove_project("ant")
        await one.sync(allow_removals=1)
        summary = await one.attempt("ant")
        assert (summary.owed, summary.removed) == ([], 0)
        await one.sync()
        index.publish("ant", "2.0", UploadedFile("ant-2.0.zip", b"new"))
        await one.sync()
        assert differences(index, tmp_path) == []
