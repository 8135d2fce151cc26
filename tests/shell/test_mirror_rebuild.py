"""The ledger lost, damaged or too new; pages and links that are missing: everything is made again from what is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from heliostat.errors import StateError, StoreError
from heliostat.fakeindex import Index, Options, UploadedFile
from heliostat.fakeindex.synthetic import many_projects, small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from support.equality import differences
from support.mirrors import Followed, following, rebuild, rewritten


def lose_ledger(directory: Path) -> None:
    for name in ("heliostat.db", "heliostat.db-wal", "heliostat.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()


def fetched(one: Followed) -> int:
    """Requests for files."""
    return one.server.count("/packages/*")


async def test_a_lost_ledger_is_made_again_and_nothing_is_fetched_again(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        lose_ledger(tmp_path)
        one.server.reset_log()
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert summary.checkpoint == one.index.serial
        assert fetched(one) == 0
        same = {"web/simple/index.html", "web/simple/index.v1_html", "web/simple/index.v1_json", "heliostat.db"}
        same |= {"web/changes/head", "web/changes/000000000001.jsonl"}  # which begins anew
        assert rewritten(before, one.listing()) <= {*same, "web/last-modified"}
        one.server.reset_log()
        await one.sync()
        assert one.server.request_count == 1


async def test_what_changed_meanwhile_is_followed(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.publish("alpha", "3.0", [uploaded(wheel("alpha", "3.0"))])
        one.index.remove_project("zeta")
        lose_ledger(tmp_path)
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []
        assert [request.path for request in one.server.requests if "alpha-3.0" in request.path]


async def test_without_a_status_too(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        lose_ledger(tmp_path)
        (tmp_path / "status").unlink()
        one.server.reset_log()
        await one.sync()
        assert fetched(one) == 0
        assert differences(one.index, tmp_path) == []
        assert (tmp_path / "status").read_text() == f"{one.index.serial}\n"


async def test_named_projects_that_were_not_there_yet_are_fetched(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha", "zeta")) as one:
        await one.sync()
        lose_ledger(tmp_path)
        one.configure(projects=("alpha", "zeta", "signed"))
        await one.sync()
        assert differences(one.index, tmp_path, only=["alpha", "zeta", "signed"]) == []


@pytest.mark.parametrize("how", ["rebuilt", "lost", "damaged", "cut short"])
async def test_projects_asked_for_by_name_are_kept(how: str, tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha", "zeta", "old")) as one:
        await one.sync()
        await one.sync("signed")
        if how == "lost":
            lose_ledger(tmp_path)
        else:
            if how == "damaged":
                _garbage(tmp_path / "heliostat.db")
            elif how == "cut short":
                async with Mirror.open(one.config) as mirror:
                    stop = asyncio.Event()
                    stop.set()
                    await mirror.rebuild(counters=Counters(), stop=stop)
            assert (await rebuild(one.config)).complete
        await one.sync()
        one.index.publish("signed", "7.0", [uploaded(wheel("signed", "7.0"))])
        await one.sync()
        assert differences(one.index, tmp_path, only=["alpha", "zeta", "old", "signed"]) == []
        one.configure(projects=("alpha", "zeta", "old", "signed"))
        await one.sync()
        one.configure(projects=("alpha", "zeta", "old"))
        assert (await one.sync()).removed == 1
        assert differences(one.index, tmp_path, only=["alpha", "zeta", "old"]) == []


async def test_a_page_that_claims_a_serial_far_ahead_does_not_silence_later_events(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        page = tmp_path / "web/simple/alpha/index.v1_json"
        page.write_bytes(page.read_bytes().replace(b'"_last-serial":', b'"_last-serial":9'))
        lose_ledger(tmp_path)
        await one.attempt()
        one.index.publish("alpha", "3.0", [uploaded(wheel("alpha", "3.0"))])
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_what_a_changed_scope_left_out_goes_after_a_rebuild_too(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path, projects=("alpha", "zeta", "old")) as one:
        await one.sync()
        await rebuild(one.config)
        one.configure(projects=("alpha", "zeta"))
        assert (await one.sync()).removed == 1


async def test_an_empty_tree_is_a_first_run_not_a_rebuild(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        lose_ledger(tmp_path)
        shutil.rmtree(tmp_path / "web")
        await one.sync()
        assert differences(one.index, tmp_path) == []


# -- a ledger that cannot be used ------------------------------------------------------------------------------


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _damaged_inside(path: Path) -> None:
    """Everything but the first page is nonsense: it opens, and fails when it is read."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def _another_program(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title)")


