"""Something that is no file lies where a file belongs: its project waits, the others do not, and a repair clears it.

What leads out of the tree is not followed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.mirror.report import Summary
from heliostat.mirror.scrub import Looker
from heliostat.mirror.verify.reading import Budget
from support import trees
from support.adopted import WHEEL, adopt, complete, old_index, path_of
from support.equality import differences
from support.mirrors import Followed, following, listing, owed_names
from support.verified import rich_index, verify


def _index() -> Index:
    index = rich_index()
    for name in ("one", "two", "three"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.tar.gz", name.encode() * 50))
    return index


def _place(index: Index, web: Path) -> Path:
    return _place_of(index, web, "one")


def _place_of(index: Index, web: Path, name: str) -> Path:
    return web / index.expected_files(name)[0].file.path[1:]


def _directory(path: Path) -> None:
    path.mkdir(parents=True)


def _full_directory(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "mine").write_bytes(b"mine")


def _dangling(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to("/nowhere/at/all")


def _link_to_directory(path: Path) -> None:
    outside = path.parents[6] / "outside"
    outside.mkdir()
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)


def _file_for(above: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        place = path.parents[above]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            shutil.rmtree(place)
        place.write_bytes(b"mine")

    return make


def _link_for(above: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        place = path.parents[above]
        place.parent.mkdir(parents=True, exist_ok=True)
        outside = path.parents[6] / "outside"
        outside.mkdir()
        if place.exists():
            shutil.rmtree(place)
        place.symlink_to(outside)

    return make


OBSTACLES: dict[str, Callable[[Path], None]] = {
    "a directory": _directory,
    "a directory with something in it": _full_directory,
    "a link that leads nowhere": _dangling,
    "a link to a directory": _link_to_directory,
    "a file for the directory": _file_for(0),
    "a file for the second level": _file_for(1),
    "a file for the first level": _file_for(2),
    "a link for the directory": _link_for(0),
    "a link for the second level": _link_for(1),
    "a link for the first level": _link_for(2),
}


@pytest.mark.parametrize("make", OBSTACLES.values(), ids=OBSTACLES.keys())
@pytest.mark.parametrize("published", [False, True], ids=["new", "published"])
async def test_it_is_a_matter_of_its_own_project_and_repair_clears_it(
    make: Callable[[Path], None], published: bool, tmp_path: Path
) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        if published:
            await one.sync()
            shutil.rmtree(_place(one.index, one.web).parent)
            one.index.publish("one", "2.0", UploadedFile("one-2.0.tar.gz", b"the second"))
            one.index.publish("four", "1.0", UploadedFile("four-1.0.tar.gz", b"four"))
        make(_place(one.index, one.web))
        _only_one(await one.attempt())
        _only_one(await one.attempt())
        assert not os.path.lexists("/nowhere/at/all")
        assert not (tmp_path / "mirror/outside").is_dir() or not any((tmp_path / "mirror/outside").iterdir())

        seen, repaired = await verify(one.config, repair={"fix": True})
        assert "obstacle" in {one.kind for one in seen.findings}
        assert repaired is not None
        assert (repaired.left, repaired.store_error) == (0, None), seen.findings
        assert (await one.attempt()).complete
        _same(one)
        seen, _ = await verify(one.config)
        assert seen.findings == []


def _same(one: Followed) -> None:
    """The tree is upstream's, but for what was in the way, which is kept for somebody to look at."""
    kept = one.directory / "withheld/damaged"
    if kept.exists():
        shutil.rmtree(one.directory / "withheld")
    assert differences(one.index, one.directory) == []


def _only_one(summary: Summary) -> None:
    assert summary.store_error is None
    assert owed_names(summary) == ["one"]
    assert summary.owed[0].state == "blocked"
    assert "in the way" in summary.owed[0].reason
    assert "verify --repair" in summary.owed[0].reason


