"""What no page names is found, and removed when that is asked for; what the ledger speaks of never is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.mirror.lock import hold_lock
from heliostat.mirror.places import DATABASE, LOCK
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Kind, PathRow
from support.equality import differences
from support.mirrors import Followed, following, listing, rewritten
from support.verified import rich_index, verify

STRAY = "packages/aa/bb/" + "c" * 60 + "/beta-0.9-py3-none-any.whl"


def put(one: Followed, path: str, data: bytes = b"stray") -> Path:
    place = one.web / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


@contextlib.contextmanager
def ledger_of(one: Followed) -> Iterator[Ledger]:
    ledger = Ledger(str(one.directory / DATABASE))
    yield ledger
    ledger.close()


@pytest.mark.parametrize(
    "path",
    [
        STRAY,
        STRAY + ".metadata",
        "packages/aa/bb/" + "d" * 60 + "/odd.zip",
        "packages/aa/file",
        "packages/not-a-digest/x/y",
        "packages/zz",
        "integrity/beta/9.9/beta-9.9.zip/provenance",
        "integrity/nobody/1.0/file.zip/provenance",
        "integrity/file",
        "simple/beta/robots.txt",
        "simple/beta/index.html.bak",
        "simple/Beta",
        "json/nobody",
        "json/Not_Normal",
        "pypi/nobody/json",
        "pypi/Not_Normal",
    ],
)
async def test_a_stray_is_found_and_removed_and_nothing_else(path: str, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        good = one.listing()
        put(one, path)
        for where in (one.web, one.config):
            seen, _ = await verify(where)
            assert seen.kinds == {("unreferenced", path)}
        _, repaired = await verify(one.config, repair={"fix": True})
        assert repaired is not None
        assert repaired.left == 1, "only --delete-unreferenced removes anything"
        assert (one.web / path).exists()
        _, repaired = await verify(one.config, repair={"fix": False, "delete": True})
        assert repaired is not None
        assert (repaired.left, repaired.deleted) == (0, 1)
        assert rewritten(good, one.listing()) == set()
        seen, _ = await verify(one.config)
        assert seen.findings == []


@pytest.mark.parametrize("kind", ["claimed", "extra", "waiting", "doomed", "withheld"])
async def test_what_the_ledger_speaks_of_is_nobodys_to_remove(kind: Kind, tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        kept = put(one, STRAY)
        seen, _ = await verify(one.web)
        assert seen.kinds == {("unreferenced", STRAY)}
        bare = [*seen.findings]
        with ledger_of(one) as ledger, ledger.transaction():
            ledger.paths.add([PathRow("web/" + STRAY, "somebody", kind)])
        seen, _ = await verify(one.config)
        assert seen.findings == []
        if kind == "doomed":
            return  # the next start removes it, which is another test's business
        async with Mirror.open(one.config) as mirror:
            repaired = await mirror.repair(lambda: bare, counters=Counters(), stop=asyncio.Event(), delete=True)
        assert repaired.deleted == 0
        assert kept.exists()


async def test_what_is_incoming_is_no_stray(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        put(one, STRAY)
        with ledger_of(one) as ledger, ledger.transaction():
            ledger.paths.announce("somebody", ["web/packages/x", "web/" + STRAY])
        seen, _ = await verify(one.config)
        assert seen.findings == []


async def test_an_implausible_share_waits_for_approval(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        for number in range(40):
            put(one, f"packages/aa/{number:02x}/{'e' * 60}/beta-{number}.zip")
        before = listing(one.web)
        _, repaired = await verify(one.config, repair={"fix": False, "delete": True})
        assert repaired is not None
        assert (repaired.held, repaired.deleted) == (40, 0)
        assert rewritten(before, listing(one.web)) == set()
        _, repaired = await verify(one.config, repair={"fix": False, "delete": True, "allow_removals": 40})
        assert repaired is not None
        assert (repaired.held, repaired.deleted, repaired.left) == (0, 40, 0)
        assert differences(one.index, one.directory) == []


async def test_nothing_is_removed_while_a_page_cannot_be_read(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        stray = put(one, "packages/aa/bb/" + "d" * 60 + "/odd.zip")
        for page in ("index.html", "index.v1_html", "index.v1_json"):
            (one.web / "simple/beta" / page).unlink()
        (one.web / "json/beta").write_bytes(b"{")
        seen, repaired = await verify(one.config, repair={"fix": False, "delete": True})
        assert repaired is not None
        assert stray.exists()
        assert any("cannot be read" in note for note in repaired.notes)
        assert ("unreferenced", "packages/aa/bb/" + "d" * 60 + "/odd.zip") in seen.kinds
        assert not [one for one in seen.findings if one.kind == "unreferenced" and "beta" in one.path]


async def test_files_that_only_a_document_lists_are_no_strays(tmp_path: Path) -> None:
    index = Index()
    index.publish("beta", "1.0", UploadedFile("beta-1.0.zip", b"one"))
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        place = one.files("beta")["beta-1.0.zip"]
        with ledger_of(one) as ledger, ledger.transaction() as connection:
            # As after a pass that found the file in the document alone.
            ledger.paths.add([PathRow(place.relative_to(one.directory).as_posix(), "beta", "extra")])
            connection.execute("UPDATE projects SET extra = 1 WHERE name = 'beta'")
        page = one.web / "simple/beta/index.v1_json"
        body = one.page("beta")
        body["files"] = []
        page.write_text(json.dumps(body))
        for where in (one.config, one.web):
            seen, _ = await verify(where)
            assert not [found for found in seen.findings if found.kind == "unreferenced"]
        place.write_bytes(b"two")
        for where in (one.config, one.web):
            seen, _ = await verify(where)
            assert ("digest", place.relative_to(one.web).as_posix()) in seen.kinds
        os.unlink(place)
        for where in (one.config, one.web):
            seen, _ = await verify(where)
            assert ("missing", place.relative_to(one.web).as_posix()) in seen.kinds


async def test_what_was_left_over_in_partial(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        partial = one.directory / "partial"
        for name in ("page-1", "sha256-" + "0" * 64 + ".part"):
            (partial / name).write_bytes(b"x")
        seen, _ = await verify(one.web)
        assert seen.findings == []
        seen, _ = await verify(one.config)
        assert seen.kinds == {("unreferenced", f"partial/{path.name}") for path in partial.iterdir()}
        with hold_lock(str(one.directory / LOCK)):
            seen, _ = await verify(one.config)
        assert seen.findings == [], "somebody is at work"
        _, repaired = await verify(one.config, repair={"fix": False, "delete": True})
        assert repaired is not None
        assert repaired.left == 0
        assert list(partial.iterdir()) == []


async def test_what_is_no_project_of_this_mirror_is_not_taken_in(tmp_path: Path) -> None:
    """Pages that the ledger does not know, or says are gone, are told of; a repair must not fetch such a project."""
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        with ledger_of(one) as ledger, ledger.transaction() as connection:
            connection.execute("DELETE FROM projects WHERE name = 'odd'")
            connection.execute("UPDATE projects SET state = 'excluded', published = 0 WHERE name = 'bare'")
        seen, repaired = await verify(one.config, repair={"fix": True})
        assert {(found.kind, found.project) for found in seen.findings} == {("ledger", "odd"), ("ledger", "bare")}
        assert repaired is not None
        assert repaired.left == 2
        with ledger_of(one) as ledger:
            assert ledger.row("odd") is None
            row = ledger.row("bare")
            assert row is not None
            assert row.state == "excluded"


STRAYS: dict[str, tuple[dict[str, bytes], set[str]]] = {
    "a folder of no project": ({"simple/zzz/index.html": b"x"}, {"simple/zzz"}),
    "an empty folder": ({"simple/zzz/": b""}, {"simple/zzz"}),
    "all that a project has, but its page": (
        {"simple/zzz/index.html": b"x", "json/zzz": b"{", "pypi/zzz/json": b"x"},
        {"simple/zzz", "json/zzz", "pypi/zzz"},
    ),
    "a folder whose name is not normal": ({"simple/Signed/index.html": b"x"}, {"simple/Signed"}),
    "folders in folders": ({"simple/Signed/a/b/c": b"x", "simple/Signed/d/": b""}, {"simple/Signed"}),
    "a release's link": ({"pypi/beta/1.0/json": b"x"}, {"pypi/beta/1.0"}),
    "a link's folder without a link": ({"pypi/zzz/other": b"x"}, {"pypi/zzz"}),
    "a page's folder in a project's": ({"simple/beta/old/index.html": b"x"}, {"simple/beta/old"}),
}


@pytest.mark.parametrize(("files", "found"), STRAYS.values(), ids=STRAYS.keys())
async def test_what_is_no_project_s_goes_and_holds_up_nothing(
    files: dict[str, bytes], found: set[str], tmp_path: Path
) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        good = one.listing()
        for path, data in files.items():
            if path.endswith("/"):
                (one.web / path).mkdir(parents=True)
            else:
                put(one, path, data)
        put(one, STRAY)
        seen, repaired = await verify(one.config, repair={"fix": True, "delete": True})
        assert seen.kinds == {("unreferenced", path) for path in (*found, STRAY)}
        assert repaired is not None
        assert (repaired.left, repaired.notes) == (0, [])
        assert rewritten(good, one.listing()) == set()
        assert not any((one.web / path).exists() for path in found)
        assert differences(one.index, one.directory) == []
        seen, _ = await verify(one.config)
        assert seen.findings == []


async def test_a_folder_that_is_not_small_is_for_somebody_to_look_at(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        for number in range(120):
            put(one, f"simple/Backup/{number}")
        before = one.listing()
        _, repaired = await verify(one.config, repair={"fix": False, "delete": True})
        assert repaired is not None
        assert (repaired.left, repaired.deleted) == (1, 0)
        assert any("look at it" in note for note in repaired.notes)
        assert rewritten(before, one.listing()) == set()


async def test_what_became_a_project_s_meanwhile_stays(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        put(one, "simple/late/index.html", b"x")
        seen, _ = await verify(one.config)
        assert seen.kinds == {("unreferenced", "simple/late")}
        one.index.publish("late", "1.0", UploadedFile("late-1.0.zip", b"late"))
        (one.web / "simple/late/index.html").unlink()
        (one.web / "simple/late").rmdir()
        await one.sync()
        before = one.listing()
        async with Mirror.open(one.config) as mirror:
            repaired = await mirror.repair(
                lambda: seen.findings, counters=Counters(), stop=asyncio.Event(), delete=True
            )
        assert repaired.deleted == 0
        assert rewritten(before, one.listing()) == set()


async def test_a_link_where_no_file_belongs_goes_by_repair(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        (one.web / "packages/aa").mkdir(exist_ok=True)
        (one.web / "packages/aa/etc").symlink_to("/etc")
        seen, repaired = await verify(one.config, repair={"fix": True})
        assert seen.kinds == {("obstacle", "packages/aa/etc")}
        assert repaired is not None
        assert repaired.left == 0
        assert not (one.web / "packages/aa/etc").is_symlink()
        seen, _ = await verify(one.config)
        assert seen.findings == []


async def test_a_directory_among_the_temporaries_ends_no_pass_and_goes(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        folder = one.directory / "partial/dd"
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
        await one.sync()
        assert not folder.exists()  # kept aside
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
        put(one, STRAY)
        seen, repaired = await verify(one.config, repair={"fix": True, "delete": True})
        assert seen.kinds == {("unreferenced", "partial/dd/"), ("unreferenced", STRAY)}
        assert repaired is not None
        assert (repaired.left, repaired.store_error) == (0, None)
        assert not folder.exists()
        assert not (one.web / STRAY).exists()