def _newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")


@pytest.mark.parametrize("damage", [_garbage, _cut, _damaged_inside, _another_program, _newer])
async def test_a_ledger_that_cannot_be_used_is_said_and_rebuild_is_the_way_out(tmp_path: Path, damage: object) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        assert callable(damage)
        damage(tmp_path / "heliostat.db")
        before = one.listing()
        with pytest.raises(StateError, match="rebuild") as refused:
            await one.attempt()
        assert "heliostat.db" in str(refused.value)
        assert not any(path.startswith("web/") for path in rewritten(before, one.listing()))
        await rebuild(one.config)
        one.server.reset_log()
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert fetched(one) == 0
        assert [path.name for path in tmp_path.glob("heliostat.db.unusable-*")]  # moved aside, not thrown away


async def test_an_interrupted_rebuild_begins_again_by_itself(tmp_path: Path) -> None:
    async with following(many_projects(300, 1, 0, 10), tmp_path) as one:
        await one.sync()
        stop = asyncio.Event()
        counters = Counters()
        async with Mirror.open(one.config) as mirror:
            running = asyncio.create_task(mirror.rebuild(counters=counters, stop=stop))
            while not counters.projects_done:
                await asyncio.sleep(0)
            stop.set()
            summary = await running
        assert summary.interrupted
        assert not summary.complete
        one.server.reset_log()
        await one.sync()
        assert fetched(one) == 0
        assert differences(one.index, tmp_path) == []


# -- pages and links -------------------------------------------------------------------------------------------


