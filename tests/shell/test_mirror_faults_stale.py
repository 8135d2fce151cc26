"""Answers older than announced: they heal, or are accepted in the end, and say so."""

from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Options
from heliostat.fakeindex.faults import Action, Headers, Stale, Status
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.status import read_status
from support import suffering
from support.mirrors import changed, complete_pass, config_for, run_pass

WHERE = ("page", "document")


@pytest.mark.parametrize("where", WHERE)
async def test_stale_for_a_moment(where: str, tmp_path: Path) -> None:
    """It is asked for again, within the pass."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.move_on(index)
        fault = server.fault(suffering.PLACES[where], Stale(), times=2)
        summary = await complete_pass(config)
        assert fault.fired == 2
        assert summary.stuck == []
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", WHERE)
async def test_stale_for_longer(where: str, tmp_path: Path) -> None:
    """The project stays owed, and its good copy stays; when upstream has caught up so has the mirror."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        before = suffering.served(config)
        old, serial = index["demo"].last_serial, index.serial
        suffering.move_on(index)
        fault = server.fault(suffering.PLACES[where], Stale())
        for attempts in (1, 2):
            summary = await run_pass(config)
            reason = suffering.assert_owed(
                summary, "failing", f"stale: serial {old} where {index['demo'].last_serial} was wanted", server.url
            )
            assert suffering.PLACES[where] in reason
            assert summary.owed[0].attempts == attempts
            assert serial < summary.checkpoint < index["demo"].last_serial
            assert summary.stuck == []
            assert suffering.served(config) == before
            suffering.assert_others_equal(config, index)
        fault.remove()
        summary = await complete_pass(config)
        assert summary.stuck == []
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", WHERE)
async def test_stale_for_good(where: str, tmp_path: Path) -> None:
    """After bounded tries what there is is accepted, counted and listed; the next change is mirrored all the same."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=3)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        fault = server.fault(suffering.PLACES[where], Stale())
        for _ in range(2):
            suffering.assert_owed(await run_pass(config), "failing", "stale")
        summary = await complete_pass(config)
        assert summary.stuck == ["demo"]
        assert summary.checkpoint == index.serial
        suffering.assert_others_equal(config, index)
        assert (await complete_pass(config)).stuck == ["demo"]

        fault.remove()
        suffering.publish_victim(index, "3.0")
        summary = await complete_pass(config)
        assert summary.stuck == []
        suffering.assert_equal(config, index)


async def test_a_cache_that_is_stale_for_some_runs_is_waited_for(tmp_path: Path) -> None:
    """Many runs in a short time prove nothing: the project stays owed until the cache is fresh."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=2, stuck_seconds=3600.0, stale_tries=1)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        faults = [server.fault(suffering.PLACES[where], Stale()) for where in WHERE]
        for _ in range(6):
            suffering.assert_owed(await run_pass(config), "failing", "stale")
        for fault in faults:
            fault.remove()
        assert (await complete_pass(config)).stuck == []
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("full", [False, True])
async def test_what_was_accepted_heals_by_itself(full: bool, tmp_path: Path) -> None:
    """It stays listed, is looked at again after growing pauses and by a full run, and is as upstream in the end."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=1, stale_tries=1)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        faults = [server.fault(suffering.PLACES[where], Stale()) for where in WHERE]
        assert (await complete_pass(config)).stuck == ["demo"]
        slow = changed(config, stuck_seconds=3600.0)
        assert (await complete_pass(slow if full else config)).stuck == ["demo"]
        for fault in faults:
            fault.remove()
        if full:
            server.reset_log()
            assert (await complete_pass(slow)).stuck == ["demo"]
            assert server.count("/simple/demo/") == 0
            (stuck,) = read_status(slow).stuck
            assert stuck.due_at is not None
            assert "stale: serial" in stuck.reason
        summary = await complete_pass(slow if full else config, full=full)
        assert (summary.stuck, summary.stuck_count) == ([], 0)
        assert read_status(config).stuck_count == 0
        suffering.assert_equal(config, index)


async def test_only_tries_that_find_upstream_behind_count(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=3, stale_tries=1, retries=1)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        fault = server.fault("/simple/demo/", Status(500))
        for _ in range(4):
            suffering.assert_owed(await run_pass(config), "failing", "500")
        fault.remove()
        server.fault("/simple/demo/", Stale())
        for _ in range(2):
            suffering.assert_owed(await run_pass(config), "failing", "stale")
        assert (await complete_pass(config)).stuck == ["demo"]


async def test_a_list_announces_a_serial_that_gets_tries_of_its_own(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=2, stale_tries=1)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault("/simple/demo/", Stale())
        suffering.assert_owed(await run_pass(config), "failing", "stale")
        suffering.publish_victim(index, "3.0")
        suffering.assert_owed(await run_pass(config), "failing", "stale")
        assert (await complete_pass(config)).stuck == ["demo"]


async def test_a_page_older_than_the_one_shown_is_never_accepted(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=1, stale_tries=1)
        await complete_pass(config)
        before = suffering.served(config)
        index.touch("demo")
        server.fault("/simple/demo/", Headers({"X-PyPI-Last-Serial": "1"}))
        for _ in range(3):
            suffering.assert_owed(await run_pass(config), "failing", "stale: serial 1 where")
            assert suffering.served(config) == before


async def test_a_document_stays_while_its_page_has_files(tmp_path: Path) -> None:
    """One that answers 404 is waited for, then listed; the one that is there is not taken away, and follows again."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=3, stale_tries=1)
        await complete_pass(config)
        before = suffering.served(config)
        suffering.publish_victim(index, "2.0")
        fault = server.fault("/pypi/demo/json", Status(404))
        for _ in range(2):
            suffering.assert_owed(await run_pass(config), "failing", "404, but the page has files")
            assert suffering.served(config) == before
        for full in (False, True):
            assert (await complete_pass(config, full=full)).stuck == ["demo"]
            assert suffering.served(config)["json/demo"] == before["json/demo"]
            assert suffering.served(config)["simple/demo/index.v1_json"] != before["simple/demo/index.v1_json"]
        suffering.assert_others_equal(config, index)
        fault.remove()
        assert (await complete_pass(config)).stuck == []
        suffering.assert_equal(config, index)


