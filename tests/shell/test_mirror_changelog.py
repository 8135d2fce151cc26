"""What passes write into the changelog: all that changed on disk, in the words of the contract, and nothing when idle."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import provenance_for
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.pages.changes import parse_head
from heliostat.state.changelog import Change
from heliostat.state.ledger import Ledger
from support.change_feed import Feed
from support.disks import BreakingDisk, Broken
from support.mirrors import Followed, following, listing, rebuild, rewritten, run_pass

#: Below ``web/``, of no project: whoever follows the changes takes them in any case.
_OF_ALL = ("last-modified", "simple/index.", "changes/")


def upload(name: str, version: str, *, provenance: bool = False) -> list[UploadedFile]:
    built, source = wheel(name, version), sdist(name, version)
    uploaded = UploadedFile(built.filename, built.data, sidecar=built.metadata)
    if provenance:
        uploaded.provenance = provenance_for(uploaded)
    return [uploaded, UploadedFile(source.filename, source.data)]


def two_projects() -> Index:
    index = Index()
    for name in ("alpha", "beta"):
        index.publish(name, "1.0", upload(name, "1.0", provenance=name == "alpha"))
    return index


@contextlib.contextmanager
def ledger_of(followed: Followed) -> Iterator[Ledger]:
    ledger = Ledger(str(followed.directory / "heliostat.db"), create=False)
    yield ledger
    ledger.close()


class Watch:
    """What rows say, and what really changed, since it was last asked."""

    def __init__(self, followed: Followed) -> None:
        self._followed, self._number = followed, 0
        self._before = listing(followed.web) if followed.web.exists() else {}

    def rows(self) -> list[Change]:
        with ledger_of(self._followed) as ledger:
            rows = ledger.changelog.after(self._number, 1000)
        assert [row.number for row in rows] == [*range(self._number + 1, self._number + 1 + len(rows))]
        self._number += len(rows)
        after = listing(self._followed.web)
        really = {path for path in rewritten(self._before, after) if not path.startswith(_OF_ALL)}
        told = {path for row in rows for path in (*row.added, *row.changed, *row.removed)}
        assert really <= told, sorted(really - told)
        fresh = {path for row in rows for path in row.added}
        assert not fresh & self._before.keys(), "added what was there"
        standing = {path for row in rows for path in (*row.added, *row.changed)}
        gone = {path for row in rows for path in row.removed}
        assert not standing - after.keys() - gone, "said to be there"
        self._before = after
        return rows


def brief(rows: list[Change]) -> list[tuple[str, str]]:
    return [(row.project, row.what) for row in rows]


async def test_a_first_pass_names_every_path_once_and_an_idle_one_writes_nothing(tmp_path: Path) -> None:
    async with following(two_projects(), tmp_path / "mirror", provenance=True) as followed:
        watch = Watch(followed)
        await followed.sync()
        rows = watch.rows()
        assert sorted(brief(rows)) == [("alpha", "added"), ("beta", "added")]
        assert {row.serial for row in rows} == {
            followed.page(name)["meta"]["_last-serial"] for name in ("alpha", "beta")
        }
        paths = [path for row in rows for path in row.added]
        assert sorted(paths) == sorted(
            set(listing(followed.web)) - {p for p in listing(followed.web) if p.startswith(_OF_ALL)}
        )
        await followed.sync()
        assert watch.rows() == []


async def test_updates_removals_and_quarantine_are_told_in_order(tmp_path: Path) -> None:
    index = two_projects()
    async with following(index, tmp_path / "mirror") as followed:
        watch = Watch(followed)
        await followed.sync()
        watch.rows()
        index.publish("alpha", "2.0", upload("alpha", "2.0"))
        index.publish("gamma", "1.0", upload("gamma", "1.0"))
        await followed.sync()
        rows = {row.project: row for row in watch.rows()}
        assert (rows["alpha"].what, rows["gamma"].what) == ("updated", "added")
        assert len(rows["alpha"].added) == 3
        assert "simple/alpha/index.v1_json" in rows["alpha"].changed

        index.remove_release("alpha", "1.0")
        await followed.sync()
        updated, dropped = watch.rows()
        assert (updated.what, dropped.what) == ("updated", "dropped")
        assert not updated.removed
        assert len([path for path in dropped.removed if path.startswith("packages/")]) == 3

        index.quarantine("beta")
        await followed.sync()
        rows_of_beta = watch.rows()
        assert brief(rows_of_beta) == [("beta", "quarantined"), ("beta", "dropped")]
        index.clear_quarantine("beta")
        await followed.sync()
        (back,) = watch.rows()
        assert (back.what, sorted(back.added)) == ("updated", sorted(rows_of_beta[1].removed))

        index.remove_project("gamma")
        await followed.sync()
        removed, dropped = watch.rows()
        assert (removed.project, removed.what, dropped.what) == ("gamma", "removed", "dropped")
        assert set(removed.removed) > {"simple/gamma/index.html", "json/gamma", "pypi/gamma/json"}
        assert removed.serial == index.serial
        index.publish("gamma", "2.0", upload("gamma", "2.0"))
        await followed.sync()
        assert brief(watch.rows()) == [("gamma", "added")]


async def test_a_shared_file_goes_only_when_nobody_lists_it(tmp_path: Path) -> None:
    index = two_projects()
    shared = UploadedFile("odd.zip", b"the same bytes", upload_time="2026-02-03T04:05:06.000000Z")
    index.publish("alpha", "9.0", shared)
    index.publish("beta", "9.0", UploadedFile("odd.zip", b"the same bytes", upload_time="2026-03-03T04:05:06.000000Z"))
    async with following(index, tmp_path / "mirror") as followed:
        watch = Watch(followed)
        await followed.sync()
        watch.rows()
        index.remove_release("alpha", "9.0")
        await followed.sync()
        assert not [path for row in watch.rows() for path in row.removed]
        index.remove_release("beta", "9.0")
        await followed.sync()
        assert [path.rpartition("/")[2] for row in watch.rows() for path in row.removed] == ["odd.zip"]


async def test_a_rebuild_tells_which_pages_it_made(tmp_path: Path) -> None:
    async with following(two_projects(), tmp_path / "mirror") as followed:
        watch = Watch(followed)
        await followed.sync()
        watch.rows()
        (followed.web / "simple/alpha/index.html").unlink()
        watch._before = listing(followed.web)
        await rebuild(followed.config)
        (row,) = [row for row in watch.rows() if row.what == "repaired"]
        assert (row.project, row.serial) == ("alpha", followed.page("alpha")["meta"]["_last-serial"])
        assert "simple/alpha/index.html" in row.changed


async def test_a_refreshed_provenance_object_is_told(tmp_path: Path) -> None:
    index = two_projects()
    async with following(index, tmp_path / "mirror", provenance=True) as followed:
        watch = Watch(followed)
        await followed.sync()
        watch.rows()
        stale = next(followed.web.glob("integrity/alpha/**/provenance"))
        stale.write_bytes(b"{}")
        watch._before = listing(followed.web)
        with ledger_of(followed) as ledger:
            ledger.connection.execute("UPDATE projects SET due_at = 0, why = 'sweep' WHERE name = 'alpha'")
        await followed.sync()
        (row,) = watch.rows()
        assert (row.what, row.changed) == ("updated", [stale.relative_to(followed.web).as_posix()])


@pytest.mark.parametrize("good", range(4, 60, 2))
async def test_what_a_broken_pass_changed_is_told_by_the_next_one(tmp_path: Path, good: int) -> None:
    """After any number of changes on disk the process is gone; no change that it made stays untold."""
    index = two_projects()
    async with following(index, tmp_path / "mirror") as followed:
        watch = Watch(followed)
        await followed.sync()
        watch.rows()
        index.yank("alpha", "1.0", "broken")
        index.remove_release("beta", "1.0")
        index.publish("beta", "2.0", upload("beta", "2.0"))
        index.publish("gamma", "1.0", upload("gamma", "1.0"))
        with contextlib.suppress(Broken, BaseExceptionGroup):
            await run_pass(followed.config, disk=BreakingDisk(str(followed.directory), good))
        await followed.sync()
        watch.rows()


async def test_a_pass_that_is_incomplete_tells_of_what_it_published(tmp_path: Path) -> None:
    """And its head does not claim more than the checkpoint."""
    index = Index()
    for number in range(6):
        index.publish(f"p{number}", "1.0", upload(f"p{number}", "1.0"))
    async with following(index, tmp_path / "mirror", batch_projects=1) as followed:
        followed.server.fault("/simple/p5/", Status(503))
        summary = await followed.attempt()
        assert not summary.complete
        feed = Feed(
            lambda path: (followed.web / path).read_bytes() if (followed.web / path).exists() else None,
            os.listdir(followed.web / "changes"),
        )
        assert feed.problems == []
        assert sorted(row.project for row in feed.rows) == [f"p{number}" for number in range(5)]
        assert feed.head is not None
        assert feed.head.serial < index.serial


async def test_projects_asked_for_by_name_are_told_too(tmp_path: Path) -> None:
    index = two_projects()
    async with following(index, tmp_path / "mirror") as followed:
        await followed.sync("alpha")
        head = parse_head((followed.web / "changes/head").read_bytes(), url="head")
        assert (head.number, head.listed) == (1, 1)