async def test_missing_pages_and_links_are_made_from_what_is_left(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        web = tmp_path / "web"
        (web / "simple/zeta/index.html").unlink()  # the other name is left
        for name in ("index.html", "index.v1_html"):
            (web / "simple/signed" / name).unlink()
        (web / "simple/old/index.v1_html").unlink()
        (web / "simple/old/index.v1_html").write_bytes((web / "simple/old/index.html").read_bytes())  # two files
        (web / "simple/alpha/index.v1_json").unlink()
        (web / "pypi/zeta/json").unlink()
        (web / "pypi/alpha/json").unlink()
        (web / "pypi/alpha/json").symlink_to("../../json/zeta")
        (web / "simple/archived/index.v1_json").write_bytes(b'{"half')
        (web / "simple/index.v1_json").unlink()
        (web / "simple/index.html").write_bytes(b"?")
        one.server.reset_log()
        summary = await rebuild(one.config)
        assert {owed.project for owed in summary.owed} == {"alpha", "archived"}
        assert one.server.request_count == 0
        # What a page in JSON says beyond HTML is fetched again; everything else is whole without the network.
        assert differences(one.index, tmp_path, owed=["alpha", "archived"]) == []
        assert {file["filename"] for file in one.page("alpha")["files"]} == {
            one_.file.filename for one_ in one.index.expected_files("alpha")
        }
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert fetched(one) == 0


@pytest.mark.parametrize("ledger", ["there", "lost"])
@pytest.mark.parametrize("link", [True, False])
async def test_a_missing_document_is_owed_and_fetched(link: bool, ledger: str, tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        (one.web / "json" / "alpha").unlink()
        if not link:
            (one.web / "pypi" / "alpha" / "json").unlink()
        if ledger == "lost":
            lose_ledger(tmp_path)
        summary = await rebuild(one.config)
        assert [(owed.project, owed.reason) for owed in summary.owed] == [("alpha", "its JSON document is missing")]
        one.server.reset_log()
        await one.sync()
        assert fetched(one) == 0
        assert differences(one.index, tmp_path) == []


async def test_where_upstream_has_no_documents_none_is_missed(tmp_path: Path) -> None:
    async with following(many_projects(25, 1, 0, 10), tmp_path, Options(documents=False)) as one:
        await one.sync()
        await one.sync()
        assert (await rebuild(one.config)).complete
        lose_ledger(tmp_path)
        assert (await rebuild(one.config)).complete


async def test_a_project_of_which_only_the_document_is_left(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        shutil.rmtree(tmp_path / "web/simple/alpha")
        await rebuild(one.config)
        assert {file["filename"] for file in one.page("alpha")["files"]} == {
            expected.file.filename for expected in one.index.expected_files("alpha")
        }
        assert all(path.exists() for path in one.files("alpha").values())
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_missing_files_are_owed_and_fetched_and_no_others(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        lost = one.files("alpha")["alpha-1.0-py3-none-any.whl"]
        lost.unlink()
        sidecar = one.files("zeta")["zeta-1!3.1-py3-none-any.whl"]
        Path(f"{sidecar}.metadata").unlink()
        summary = await rebuild(one.config)
        assert {owed.project for owed in summary.owed} == {"alpha", "zeta"}
        assert all("missing" in owed.reason for owed in summary.owed)
        assert not summary.complete
        one.server.reset_log()
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert fetched(one) == 1  # the sidecar is taken out of its wheel


async def test_a_rebuild_of_a_whole_mirror_changes_nothing(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        before = one.listing()
        summary = await rebuild(one.config, salvage=False)
        assert summary.complete
        assert summary.projects == len(one.root())
        root = {"web/simple/index.html", "web/simple/index.v1_html", "web/simple/index.v1_json"}
        assert rewritten(before, one.listing()) <= {"heliostat.db", *root}
        assert differences(one.index, tmp_path) == []


async def test_bytes_that_two_projects_share_survive_a_lost_ledger(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        for name in ("odd-a", "odd-b"):
            file = UploadedFile("nobodys-1.0.zip", b"shared", upload_time="2024-05-06T07:08:09Z")
            one.index.publish(name, "1.0", [file])
        await one.sync()
        lose_ledger(tmp_path)
        await one.sync()
        one.index.remove_project("odd-a")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.index.remove_project("odd-b")
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_spellings_survive_a_lost_ledger(tmp_path: Path) -> None:
    index = Index()
    index.create("No.Release_YET")
    index.publish("Some.Thing", "1.0", [uploaded(wheel("Some.Thing", "1.0"))])
    async with following(index, tmp_path, projects=("no-release-yet", "some-thing")) as one:
        await one.sync()
        index.touch("No.Release_YET")
        await one.sync()
        assert differences(index, tmp_path) == []
        lose_ledger(tmp_path)
        await one.sync()
        assert differences(index, tmp_path) == []


async def test_releases_in_quarantine_are_remembered_by_a_rebuild(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.quarantine_release("alpha", "1.0")
        await one.sync()
        await rebuild(one.config)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.server.reset_log()
        one.index.clear_release_quarantine("alpha", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert fetched(one) == 0


async def test_bytes_in_quarantine_survive_a_lost_ledger(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        one.index.quarantine("alpha")
        await one.sync()
        lose_ledger(tmp_path)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.server.reset_log()
        one.index.clear_quarantine("alpha")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert fetched(one) == 0


async def test_what_a_damaged_page_said_is_read_again(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        (tmp_path / "web/simple/alpha/index.v1_json").write_text("x")
        summary = await rebuild(one.config)
        assert [(owed.project, owed.state) for owed in summary.owed] == [("alpha", "pending")]
        assert not summary.complete
        assert (await one.sync()).complete
        assert differences(one.index, tmp_path) == []


async def test_a_ledger_over_a_tree_that_is_not_there_stops(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        await one.sync()
        shutil.rmtree(tmp_path / "web")
        with pytest.raises(StoreError, match="mounted"):
            await one.sync()
        assert not (tmp_path / "web").exists()
        await rebuild(one.config)
        assert (await one.sync()).complete
        assert differences(one.index, tmp_path) == []
