"""The ledger in figures: the same as ``heliostat status`` tells, at another price, and in seconds as well."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from heliostat.errors import StateError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status as HttpStatus
from heliostat.fakeindex.synthetic import small_index
from heliostat.mirror.figures import STATES, disk_figures, figures_of, read_figures
from heliostat.mirror.places import DATABASE
from heliostat.mirror.status import read_status
from heliostat.state.queries import Queries
from support.mirrors import Followed, config_for, following

#: Indexes that hold none of the projects that are complete.
NOT_COMPLETE = ("INDEX projects_odd", "INDEX projects_stuck", "INDEX projects_owed")


def agrees_with_status(one: Followed) -> dict[str, int]:
    """The states that are not empty; figures and status must say the same."""
    figures, status = read_figures(one.config), read_status(one.config)
    states = {state: count for state, count in figures.states.items() if count}
    assert set(figures.states) == set(STATES)
    assert states == {state: count for state, count in status.states.items() if count}
    for name in ("upstream_serial", "cursor", "checkpoint", "last_poll", "projects", "files", "bytes"):
        assert getattr(figures, name) == getattr(status, name), name
    assert figures.stuck == status.stuck_count
    return states


async def test_the_same_as_status_in_every_state(tmp_path: Path) -> None:
    index = small_index()
    index.publish("bare", "1.0", [UploadedFile("bare-1.0.zip", b"no hash", hashes="none")])
    async with following(index, tmp_path, retries=1) as one:
        await one.attempt()
        index.quarantine("zeta")
        index.remove_project("old")
        index.yank("alpha", "1.0")
        one.server.fault("/simple/alpha/", HttpStatus(503))
        await one.attempt()
        assert {"current", "blocked", "failing", "gone", "quarantined"} == set(agrees_with_status(one))
        for name in list(index.projects())[:20]:
            if name != "alpha":
                index.remove_project(name)
        await one.attempt()
        assert agrees_with_status(one)["held"] > 5


async def test_how_long_it_is_behind(tmp_path: Path) -> None:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"1"))
    async with following(index, tmp_path, retries=1) as one:
        await one.sync()
        figures = read_figures(one.config)
        assert (figures.lag, figures.behind_since, figures.owed_since) == (0, None, None)
        one.server.fault("/simple/demo/", HttpStatus(503))
        index.publish("demo", "2.0", UploadedFile("demo-2.0.tar.gz", b"2"))
        before = time.time()
        await one.attempt()
        between = time.time()
        index.publish("other", "1.0", UploadedFile("other-1.0.tar.gz", b"3"))
        await one.attempt()
        figures = read_figures(one.config)
        # the first change counts, not what came after it
        assert figures.behind_since == figures.owed_since
        assert figures.behind_since is not None
        assert before - 0.1 <= figures.behind_since <= between + 0.1
        assert figures.lag
        one.server.clear_faults()
        await one.sync()
        figures = read_figures(one.config)
        assert (figures.lag, figures.behind_since, figures.owed_since) == (0, None, None)


async def test_a_blocked_project_does_not_hold_the_checkpoint_but_is_owed(tmp_path: Path) -> None:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"1"))
    async with following(index, tmp_path) as one:
        await one.sync()
        index.publish("bare", "1.0", [UploadedFile("bare-1.0.zip", b"no hash", hashes="none")])
        await one.attempt()
        figures = read_figures(one.config)
        assert (figures.lag, figures.behind_since) == (0, None)
        assert figures.owed_since is not None


async def test_an_idle_poll_still_writes_nothing(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        await one.attempt()
        before = one.listing()
        await one.attempt(patient=True)
        assert one.listing() == before


async def test_nothing_of_it_looks_at_what_is_complete(tmp_path: Path) -> None:
    """No step of any question goes through the table of projects, or through all that are published."""
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        connection = sqlite3.connect(tmp_path / DATABASE)
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        figures_of(Queries(connection))
        connection.set_trace_callback(None)
        assert len(asked) > 5
        for question in asked:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {question}")]
            scans = [step for step in plan if step.startswith("SCAN") and "projects" in step]
            assert all(step.endswith(NOT_COMPLETE) for step in scans), (question, plan)
        connection.close()


def test_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        read_figures(config_for(tmp_path, "http://127.0.0.1:1"))


def test_the_disk(tmp_path: Path) -> None:
    found = disk_figures(str(tmp_path))
    assert 0 < found.free <= found.size
    with pytest.raises(OSError, match="No such"):
        disk_figures(str(tmp_path / "nowhere"))
