"""How a mirror learns what changed: the feed, the root list, a full reconcile, the slow sweep; and when which."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sqlite3
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Action, Body, Cut, Fault, Reset, Rewrite, Status, XmlFault, method_removed
from heliostat.fakeindex.http import Request
from heliostat.fakeindex.synthetic import many_projects, provenance_for, small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.mirror.status import read_status
from support.equality import differences
from support.mirrors import Followed, following


def few(*names: str) -> Index:
    """An index of projects with one wheel each."""
    index = Index()
    for name in names or ("ant", "bee", "cat"):
        index.publish(name, "1.0", [uploaded(wheel(name, "1.0"))])
    return index


def calls(one: Followed) -> list[str]:
    """The XML-RPC methods that were called, and root lists that were fetched, in order."""
    return [called for request in one.server.requests if (called := _called(request))]


def _called(request: Request) -> str | None:
    if request.path == "/simple/":
        return "list"
    if request.method == "POST":
        return request.body.partition(b"<methodName>")[2].partition(b"</methodName>")[0].decode()
    return None


def unseen_release(one: Followed, name: str, version: str = "2.0") -> None:
    """Publish a release whose rows never come in the feed, nor will."""
    before = one.index.serial
    one.index.publish(name, version, [uploaded(wheel(name, version))])
    hide(one, before, one.index.serial)


def hide(one: Followed, low: int, high: int) -> Fault:
    """From now on the feed lacks the rows above serial ``low`` and up to ``high``."""
    return one.server.fault(
        lambda request: b"changelog_since_serial" in request.body,
        Rewrite(lambda body: _without_rows(body, low, high)),
    )


def _without_rows(body: bytes, low: int, high: int) -> bytes:
    """The feed's answer without the rows whose serials lie above ``low`` and up to ``high``."""
    mark = b"<value><array><data>\n"
    head, *rows = body.split(mark)
    kept = [row for row in rows if not any(b"<int>%d</int>" % serial in row for serial in range(low + 1, high + 1))]
    tail = b"</data></array>" + body.rpartition(b"</data></array>")[2]
    return mark.join([head, *kept]) if kept and kept[-1] is rows[-1] else mark.join([head, *kept]) + tail


# -- auto ------------------------------------------------------------------------------------------------------


