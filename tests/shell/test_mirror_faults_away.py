"""An upstream that is not there, goes away in the middle of a pass, and comes back."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Options
from heliostat.fakeindex.faults import (
    Reset,
    Status,
)
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass


async def refused(config: Config, server: FakeIndex, projects: int) -> None:
    summary = await run_pass(config)
    assert summary.unreachable is not None
    assert f"{server.url}/" in summary.unreachable
    assert "cannot connect to" in summary.unreachable
    assert not summary.complete
    assert summary.projects == projects


@pytest.mark.parametrize("options", [Options(), Options(xmlrpc=False)], ids=["feed", "list"])
async def test_upstream_is_not_there(options: Options, tmp_path: Path) -> None:
    """Nobody listens: said once, nothing changes, and when it is back the mirror goes on."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=options) as server:
        config = config_for(tmp_path / "mirror", server)
        await server.refuse_connections()
        await refused(config, server, 0)
        await server.start()
        cursor = (await complete_pass(config)).cursor
        suffering.assert_equal(config, index)

        suffering.move_on(index)
        await server.refuse_connections()
        await refused(config, server, 4)
        summary = await run_pass(config)
        assert (summary.cursor, summary.checkpoint) == (cursor, cursor)
        await server.start()
        await complete_pass(config)
        suffering.assert_equal(config, index)


async def test_named_projects_and_upstream_is_not_there(tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects=("demo",))
        await server.refuse_connections()
        summary = await run_pass(config)
        assert summary.unreachable is not None
        assert not summary.complete
        await server.start()
        await complete_pass(config)


async def test_upstream_goes_away_in_mid_pass_and_comes_back(tmp_path: Path) -> None:
    """What was published by then stays, the rest stays owed, and not each of a thousand is tried in vain."""
    index = many_projects(400, files_per_project=2, sidecars=1, size=500)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, projects_at_once=8)
        counters = Counters()
        async with Mirror.open(config) as mirror:
            running = asyncio.create_task(mirror.run(counters=counters, stop=asyncio.Event()))
            await server.seen("/simple/project-*/", 100)
            await server.refuse_connections()
            summary = await running
        assert summary.unreachable is not None
        assert not summary.complete
        assert 0 < summary.projects < 400
        assert sum(summary.owed_by_state.values()) == 400 - summary.projects
        assert summary.owed_by_state.get("failing", 0) < 50
        assert summary.cursor == index.serial > summary.checkpoint
        suffering.assert_nothing_left(config)

        await server.start()
        server.reset_log()
        summary = await complete_pass(config)
        assert summary.added == server.count("/simple/project-*/")
        suffering.assert_equal(config, index)


async def test_upstream_is_away_for_a_moment(tmp_path: Path) -> None:
    """Every connection is reset, a few times: nobody notices but the count of retries."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=8)
        fault = server.fault("*", Reset(-1), times=5, skip=6)
        await complete_pass(config)
        assert fault.fired == 5
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("settings", [{}, {"projects_at_once": 1}], ids=["many-at-once", "one-at-once"])
async def test_a_dozen_failing_projects_are_not_an_upstream_that_is_down(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """However many fail for good, and however early they come, the others are mirrored after two passes at most."""
    index = many_projects(30, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, retries=1, **settings)
        server.fault(re.compile("/(simple|pypi)/project-00000(0.|1[0-4])/.*"), Status(503))
        await run_pass(config)
        summary = await run_pass(config)
        assert summary.unreachable is None
        assert summary.owed_by_state == {"failing": 15}
        assert summary.projects == 15
        suffering.assert_others_equal(config, index, *(f"project-{number:07}" for number in range(15)))


async def test_one_failing_project_alone_is_not_an_upstream_that_is_down(tmp_path: Path) -> None:
    """The feed was read a moment before."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault("/simple/demo/", Status(503))
        for _ in range(2):
            summary = await run_pass(config)
            assert summary.unreachable is None
            suffering.assert_owed(summary, "failing", "status 503")
