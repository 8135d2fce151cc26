"""Which projects: an allow-list, names on the command line, and a configuration that changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, Options
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from support.equality import differences
from support.mirrors import Followed, following

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def animals() -> Index:
    index = Index()
    for name in NAMES:
        index.publish(name, "1.0", [uploaded(wheel(name, "1.0"))])
    return index


def whole_lists(one: Followed) -> int:
    """Requests for a list of the whole index, in whatever form."""
    return one.server.count("/simple/") + one.server.count(
        lambda request: b"list_packages" in request.body or request.path == "/simple"
    )


def mirrored(one: Followed) -> list[str]:
    """Names that the tree has pages of."""
    folders = {path.name for path in (one.web / "simple").iterdir() if path.is_dir()}
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in one.root()} == folders
    return sorted(folders)


# -- an allow-list ---------------------------------------------------------------------------------------------


async def test_a_list_of_projects_never_costs_a_list_of_the_index(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("Ant", "bee")) as one:
        await one.sync()
        assert mirrored(one) == ["ant", "bee"]
        one.index.publish("ant", "2.0", [uploaded(wheel("ant", "2.0"))])
        one.index.publish("cat", "2.0", [uploaded(wheel("cat", "2.0"))])
        await one.sync()
        await one.sync(full=True)
        one.configure(reconcile_hours=0.0, far_behind=1, sweep_days=1e-12, heartbeat=0.0)
        one.index.touch("ant")
        one.index.touch("cat")
        await one.sync()
        await one.sync()
        assert len(one.files("ant")) == 2
        assert whole_lists(one) == 0
        assert one.server.count("*cat*") == 0
        assert differences(one.index, tmp_path, only=["ant", "bee"]) == []


async def test_its_polls_are_filtered_by_the_feed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee")) as one:
        await one.sync()
        one.index.touch("fox")
        one.index.yank("ant", "1.0")
        one.server.reset_log()
        summary = await one.sync()
        pages = [request.path for request in one.server.requests if request.method == "GET"]
        assert sorted(pages) == ["/pypi/ant/json", "/simple/ant/"]
        assert summary.checkpoint == one.index.serial
        one.server.reset_log()
        await one.sync()
        assert one.server.request_count == 1


async def test_without_a_feed_each_project_is_asked_after_with_conditions(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, Options(xmlrpc=False), projects=("ant", "bee")) as one:
        await one.sync()
        before = one.listing()
        one.index.yank("ant", "1.0")
        one.server.reset_log()
        await one.sync()
        answers = {(request.path, request.status) for request in one.server.requests}
        assert answers >= {("/simple/bee/", 304), ("/pypi/bee/json", 304), ("/simple/ant/", 200)}
        assert whole_lists(one) == 0
        after = one.listing()
        assert all(after[path] == found for path, found in before.items() if "bee" in path)
        assert differences(one.index, tmp_path, only=["ant", "bee"]) == []


async def test_a_removed_project_of_the_list_goes(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee", "cat")) as one:
        await one.sync()
        one.index.remove_project("ant")
        summary = await one.attempt()
        assert summary.removed == 1
        assert mirrored(one) == ["bee", "cat"]
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        await one.sync()
        assert mirrored(one) == ["ant", "bee", "cat"]


async def test_a_removal_that_the_feed_did_not_tell_is_believed_at_the_second_look(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee", "cat"), projects_at_once=1) as one:
        await one.sync()
        one.index.remove_project("ant")
        one.index.skip_serials(100)
        one.configure(far_behind=50)  # so far that the rows are not read, and of a list there is none
        assert [owed.project for owed in (await one.attempt()).owed] == ["ant"]
        summary = await one.sync()
        assert summary.removed == 1
        assert differences(one.index, tmp_path, only=["bee", "cat"]) == []


async def test_names_that_upstream_does_not_have_are_owed_and_said(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "unicorn")) as one:
        for _ in range(2):
            summary = await one.attempt()
            assert not summary.complete
            assert [(owed.project, owed.state) for owed in summary.owed] == [("unicorn", "failing")]
            assert "no such project" in summary.owed[0].reason
        assert mirrored(one) == ["ant"]
        assert summary.checkpoint == summary.cursor == one.index.serial
        one.index.publish("unicorn", "1.0", [uploaded(wheel("unicorn", "1.0"))])
        await one.sync()
        assert mirrored(one) == ["ant", "unicorn"]


async def test_a_mirror_of_names_that_upstream_does_not_have_at_all(tmp_path: Path) -> None:
    for options in (Options(), Options(xmlrpc=False)):
        directory = tmp_path / str(options.xmlrpc)
        async with following(animals(), directory, options, projects=("unicorn", "yeti")) as one:
            summary = await one.attempt()
            assert {owed.project for owed in summary.owed} == {"unicorn", "yeti"}
            assert not summary.complete
            assert mirrored(one) == []


# -- names on the command line ---------------------------------------------------------------------------------


async def test_names_are_synchronised_and_nothing_else_moves(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee")) as one:
        first = await one.sync()
        one.index.yank("ant", "1.0")
        one.index.yank("bee", "1.0")
        one.server.reset_log()
        before = one.listing()
        summary = await one.sync("ant", "Fox")
        assert mirrored(one) == ["ant", "bee", "fox"]
        assert (summary.added, summary.updated) == (1, 1)
        assert one.page("ant")["files"][0]["yanked"] is True
        assert one.page("bee")["files"][0]["yanked"] is False
        assert (summary.cursor, summary.checkpoint) == (first.cursor, first.checkpoint)
        assert one.listing()["status"] == before["status"]
        assert one.server.count(lambda request: request.method == "POST") == whole_lists(one) == 0
        await one.sync()
        assert one.page("bee")["files"][0]["yanked"] is True
        assert mirrored(one) == ["ant", "bee", "fox"]  # asked for once, followed from now on


async def test_a_name_outside_the_scope_is_followed_by_the_feed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant",)) as one:
        await one.sync()
        await one.sync("fox")
        one.index.yank("fox", "1.0")
        await one.sync()
        assert one.page("fox")["files"][0]["yanked"] is True
        one.index.remove_project("fox")
        one.configure(projects=("ant", "bee", "cat", "dog"))  # the guard is for small mirrors, too
        await one.sync()
        assert mirrored(one) == ["ant", "bee", "cat", "dog"]


async def test_names_into_an_empty_mirror(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        summary = await one.sync("ant")
        assert mirrored(one) == ["ant"]
        assert summary.cursor == 0
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_an_unknown_name_is_listed_and_forgotten(tmp_path: Path) -> None:
    for projects in (("ant",), ()):
        async with following(animals(), tmp_path / str(len(projects)), projects=projects) as one:
            await one.sync()
            summary = await one.attempt("Uni.Corn", "bee")
            assert summary.unknown == ["Uni.Corn"]
            assert not summary.complete
            assert summary.owed == []
            assert "bee" in mirrored(one)
            await one.sync()


async def test_a_first_try_of_a_name_that_fails_is_made_up_for(tmp_path: Path) -> None:
    from heliostat.fakeindex.faults import Status

    async with following(animals(), tmp_path, projects=("ant",)) as one:
        await one.sync()
        one.server.fault("/simple/fox/", Status(503))
        summary = await one.attempt("fox")
        assert [owed.project for owed in summary.owed] == ["fox"]
        assert summary.unknown == []
        one.server.clear_faults()
        await one.sync()
        assert mirrored(one) == ["ant", "fox"]


async def test_an_unknown_name_that_was_not_asked_after_in_time_does_not_stay(tmp_path: Path) -> None:
    from heliostat.fakeindex.faults import Status

    async with following(animals(), tmp_path, projects=("ant",)) as one:
        await one.sync()
        broken = one.server.fault("/simple/unicorn/", Status(503))
        await one.attempt("unicorn")
        broken.remove()
        assert (await one.attempt()).unknown == ["unicorn"]
        await one.sync()


# -- a configuration that changes ------------------------------------------------------------------------------


async def test_projects_that_are_added_are_looked_for(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant",)) as one:
        await one.sync()
        one.configure(projects=("ant", "bee"))
        summary = await one.sync()
        assert (summary.added, summary.updated) == (1, 0)
        assert mirrored(one) == ["ant", "bee"]
        assert whole_lists(one) == 0


async def test_projects_that_are_dropped_are_removed_with_their_bytes(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=NAMES) as one:
        await one.sync()
        kept = {path: found for path, found in one.listing().items() if "ant" in path}
        one.configure(projects=NAMES[:-2])
        summary = await one.sync()
        assert summary.removed == 2
        assert mirrored(one) == list(NAMES[:-2])
        assert differences(one.index, tmp_path, only=list(NAMES[:-2])) == []
        assert kept.items() <= one.listing().items()
        one.configure(projects=NAMES)
        await one.sync()
        assert differences(one.index, tmp_path, only=list(NAMES)) == []


async def test_a_scope_that_drops_most_of_a_mirror_waits_for_approval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        one.configure(everything=False, projects=("ant",))
        for _ in range(2):
            summary = await one.attempt()
            assert summary.held == 5
            assert not summary.complete
        assert mirrored(one) == list(NAMES)
        assert {path: found for path, found in before.items() if path.startswith("web/packages")}.items() <= (
            one.listing().items()
        )
        assert "heliostat mirror --once --allow-removals 5" in caplog.text
        summary = await one.sync(allow_removals=5)
        assert (summary.removed, summary.updated, summary.unchanged) == (5, 0, 0)
        assert mirrored(one) == ["ant"]
        assert differences(one.index, tmp_path, only=["ant"]) == []


async def test_a_scope_that_was_a_mistake_is_taken_back(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.configure(everything=False, projects=("ant",))
        await one.attempt()
        one.configure(everything=True, projects=())
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.configure(everything=False, projects=("ant",))
        await one.attempt()
        one.configure(projects=NAMES)
        await one.sync()
        assert mirrored(one) == list(NAMES)


async def test_from_some_projects_to_everything_and_back(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee", "cat", "dog")) as one:
        await one.sync()
        await one.sync("eel")
        one.index.yank("fox", "1.0")
        one.configure(everything=True, projects=())
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert "eel" in mirrored(one)
        one.configure(everything=False, projects=("ant", "bee", "cat", "dog"))
        await one.attempt()
        assert mirrored(one) == ["ant", "bee", "cat", "dog"]
        one.index.publish("gnu", "1.0", [uploaded(wheel("gnu", "1.0"))])
        one.configure(everything=True, projects=())
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_what_was_asked_for_by_name_is_removed_like_the_rest_once_everything_is_mirrored(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, changes="list", projects=("ant", "bee", "cat")) as one:
        await one.sync()
        await one.sync("fox")
        one.configure(everything=True, projects=())
        await one.sync()
        one.index.remove_project("fox")
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_what_was_owed_and_is_no_longer_in_scope_is_owed_no_more(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "unicorn")) as one:
        assert not (await one.attempt()).complete
        one.configure(projects=("ant",))
        await one.sync()


async def test_rows_of_the_feed_between_two_scopes_are_not_lost(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee")) as one:
        await one.sync()
        one.index.yank("ant", "1.0")
        one.index.publish("cat", "2.0", [uploaded(wheel("cat", "2.0"))])
        one.configure(projects=("ant", "cat"))
        await one.sync(allow_removals=1)
        assert differences(one.index, tmp_path, only=["ant", "cat"]) == []