async def test_the_list_first_then_the_feed(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        assert calls(one) == ["list"]
        one.server.reset_log()
        one.index.publish("dog", "1.0", [uploaded(wheel("dog", "1.0"))])
        await one.sync()
        assert calls(one) == ["changelog_last_serial", "changelog_since_serial", "changelog_since_serial"]
        assert differences(one.index, tmp_path) == []


async def test_far_behind_the_list_is_read_instead_of_the_feed(tmp_path: Path) -> None:
    async with following(few(), tmp_path, far_behind=50) as one:
        await one.sync()
        one.index.skip_serials(100)
        one.index.publish("dog", "1.0", [uploaded(wheel("dog", "1.0"))])
        one.server.reset_log()
        await one.sync()
        assert calls(one) == ["changelog_last_serial", "list"]
        assert differences(one.index, tmp_path) == []
        one.index.touch("dog")
        one.server.reset_log()
        await one.sync()
        assert "list" not in calls(one)


async def test_after_some_hours_the_list_is_compared_with_the_ledger(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        unseen_release(one, "bee")
        one.index.touch("ant")
        await one.sync()
        assert len(one.files("bee")) == 1
        one.configure(reconcile_hours=0.0)
        one.server.reset_log()
        await one.sync()
        assert "list" in calls(one)
        assert differences(one.index, tmp_path) == []


async def test_a_full_pass_finds_what_the_feed_missed(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        unseen_release(one, "bee")
        one.index.touch("ant")
        summary = await one.sync()
        assert len(one.files("bee")) == 1
        assert summary.cursor == one.index.serial  # it believes that it is up to date
        summary = await one.sync(full=True)
        assert summary.updated == 1
        assert differences(one.index, tmp_path) == []


async def test_a_removal_that_the_feed_missed_is_found_by_a_full_pass(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        before = one.index.serial
        one.index.remove_project("bee")
        hide(one, before, one.index.serial)
        one.index.touch("ant")
        await one.sync()
        assert (tmp_path / "web/simple/bee").exists()
        assert (await one.sync(full=True)).removed == 1
        assert differences(one.index, tmp_path) == []


async def test_rows_are_read_page_by_page_until_there_are_no_more(tmp_path: Path) -> None:
    async with following(few(), tmp_path, Options(row_cap=3)) as one:
        await one.sync()
        for number in range(5):
            one.index.publish("dog", f"1.{number}", [uploaded(wheel("dog", f"1.{number}"))])
        one.index.yank("ant", "1.0")
        one.server.reset_log()
        summary = await one.sync()
        assert one.server.count(lambda request: b"changelog_since_serial" in request.body) > 4
        assert summary.cursor == one.index.serial
        assert differences(one.index, tmp_path) == []


async def test_a_row_that_appears_below_the_cursor_is_found(tmp_path: Path) -> None:
    """Some servers make rows visible out of order, so a little of the feed is read again."""
    async with following(few(), tmp_path) as one:
        await one.sync()
        before = one.index.serial
        one.index.publish("bee", "2.0", [uploaded(wheel("bee", "2.0"))])
        late = hide(one, before, one.index.serial)
        one.index.touch("ant")
        await one.sync()
        assert len(one.files("bee")) == 1
        late.remove()
        one.index.touch("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_what_is_read_again_is_not_fetched_again(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        one.index.touch("ant")
        await one.sync()
        one.index.touch("cat")
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/simple/*") == one.server.count("/simple/cat/") == 1


async def test_an_index_without_feed_is_followed_by_its_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heliostat.mirror")
    async with following(few(), tmp_path, Options(xmlrpc=False)) as one:
        await one.sync()
        one.index.publish("dog", "1.0", [uploaded(wheel("dog", "1.0"))])
        await one.sync()
        one.index.remove_project("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert one.server.count(lambda request: request.method == "POST") == 1
        assert [record.message for record in caplog.records if "no change feed" in record.message].__len__() == 1


async def test_a_feed_that_was_taken_away_is_left_for_the_list(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        one.server.fault("/pypi", method_removed())
        one.index.remove_project("ant")
        await one.sync()
        one.index.yank("bee", "1.0")
        one.server.reset_log()
        await one.sync()
        assert calls(one) == ["list"]
        assert differences(one.index, tmp_path) == []


async def test_a_feed_that_fails_for_now_is_replaced_by_the_list_once(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        broken = one.server.fault("/pypi", XmlFault())
        one.index.yank("bee", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        broken.remove()
        one.index.unyank("bee", "1.0")
        one.server.reset_log()
        await one.sync()
        assert "list" not in calls(one)
        assert differences(one.index, tmp_path) == []


async def test_a_list_that_fails_is_replaced_by_the_feed(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        one.server.fault("/simple/", Status(500))
        one.index.yank("bee", "1.0")
        one.configure(reconcile_hours=0.0)
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_nothing_that_answers_is_unreachable(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        one.server.fault("/simple/", Status(500))
        one.server.fault("/pypi", Status(500))
        one.index.yank("bee", "1.0")
        summary = await one.attempt()
        assert summary.unreachable is not None
        assert not summary.complete
        assert str(tmp_path) not in summary.unreachable
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path) == []


# -- feed only, list only --------------------------------------------------------------------------------------


async def test_the_feed_only(tmp_path: Path) -> None:
    """Not even the first run reads the root list, and what is in quarantine already is known."""
    async with following(small_index(), tmp_path, changes="feed") as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert (tmp_path / "web/simple/quarantined").exists()
        one.index.remove_project("zeta")
        one.index.publish("dog", "1.0", [uploaded(wheel("dog", "1.0"))])
        await one.sync()
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []
        assert "list" not in calls(one)
        assert calls(one).count("list_packages_with_serial") == 2


async def test_the_feed_only_where_there_is_none(tmp_path: Path) -> None:
    async with following(few(), tmp_path, Options(xmlrpc=False), changes="feed") as one:
        summary = await one.attempt()
        assert summary.unreachable is not None
        assert "list" not in calls(one)


async def test_the_first_run_goes_on_without_a_root_list_where_there_is_a_feed(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        one.server.fault("/simple/", Status(404))
        await one.sync()
        assert differences(one.index, tmp_path) == []


@pytest.mark.parametrize("fault", [Reset(0.5), Cut(0.5), Reset(-1), Status(503)])
@pytest.mark.parametrize("changes", ["feed", "list"])
async def test_a_complete_list_that_breaks_off_is_begun_again(tmp_path: Path, changes: str, fault: Action) -> None:
    async with following(few(), tmp_path, changes=changes) as one:
        lists = one.server.fault(
            lambda request: request.path == "/simple/" or b"list_pack" in request.body, fault, times=2
        )
        await one.sync()
        assert lists.fired == 2
        assert differences(one.index, tmp_path) == []


async def test_the_list_only(tmp_path: Path) -> None:
    async with following(few(), tmp_path, changes="list") as one:
        await one.sync()
        one.index.remove_project("ant")
        one.index.yank("bee", "1.0", "why")
        one.index.publish("dog", "1.0", [uploaded(wheel("dog", "1.0"))])
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert set(calls(one)) == {"list"}


async def test_an_unchanged_list_is_not_sent_again_and_a_changed_one_is(tmp_path: Path) -> None:
    async with following(few(), tmp_path, changes="list") as one:
        await one.sync()
        await one.sync()
        one.index.yank("bee", "1.0")
        await one.sync()
        statuses = [request.status for request in one.server.requests if request.path == "/simple/"]
        assert statuses == [200, 304, 200]


async def test_projects_of_a_list_without_serials_are_asked_after_with_conditions(tmp_path: Path) -> None:
    async with following(few(), tmp_path, Options(xmlrpc=False)) as one:
        one.server.fault("/simple/", Rewrite(lambda body: re.sub(rb'"_last-serial":\d+,', b"", body)))
        await one.sync()
        one.index.yank("bee", "1.0")
        one.server.reset_log()
        await one.sync()
        assert one.page("bee")["files"][0]["yanked"] is True
        pages = [(request.path, request.status) for request in one.server.requests if request.path[:8] == "/simple/"]
        assert ("/simple/ant/", 304) in pages
        assert ("/simple/bee/", 200) in pages
        assert not any(request.path.startswith("/packages/") for request in one.server.requests)


async def test_another_spelling_without_a_serial_is_seen_in_the_list(tmp_path: Path) -> None:
    """Of a project without a release there is no document that would tell, and its page does not."""
    index = few()
    index.create("Not.Yet")
    async with following(index, tmp_path) as one:
        await one.sync()
        index.recase("Not.Yet", "not_YET")
        await one.sync()
        assert "Not.Yet" in one.root()
        await one.sync(full=True)
        assert "not_YET" in one.root()
        assert differences(index, tmp_path) == []


# -- the slow sweep --------------------------------------------------------------------------------------------


async def test_the_sweep_finds_what_has_no_serial(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, heartbeat=0.0) as one:
        await one.sync()
        index = one.index
        wheel_name = "late_metadata-1.0-py3-none-any.whl"
        index.archive("zeta")
        index.recase("gamma_sdist", "Gamma.SDist")
        index.set_vulnerabilities("alpha", "1.1", [{"id": "X-2", "aliases": []}])
        index.add_late_sidecar("late-metadata", "1.0", wheel_name, wheel("late-metadata", "1.0").metadata)
        beta = index["Beta.Lib"].releases["1.0"].files[0]
        index.set_provenance("Beta.Lib", "1.0", beta.filename, provenance_for(beta))
        await one.sync()
        assert one.page("zeta")["project-status"]["status"] == "active"
        one.configure(sweep_days=1e-12)
        one.server.reset_log()
        summary = await one.sync()
        assert one.page("zeta")["project-status"]["status"] == "archived"
        assert "Gamma.SDist" in one.root()
        assert one.files("late-metadata")[wheel_name].with_name(f"{wheel_name}.metadata").exists()
        assert differences(index, tmp_path) == []
        # What had not changed was asked for with conditions, and cost an empty answer.
        assert summary.unchanged >= 15
        assert one.server.count(lambda request: request.status == 304) >= 2 * summary.unchanged


async def test_the_sweep_finds_new_contents_of_a_provenance_object(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, heartbeat=0.0) as one:
        await one.sync()
        file = one.index["signed"].releases["1.0"].files[0]
        one.index.set_provenance("signed", "1.0", file.filename, provenance_for(file, repository="example/other"))
        one.configure(sweep_days=1e-12)
        await one.sync()
        path = f"web/integrity/signed/1.0/{file.filename}/provenance"
        assert json.loads((tmp_path / path).read_bytes()) == provenance_for(file, repository="example/other")
        assert differences(one.index, tmp_path) == []
        before = one.listing()
        await one.sync()
        assert one.listing()[path] == before[path]


async def test_each_sweep_takes_a_share_of_the_projects(tmp_path: Path) -> None:
    async with following(many_projects(40, 1, 0, 10), tmp_path, heartbeat=0.0, sweep_days=30.0) as one:
        await one.sync()
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/simple/*") == 0  # in thirty days each once: not one of forty yet


# -- a clock that was ahead ------------------------------------------------------------------------------------


def in_a_year(one: Followed, column: str) -> None:
    """What the ledger remembers of now, it remembers of a time that is to come."""
    table, where = ("projects", "1") if column != "reconciled" else ("meta", f"key = '{column}'")
    column = column if table == "projects" else "value"
    with contextlib.closing(sqlite3.connect(one.directory / "heliostat.db")) as ledger, ledger:
        ledger.execute(f"UPDATE {table} SET {column} = {column} + 365 * 86400 WHERE {where}")


async def test_a_list_compared_in_the_future_is_compared_again(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        in_a_year(one, "reconciled")
        one.server.reset_log()
        await one.sync()
        assert one.server.count("/simple/") == 1
        await one.sync()
        assert one.server.count("/simple/") == 1


async def test_projects_looked_at_in_the_future_are_swept_first(tmp_path: Path) -> None:
    async with following(few(), tmp_path, heartbeat=0.0) as one:
        await one.sync()
        in_a_year(one, "checked_at")
        one.index.archive("bee")
        one.configure(sweep_days=1e-12)
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_next_try_far_in_the_future_is_not_waited_for(tmp_path: Path) -> None:
    async with following(few(), tmp_path, retries=1) as one:
        await one.sync()
        one.index.touch("bee")
        one.server.fault("/simple/bee/", Status(503), times=1)
        await one.attempt()
        in_a_year(one, "due_at")
        await one.sync(patient=True)


async def test_a_first_404_in_the_future_is_the_first_one_now(tmp_path: Path) -> None:
    async with following(few(), tmp_path, projects=("ant", "bee"), changes="list") as one:
        await one.sync()
        one.index.remove_project("bee")
        await one.attempt()
        in_a_year(one, "missing_at")
        await one.attempt()
        assert (await one.attempt()).removed == 1


async def test_the_sweep_of_a_project_that_fails_once_ends_well(tmp_path: Path) -> None:
    async with following(few(), tmp_path, heartbeat=0.0, retries=1) as one:
        await one.sync()
        one.configure(sweep_days=1e-12)
        one.server.fault("/simple/bee/", Status(503), times=1)
        summary = await one.attempt()
        assert [owed.project for owed in summary.owed] == ["bee"]
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_a_project_in_quarantine_that_fails_once_stays_in_quarantine(tmp_path: Path) -> None:
    async with following(few(), tmp_path, heartbeat=0.0, retries=1) as one:
        await one.sync()
        one.index.quarantine("bee")
        await one.sync()
        one.configure(sweep_days=1e-12)
        one.server.fault("/simple/bee/", Status(503), times=1)
        one.index.touch("ant")
        await one.attempt()
        assert "bee" not in one.root()
        await one.sync()
        assert "bee" not in one.root()
        assert differences(one.index, tmp_path) == []


# -- serials that never come -----------------------------------------------------------------------------------


async def test_a_serial_that_stays_behind_is_accepted_after_some_tries_and_listed(tmp_path: Path) -> None:
    async with following(few(), tmp_path, stuck_after=3, stale_tries=2) as one:
        await one.sync()
        one.index.hold_serial("bee")
        one.index.yank("bee", "1.0", "stuck")
        for attempts in (1, 2):
            summary = await one.attempt()
            assert [(owed.project, owed.attempts) for owed in summary.owed] == [("bee", attempts)]
            assert summary.checkpoint < summary.cursor
        summary = await one.attempt()
        assert summary.complete
        assert summary.stuck == ["bee"]
        assert summary.checkpoint == summary.cursor == one.index.serial
        assert one.page("bee")["files"][0]["yanked"] == "stuck"
        status = read_status(one.config)
        assert [(row.project, "stale" in row.reason) for row in status.stuck] == [("bee", True)]
        assert (await one.sync()).stuck == ["bee"]
        one.index.hold_serial("bee", held=False)
        one.index.touch("bee")
        assert (await one.sync()).stuck == []
        assert read_status(one.config).stuck == []


async def test_odd_rows_of_the_feed_do_no_harm(tmp_path: Path) -> None:
    async with following(few(), tmp_path) as one:
        await one.sync()
        one.index.journal_row("", None, "keyrotate ")
        one.index.journal_row("ant", None, "docupdate")
        one.index.journal_row("bee", "1.0", "a brand-new kind of action with ünïcode")
        one.index.publish("cat", "1.0", [UploadedFile("cat-ünï.zip", Virtual(5, 5))])
        summary = await one.sync()
        assert summary.cursor == one.index.serial
        assert differences(one.index, tmp_path) == []


async def test_a_feed_with_garbage_is_not_believed(tmp_path: Path) -> None:
    async with following(few(), tmp_path, changes="feed") as one:
        await one.sync()
        one.server.fault("/pypi", Body(b"<?xml version='1.0'?><methodResponse><params/>", "text/xml"))
        one.index.touch("ant")
        summary = await one.attempt()
        assert summary.unreachable is not None
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_only_the_first_reading_of_a_process_goes_back_a_little(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        asked: list[int] = []
        async with Mirror.open(one.config) as mirror:
            for _ in range(3):
                one.index.touch("alpha")
                one.server.reset_log()
                before = one.index.serial - 1
                await mirror.run(counters=Counters(), stop=asyncio.Event())
                calls = [request.body for request in one.server.requests if b"changelog_since_serial" in request.body]
                asked.append(before - int(calls[0].partition(b"<int>")[2].partition(b"</int>")[0]))
        assert asked[0] > 0
        assert asked[1:] == [0, 0]