@pytest.mark.parametrize("make", [_directory, _full_directory], ids=["empty", "full"])
async def test_a_directory_where_a_sidecar_belongs_holds_up_its_own_project_only(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        sidecar = Path(f"{one.files('beta')['beta-1.0-py3-none-any.whl']}.metadata")
        await _again_without(one, sidecar, make)


async def test_a_directory_where_provenance_belongs_holds_up_its_own_project_only(tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        proof = one.web / "integrity/beta/1.0/beta-1.0-py3-none-any.whl/provenance"
        await _again_without(one, proof, _full_directory)


async def _again_without(one: Followed, place: Path, make: Callable[[Path], None]) -> None:
    directory = one.directory
    shutil.rmtree(one.web)
    for path in directory.glob("heliostat.db*"):
        path.unlink()
    make(place)
    summary = await one.attempt()
    assert summary.store_error is None
    assert owed_names(summary) == ["beta"]
    seen, repaired = await verify(one.config, repair={"fix": True})
    assert repaired is not None
    assert (repaired.left, repaired.store_error) == (0, None), seen.findings
    assert (await one.attempt()).complete
    _same(one)


async def test_what_nobody_has_waited_for_is_cleared_too(tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        one.index.publish("new", "1.0", UploadedFile("new-1.0.tar.gz", b"new"))
        place = _place_of(one.index, one.web, "new")
        _full_directory(place)
        seen, repaired = await verify(one.config, repair={"fix": True})
        assert seen.kinds == {("obstacle", place.relative_to(one.web).as_posix())}
        assert repaired is not None
        assert repaired.left == 0
        assert (one.directory / "withheld/damaged" / place.relative_to(one.web) / "mine").read_bytes() == b"mine"
        assert (await one.attempt()).complete
        _same(one)


async def test_what_was_in_the_way_twice_is_kept_twice(tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        place = _place(one.index, one.web)
        for number in range(2):
            place.unlink()
            _full_directory_in(place, str(number))
            _, repaired = await verify(one.config, repair={"fix": True})
            assert repaired is not None
            assert (repaired.left, repaired.store_error) == (0, None)
        kept = {path.name for path in (one.directory / "withheld/damaged").rglob("*") if path.is_file()}
        assert kept == {"0", "1"}


def _full_directory_in(path: Path, name: str) -> None:
    path.mkdir()
    (path / name).write_bytes(b"mine")


LOOKS: list[dict[str, Any]] = [{}, {"projects": ("beta",)}, {"quick": True}]


@pytest.mark.parametrize("above", [0, 1, 2])
async def test_a_link_out_of_the_tree_is_not_followed(above: int, tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        wheel = one.files("beta")["beta-1.0-py3-none-any.whl"]
        place = wheel.parents[above]
        _move_out(place, tmp_path / "outside")
        before = listing(tmp_path / "outside")
        paths = {
            path.relative_to(one.web).as_posix() for path in (place, wheel, wheel.with_name(wheel.name + ".metadata"))
        }
        for where in (one.config, one.web):
            for asked in LOOKS:
                seen, _ = await verify(where, **asked)
                assert {kind for kind, _ in seen.kinds} == {"obstacle"}
                assert {path for _, path in seen.kinds} >= (paths if "projects" not in asked else paths - {min(paths)})
        looked = Looker(one.config, Budget(None)).project("beta", "", lambda _: None)
        assert "obstacle" in {found.kind for found in looked.findings}

        _, repaired = await verify(one.config, repair={"fix": True, "delete": True})
        assert repaired is not None
        assert (repaired.left, repaired.store_error) == (0, None)
        assert listing(tmp_path / "outside") == before
        assert not place.is_symlink()
        _same(one)
        seen, _ = await verify(one.config)
        assert seen.findings == []


@pytest.mark.parametrize("folder", ["simple/beta", "pypi/beta", "integrity/beta"])
async def test_a_project_s_directory_is_no_link(folder: str, tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        _move_out(one.web / folder, tmp_path / "outside")
        before = listing(tmp_path / "outside")
        for where in (one.config, one.web):
            for asked in LOOKS[:2]:
                seen, _ = await verify(where, **asked)
                assert seen.findings != [], (where, asked)
        seen, repaired = await verify(one.config, repair={"fix": True, "delete": True})
        assert repaired is not None
        assert (repaired.left, repaired.store_error) == (0, None), seen.findings
        assert listing(tmp_path / "outside") == before
        _same(one)
        seen, _ = await verify(one.config)
        assert seen.findings == []


async def test_what_is_at_the_top_of_the_tree_may_be_a_link(tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        for name in ("packages", "simple", "json", "pypi", "integrity"):
            _move_out(one.web / name, tmp_path / name)
        for where in (one.config, one.web):
            seen, _ = await verify(where)
            assert seen.findings == []


def _move_out(place: Path, outside: Path) -> None:
    place.rename(outside)
    place.symlink_to(outside)


@pytest.mark.parametrize("passed", [False, True], ids=["at once", "after a pass"])
@pytest.mark.parametrize("kind", ["directory", "link to a file", "linked directory"])
async def test_what_an_adopted_tree_had_in_the_way_is_cleared(kind: str, passed: bool, tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        place = path_of(one, WHEEL)
        if kind == "directory":
            place.unlink()
            _full_directory(place)
        elif kind == "link to a file":
            _move_out(place, tmp_path / "outside")
        else:
            _move_out(place.parent, tmp_path / "outside")
        _, found = await adopt(one)
        assert "obstacle" in {each.kind for each in found}
        if passed:
            assert owed_names(await one.attempt()) == ["beta"]
        seen, repaired = await verify(one.config, repair={"fix": True})
        assert repaired is not None
        assert repaired.store_error is None
        # What lay beside it was nobody's when it was looked at.
        assert {each.kind for number, each in enumerate(seen.findings) if number not in repaired.fixed} <= (
            {"unreferenced"} if passed else {"unreferenced", "obstacle"}
        )
        if kind != "directory":
            assert (tmp_path / "outside").exists()
        assert (await one.attempt()).complete
        kept = one.directory / "withheld"
        if kept.exists():
            shutil.rmtree(kept)
        await complete(one)


@pytest.mark.parametrize("folder", ["simple/one", "pypi/one"])
async def test_a_link_in_the_place_of_a_directory_goes_and_not_what_it_leads_to(folder: str, tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        _move_out(one.web / folder, tmp_path / "outside")
        before = listing(tmp_path / "outside")
        one.index.remove_project("one")
        await one.delete("two")
        assert (await one.attempt()).complete
        assert listing(tmp_path / "outside") == before
        assert not (one.web / folder).is_symlink()
        seen, _ = await verify(one.config)
        assert seen.findings == []


@pytest.mark.parametrize(
    "above", [-1, 0, 2], ids=["a directory", "a link for its directory", "a link for the first level"]
)
async def test_what_is_not_ours_is_not_removed_with_a_project(above: int, tmp_path: Path) -> None:
    async with following(_index(), tmp_path / "mirror") as one:
        await one.sync()
        place = _place(one.index, one.web)
        if above < 0:
            place.unlink()
            _full_directory_in(place, "mine")
        else:
            _move_out(place.parents[above], tmp_path / "outside")
        mine = listing(tmp_path / "outside" if above >= 0 else place)
        one.index.remove_project("one")
        one.index.remove_project("two")
        assert (await one.attempt()).complete
        assert listing(tmp_path / "outside" if above >= 0 else place) == mine
        assert not (one.web / "simple/one").exists()
        assert not (one.web / "simple/two").exists()
        await verify(one.config, repair={"fix": True})
        assert (await one.attempt()).complete
        seen, _ = await verify(one.config)
        assert seen.findings == []
