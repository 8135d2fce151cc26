"""Another upstream, or one whose serial went back: nothing moves until it is confirmed, and nothing is deleted then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from heliostat.errors import UpstreamChanged
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import Built, sdist, wheel
from support.disks import Step, WatchedDisk
from support.equality import differences
from support.mirrors import Followed, changed, following, rewritten

NAMES = ("ant", "bee", "cat", "dog")
HOW = pytest.mark.parametrize("options", [Options(), Options(xmlrpc=False)], ids=["feed", "list"])


def upload(built: Built) -> UploadedFile:
    return uploaded(built, upload_time="2025-06-07T08:09:10.111213Z")


def animals(serial: int = 1000, names: Sequence[str] = NAMES) -> Index:
    """The same bytes whatever the serials."""
    index = Index(serial=serial)
    for name in names:
        index.publish(name, "1.0", [upload(wheel(name, "1.0")), upload(sdist(name, "1.0"))])
    return index


class NoRemovals(WatchedDisk):
    """Refuses to remove anything that is served."""

    def before(self, step: Step) -> None:
        if step.verb in ("unlink", "remove_directory") and not step.arguments[-1].startswith("web/changes/"):
            assert not step.arguments[-1].startswith("web/"), step


async def restarted(one: Followed, index: Index) -> FakeIndex:
    """The same address serves another index from now on."""
    port = int(one.server.url.rpartition(":")[2])
    await one.server.stop()
    server = FakeIndex(index, port=port, options=one.server.options)
    await server.start()
    return server


@HOW
async def test_another_address_has_to_be_confirmed(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path / "mirror", options) as one:
        await one.sync()
        before = one.listing()
        async with FakeIndex(one.index, options=options) as other:
            one.configure(url=(other.url,))
            for _ in range(2):
                with pytest.raises(UpstreamChanged, match="--full") as refused:
                    await one.attempt()
            assert one.server.url in str(refused.value)
            assert other.url in str(refused.value)
            assert other.request_count == 0
            assert not any(path.startswith("web/") for path in rewritten(before, one.listing()))
            summary = await one.sync(full=True, disk=NoRemovals(str(one.directory)))
            assert differences(one.index, one.directory) == []
            assert (summary.removed, summary.files_added) == (0, 0)
            assert other.count("/packages/*") == 0
            one.index.yank("ant", "1.0")
            await one.sync()
            assert differences(one.index, one.directory) == []


@HOW
@pytest.mark.parametrize("named", [False, True])
async def test_an_upstream_that_does_not_answer_is_not_confirmed(tmp_path: Path, options: Options, named: bool) -> None:
    async with following(animals(), tmp_path / "mirror", options) as one:
        if named:
            one.configure(projects=NAMES, everything=False)
        before = await one.sync()
        async with FakeIndex(animals(), options=options) as other:
            pass
        right = one.server.url
        one.configure(url=(other.url,), retries=1)
        summary = await one.attempt(full=True)
        assert summary.unreachable
        assert (summary.checkpoint, summary.owed) == (before.checkpoint, [])
        one.configure(url=(right,))
        one.server.reset_log()
        await one.sync()
        assert {each.status for each in one.server.requests if each.path.startswith("/pypi/")} <= {304}


async def test_names_on_the_command_line_are_not_fetched_from_an_unconfirmed_upstream(tmp_path: Path) -> None:
    async with following(animals(), tmp_path / "mirror") as one:
        await one.sync()
        async with FakeIndex(animals(500)) as other:
            one.configure(url=(other.url,))
            with pytest.raises(UpstreamChanged):
                await one.attempt("ant")
            assert other.request_count == 0


async def test_credentials_in_the_address_are_no_other_upstream(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.configure(url=(one.server.url.replace("//", "//user:secret@"),))
        await one.sync()


@HOW
async def test_a_serial_that_went_back_has_to_be_confirmed(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options) as one:
        await one.sync()
        before = one.listing()
        index = animals(serial=500)
        index.publish("ant", "2.0", [upload(wheel("ant", "2.0"))])
        server = await restarted(one, index)
        try:
            for _ in range(2):
                with pytest.raises(UpstreamChanged, match="went back"):
                    await one.attempt()
            assert not any(path.startswith("web/") for path in rewritten(before, one.listing()))
            summary = await one.sync(full=True, disk=NoRemovals(str(tmp_path)))
            assert differences(index, tmp_path) == []
            assert summary.files_added == 2
            assert summary.cursor == summary.checkpoint == index.serial
            index.yank("ant", "1.0")
            await one.sync()
            assert differences(index, tmp_path) == []
        finally:
            await server.stop()


@HOW
async def test_a_full_pass_confirms_it_at_once(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options) as one:
        await one.sync()
        server = await restarted(one, index := animals(serial=500))
        try:
            await one.sync(full=True)
            assert differences(index, tmp_path) == []
            await one.sync()
        finally:
            await server.stop()


async def test_named_projects_too(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, projects=("ant", "bee")) as one:
        await one.sync()
        server = await restarted(one, index := animals(serial=500))
        try:
            with pytest.raises(UpstreamChanged):
                await one.attempt()
            await one.sync(full=True)
            assert differences(index, tmp_path, only=["ant", "bee"]) == []
            index.yank("ant", "1.0")
            await one.sync()
            assert differences(index, tmp_path, only=["ant", "bee"]) == []
        finally:
            await server.stop()


async def test_what_the_other_index_does_not_have_goes_afterwards_and_is_guarded(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        server = await restarted(one, index := animals(100, ["ant"]))
        try:
            summary = await one.attempt(full=True)
            assert summary.held == 3
            assert (tmp_path / "web/simple/bee").exists()
            await one.sync(allow_removals=3)
            assert differences(index, tmp_path) == []
        finally:
            await server.stop()


async def test_a_replica_that_lagged_for_a_moment_needs_no_confirmation(tmp_path: Path) -> None:
    index: Any = animals()
    async with following(index, tmp_path) as one:
        await one.sync()
        real, index._journal.serial = index.serial, 900
        with pytest.raises(UpstreamChanged):
            await one.attempt()
        index._journal.serial = real
        await one.sync()
        index.touch("ant")
        await one.sync()
        one.server.reset_log()
        await one.sync(full=True)
        assert one.server.count("/simple/*") == 1  # the list; nothing had to be looked at again


async def test_an_interrupted_confirmation_goes_on(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, retries=1) as one:
        await one.sync()
        server = await restarted(one, index := animals(serial=500))
        try:
            server.fault("/simple/", Status(500))
            server.fault(lambda request: b"list_packages" in request.body, Status(500))
            assert (await one.attempt(full=True)).unreachable
            server.clear_faults()
            await one.sync()
            assert differences(index, tmp_path) == []
        finally:
            await server.stop()


async def test_another_directory_is_another_mirror(tmp_path: Path) -> None:
    async with following(animals(), tmp_path / "one") as one:
        await one.sync()
        (tmp_path / "two").mkdir()
        one.config = changed(one.config, directory=str(tmp_path / "two"))
        await one.sync()
        assert differences(one.index, tmp_path / "two") == []