async def test_a_serial_that_is_stuck_upstream(tmp_path: Path) -> None:
    """The content is new, only its serial is not: accepted in the end, and what is served is all there is."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stuck_after=2)
        await complete_pass(config)
        index.hold_serial("demo")
        suffering.publish_victim(index, "2.0")
        suffering.assert_owed(await run_pass(config), "failing", "stale")
        assert (await complete_pass(config)).stuck == ["demo"]
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("header", "stale"), [("1", True), (None, False), ("0", False), ("-1", False), ("9" * 40, False), ("many", False)]
)
async def test_what_the_header_says(header: str | None, stale: bool, where: str, tmp_path: Path) -> None:
    """The lower one of header and body counts; what is no serial counts for nothing."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        server.fault(suffering.PLACES[where], Headers({"X-PyPI-Last-Serial": header}))
        summary = await run_pass(config)
        if stale:
            suffering.assert_owed(summary, "failing", "stale: serial 1 where")
        else:
            assert summary.complete, summary
            suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", WHERE)
async def test_an_old_body_under_a_new_header(where: str, tmp_path: Path) -> None:
    """A cache that mixes them does not get an old page accepted."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        previous = index.previous("demo")
        assert previous is not None

        def age(body: Any) -> None:
            body.get("meta", body)["_last-serial" if where == "page" else "last_serial"] = previous.last_serial

        suffering.lie(server, age, where=where)
        suffering.assert_owed(await run_pass(config), "failing", f"stale: serial {previous.last_serial}")


#: A page of one moment and a document of another, where no serial tells which is older.
LACKING = {
    "page": lambda body: body["files"].pop(),
    "document": lambda body: body["releases"].popitem(),
}


def without_serial(change: Any) -> Any:
    def apply(body: Any) -> None:
        change(body)
        body.pop("last_serial", None)
        body.get("meta", {}).pop("_last-serial", None)

    return apply


@pytest.mark.parametrize("where", WHERE)
async def test_page_and_document_disagree(where: str, tmp_path: Path) -> None:
    """They are read once more; as long as they disagree the project is owed."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(serial_header=False)) as server:
        config = config_for(tmp_path / "mirror", server)
        change = suffering.rewrite(without_serial(LACKING[where]))
        once = server.fault(suffering.PLACES[where], change, times=1)
        await complete_pass(config)
        assert once.fired == 1
        suffering.assert_equal(config, index)

        before = suffering.served(config)
        suffering.publish_victim(index, "2.0")
        server.fault(suffering.PLACES[where], change)
        suffering.assert_owed(await run_pass(config), "failing", "list different files", f"{server.url}/simple/demo/")
        assert suffering.served(config) == before
        server.clear_faults()
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_a_page_that_lost_its_files_for_a_moment(tmp_path: Path) -> None:
    """From many files to none is looked at again before it is believed."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        index.touch("demo")
        empty = suffering.rewrite(lambda body: body["files"].clear())
        fault = server.fault("/simple/demo/", empty, times=1)
        await complete_pass(config)
        assert fault.fired == 1
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("action", [Status(404), Headers({"X-PyPI-Last-Serial": "1"})], ids=["missing", "stale"])
async def test_the_only_document_in_doubt(action: Action, tmp_path: Path) -> None:
    """On a first run nobody knows yet whether there are documents; a missing one is noticed all the same."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects_at_once=1, metadata_at_once=1)
        server.fault("/pypi/alpha/json", action, times=3)  # the first project that is looked at
        summary = await run_pass(config)
        assert [one.project for one in summary.owed] == ["alpha"]
        await complete_pass(config)
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("serial", [150_000, 2**53, 2**63 - 1])
@pytest.mark.parametrize("where", [*WHERE, "both"])
async def test_a_serial_far_ahead_is_not_believed_for_ever(serial: int, where: str, tmp_path: Path) -> None:
    """A page that claims to be of the far future does not keep later changes from being mirrored."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(serial_header=False)) as server:
        config = config_for(tmp_path / "mirror", server)

        def ahead(body: Any) -> None:
            if "meta" in body:
                body["meta"]["_last-serial"] = serial
            else:
                body["last_serial"] = serial

        for each in WHERE if where == "both" else (where,):
            suffering.lie(server, ahead, where=each)
        await run_pass(config)
        server.clear_faults()
        suffering.publish_victim(index, "2.0")
        summary = await complete_pass(config)
        assert summary.cursor == index.serial
        suffering.assert_equal(config, index)


async def test_every_project_at_once(tmp_path: Path) -> None:
    """A cache that serves everything as it was an hour ago: all are owed, none is changed, all heal."""
    index = many_projects(40, files_per_project=2, sidecars=1, size=200)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        names = list(index.projects())
        for name in names:
            index.touch(name)
        fault = server.fault("/simple/project-*/", Stale())
        summary = await run_pass(config)
        assert summary.owed_by_state == {"failing": len(names)}
        assert summary.unreachable is None
        fault.remove()
        await complete_pass(config)
        suffering.assert_equal(config, index)
