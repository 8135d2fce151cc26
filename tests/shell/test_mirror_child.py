"""A heliostat that follows another one's tree, also while the parent is behind, owes something or is put together anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import Config
from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import Index, Options
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from support.equality import differences
from support.mirrors import Followed, complete_pass, config_for, following, listing, rebuild, rewritten, run_pass
from support.served import Served, static_server


@asynccontextmanager
async def family(
    index: Index, directory: Path, options: Options | None = None, **overrides: Any
) -> AsyncIterator[tuple[Followed, Config, Served]]:
    """A parent after its first pass, the configuration of its child, and the server between them."""
    async with following(index, directory / "parent", options, **overrides) as parent:
        await parent.attempt()
        with static_server(parent.web) as served:
            yield parent, config_for(directory / "child", served.url), served


def files_asked(served: Served) -> list[str]:
    return [line for line in served.requests() if "/packages/" in line]


async def test_the_child_is_equal_to_the_index_itself(tmp_path: Path) -> None:
    async with family(small_index(), tmp_path) as (parent, child, served):
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "child") == []
        asked = len(served.requests())
        before = listing(tmp_path / "child", without=[".lock"])
        await complete_pass(child)
        # The first poll after the first list finds the feed, and asks for the list once more: what is in both?  Then it
        # is one request.
        assert [line.split()[0:2] for line in served.requests()[asked:]] == [
            ["POST", "/pypi"], ["GET", "/changes/head"], ["GET", "/simple/"],
        ]  # fmt: skip
        await complete_pass(child)
        assert served.requests()[asked + 3 :] == ["GET /changes/head 304"]
        assert rewritten(before, listing(tmp_path / "child", without=[".lock"])) <= {"heliostat.db"}


async def test_quarantine_and_removal_reach_the_child(tmp_path: Path) -> None:
    async with family(small_index(), tmp_path) as (parent, child, served):
        await complete_pass(child)
        whole = {path: found for path, found in listing(tmp_path / "child").items() if "alpha-" in path}
        parent.index.quarantine("alpha")
        parent.index.remove_project("zeta")
        parent.index.remove_release("Beta.Lib", "2.0rc1")
        await parent.sync()
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "child") == []
        kept = listing(tmp_path / "child" / "withheld")
        assert {f"web/{path}": found for path, found in kept.items()} == whole
        fetched = len(files_asked(served))
        parent.index.clear_quarantine("alpha")
        await parent.sync()
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "child") == []
        assert len(files_asked(served)) == fetched


async def test_a_parent_that_owes_an_old_serial_does_not_seem_to_go_back(tmp_path: Path) -> None:
    async with family(small_index(), tmp_path, retries=1) as (parent, child, _):
        await complete_pass(child)
        await complete_pass(child)
        parent.index.yank("zeta", "1!3.1")
        parent.index.touch("alpha")
        await parent.sync()
        await complete_pass(child)
        # Found late, below what the parent has already said: its checkpoint goes back, its root list does not.
        parent.server.fault("/simple/zeta/", Status(503))
        (tmp_path / "parent" / "web/simple/zeta/index.v1_json").unlink()
        parent.files("alpha")["alpha-1.0.tar.gz"].unlink()
        summary = await rebuild(parent.config)
        assert summary.checkpoint < summary.cursor
        parent.index.touch("alpha")
        await parent.attempt()
        summary = await run_pass(child)
        assert summary.unreachable is None
        parent.server.clear_faults()
        await parent.sync(full=True)
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "parent") == []


async def test_a_parent_of_a_few_projects_without_feed_and_list(tmp_path: Path) -> None:
    """It knows no serial of the whole; the newest of its pages stands for it, also when that project goes."""
    names = ("alpha", "zeta", "signed", "old")
    options = Options(xmlrpc=False)
    async with family(small_index(), tmp_path, options, projects=names, projects_at_once=1) as (parent, child, _):
        await complete_pass(child)
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "child", only=names) == []
        parent.index.touch("old")
        await parent.sync()
        await complete_pass(child)
        parent.index.remove_project("old")
        for _ in range(2):
            await parent.attempt()
        await complete_pass(child)
        assert differences(parent.index, tmp_path / "child", only=names) == []
        assert not (tmp_path / "child/web/simple/old").exists()


async def test_a_parent_that_follows_another_index_has_to_be_confirmed_at_the_child_too(tmp_path: Path) -> None:
    index = Index(serial=100)
    index.publish("alpha", "1.0", [uploaded(wheel("alpha", "1.0"), upload_time="2024-05-06T07:08:09Z")])
    async with family(small_index(), tmp_path) as (parent, child, _):
        await complete_pass(child)
        await complete_pass(child)
        async with following(index, tmp_path / "other") as other:
            parent.configure(url=(other.server.url,))
            await parent.attempt(full=True, allow_removals=100)
            with pytest.raises(UpstreamChanged, match="went back"):
                await run_pass(child)
            await complete_pass(child, full=True, allow_removals=100)
            assert sorted(parent.root()) == ["alpha"]
            assert not (tmp_path / "child/web/simple/zeta").exists()
