"""A tree with links to directories: what they lead to is not the mirror's, and stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.errors import ConfigError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.adopt.layouts import recognise
from support import trees
from support.adopted import SDIST, WHEEL, adopt, dry_run, fetched, old_index, path_of
from support.mirrors import following


def moved_away(folder: Path, outside: Path) -> Path:
    """Put ``folder`` below ``outside``, and a link in its place; where it is now."""
    outside.mkdir(exist_ok=True)
    away = outside / str(len(os.listdir(outside)))
    folder.rename(away)
    folder.symlink_to(away)
    return away


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_files_in_linked_directories_are_told_and_left_alone(tmp_path: Path) -> None:
    """Unreadable, wrong, of a half-done download, or gone with all that the link led to."""
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        outside, odd = tmp_path / "outside", "r2_d2-1.0-py3-none-any.whl"
        wheel_path, sdist_path, odd_path = (path_of(one, name) for name in (WHEEL, SDIST, odd))
        dangling = path_of(one, "zope_interface-0.9.tar.gz")
        os.chmod(wheel_path, 0o600)
        (wheel_path.parent / f".{WHEEL}.k3x9z0a_").write_bytes(b"half")
        sdist_path.write_bytes(b"short")
        odd_path.write_bytes(b"x" * odd_path.stat().st_size)
        moved_away(wheel_path.parent, outside)
        moved_away(sdist_path.parent.parent, outside)
        moved_away(odd_path.parent.parent.parent, outside)
        dangling.unlink()
        dangling.parent.rmdir()
        dangling.parent.symlink_to(outside / "nowhere")
        before = contents(outside)

        _, planned = dry_run(one, "digest")
        result, found = await adopt(one, "digest")

        assert contents(outside) == before
        paths = {path.relative_to(one.directory).as_posix() for path in (wheel_path, sdist_path, odd_path, dangling)}
        told = {each.path: each.problem for each in found if each.kind == "obstacle"}
        assert told.keys() == paths
        assert told[wheel_path.relative_to(one.directory).as_posix()] == (
            f"{wheel_path.parent.relative_to(one.directory)} is a symbolic link; files are not looked for behind it"
        )
        assert sorted(found, key=str) == sorted(planned, key=str)
        assert result.differences == len(paths)
        assert "adopted" not in os.listdir(outside)
        for name in one.index.projects():
            assert not set(one.files(name)) & {path.rpartition("/")[2] for path in paths}


async def test_directories_that_may_be_links(tmp_path: Path) -> None:
    """Those at the top are where an operator may have put another disk."""
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory)
        for folder in ("packages", "json"):
            moved_away(one.web / folder, tmp_path / "outside")
        result, found = await adopt(one)
        assert result.differences == 0, found
        await one.sync()
        assert fetched(one) == []


async def test_leftovers_behind_links_stay(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        trees.bandersnatch(one.index, one.directory, versions=True)
        outside = tmp_path / "outside"
        folder = one.web / "simple/beta"
        for page in folder.iterdir():
            if page.is_symlink():
                body = page.read_bytes()
                page.unlink()
                page.write_bytes(body)
        moved_away(folder / "versions", outside)
        old = one.web / "pypi/R2-D2"
        old.mkdir()
        (old / "json").write_bytes((one.web / "json/r2-d2").read_bytes())
        moved_away(old, outside)
        hashed = one.web / "simple/z"
        (hashed / "Zope.Interface").mkdir(parents=True)
        (hashed / "Zope.Interface/index.html").write_bytes((one.web / "simple/zope-interface/index.html").read_bytes())
        moved_away(hashed, outside)
        before = contents(outside)
        assert len(before) > 3

        result, found = await adopt(one)

        assert contents(outside) == before
        assert result.differences == 0, found
        assert not old.is_symlink()
        assert not hashed.is_symlink()
        await one.sync()
        assert fetched(one) == []
        assert contents(outside) == before


async def test_files_do_not_get_places_behind_links(tmp_path: Path) -> None:
    index = Index()
    built = wheel("beta", "1.0")
    index.publish("beta", "1.0", UploadedFile(built.filename, built.data))
    async with following(index, tmp_path / "mirror") as one:
        trees.pep381client(index, one.directory)
        (file,) = (each.file for each in index.expected_files("beta"))
        place = one.web / "packages" / file.content.digests.sha256[:2]
        place.mkdir()
        away = moved_away(place, tmp_path / "outside")
        _, found = await adopt(one)
        assert [each.kind for each in found if each.kind in ("obstacle", "renamed")] == ["obstacle"]
        assert list(away.iterdir()) == []
        assert len(list(one.web.rglob(WHEEL))) == 1


@pytest.mark.parametrize("tool", ["bandersnatch", "shadowmire"])
def test_a_tree_into_which_nothing_could_be_renamed_is_refused(tool: str, tmp_path: Path) -> None:
    """Before anything is done: the first pass would end at its first file."""
    top = tmp_path / "mirror"
    getattr(trees, tool)(old_index(), top)
    packages = (top if tool == "shadowmire" else top / "web") / "packages"
    packages.rename(tmp_path / "packages")
    for elsewhere, problem in (
        ("/proc/self", "lies on another file system than"), (str(tmp_path / "nowhere"), "is a link that leads nowhere"),
    ):  # fmt: skip
        packages.symlink_to(elsewhere)
        with pytest.raises(ConfigError, match=f"{packages} {problem}"):
            recognise(os.fspath(top), None)
        packages.unlink()


def test_a_link_that_would_stay_at_the_top_is_refused(tmp_path: Path) -> None:
    trees.shadowmire(old_index(), tmp_path / "mirror")
    moved_away(tmp_path / "mirror/packages", tmp_path / "outside")
    with pytest.raises(ConfigError, match="mirror/packages is a symbolic link"):
        recognise(os.fspath(tmp_path / "mirror"), None)
