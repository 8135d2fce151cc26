"""Requirement files and locks: which projects, which of their files; and what cannot be read says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.errors import ConfigError
from heliostat.mirror.sites.wants import Want, Wants, read_lock, read_requirements, version_of
from heliostat.model import DistFile, ProjectName


def required(folder: Path, **files: str) -> Wants:
    """What ``one`` asks for, beside the other files."""
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    wants = Wants({}, [])
    read_requirements(wants, str(folder / "one.txt"))
    return wants


def locked(folder: Path, text: str) -> Wants:
    (folder / "some.lock").write_text(text)
    wants = Wants({}, [])
    read_lock(wants, str(folder / "some.lock"))
    return wants


def file(name: str, **hashes: str) -> DistFile:
    return DistFile(filename=name, url="https://x.example/f", hashes=hashes)


def want(wants: Wants, name: str) -> Want:
    return wants.projects[ProjectName(name)]


def test_names_options_comments_markers_and_continued_lines(tmp_path: Path) -> None:
    wants = required(
        tmp_path,
        one="\ufeff# a comment\n--index-url https://x.example/simple\nAl_pha  # why\n\n"
        'beta[extra] >= 1, < 2 ; python_version > "3" \\\n   and os_name == "nt"\n'
        "gamma==1.0 \\\n    --hash=sha256:ABCD \\\n    --hash=sha256:ef01\n-e ./here\n./there.whl\n"
        "delta @ https://x.example/d.zip\n--pre\nhttps://x.example/e-1.0.tar.gz\n",
    )
    assert list(wants.projects) == ["al-pha", "beta", "gamma"]
    assert not want(wants, "al-pha").restricted
    assert want(wants, "beta").wants(file("beta-1.5.tar.gz"))
    assert not want(wants, "beta").wants(file("beta-2.0-py3-none-any.whl"))
    assert want(wants, "beta").wants(file("beta-odd.exe"))
    assert want(wants, "gamma").hashes == {"sha256:abcd", "sha256:ef01"}
    assert want(wants, "gamma").wants(file("gamma-1.0.zip", sha256="abcd"))
    assert not want(wants, "gamma").wants(file("gamma-1.0.zip", sha256="0000"))
    assert [note.split(": ")[0].rpartition(":")[2] for note in wants.skipped] == ["10", "11", "12", "14"]


def test_files_that_name_others(tmp_path: Path) -> None:
    wants = required(
        tmp_path,
        one="-r two.txt\n-c limits.txt\n--requirement=three.txt\n-r https://x.example/more.txt\n",
        two="alpha\n-rone.txt\n",
        three="beta>1\n",
        limits="alpha<3\nbeta<2\nnobody==1\n",
    )
    assert list(wants.projects) == ["alpha", "beta"]
    assert not want(wants, "alpha").wants(file("alpha-3.0.zip"))
    assert want(wants, "alpha").wants(file("alpha-2.0.zip"))
    assert not want(wants, "beta").wants(file("beta-2.5.zip"))
    assert len(wants.skipped) == 1


def test_two_lines_for_one_project_want_what_either_wants(tmp_path: Path) -> None:
    one = want(required(tmp_path, one='a==1; os_name == "x"\na==2; os_name == "y"\n'), "a")
    assert [one.wants(file(f"a-{n}.zip")) for n in (1, 2, 3)] == [True, True, False]
    assert want(required(tmp_path, one="a==1\na\n"), "a").wants(file("a-3.zip"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fine\nnot a name!\n", "one.txt:2: 'not a name!' is no requirement"),
        ("-r gone.txt\n", "one.txt:1: 'gone.txt' is not there"),
        ("a ===\n", "one.txt:1:"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        required(tmp_path, one=text)


def test_nesting_is_bounded(tmp_path: Path) -> None:
    files = {f"n{n}": f"-r n{n + 1}.txt\n" for n in range(20)}
    with pytest.raises(ConfigError, match="nested too deeply"):
        required(tmp_path, one="-r n0.txt\n", n20="a\n", **files)


def test_uv_lock(tmp_path: Path) -> None:
    wants = locked(
        tmp_path,
        'version = 1\n[[package]]\nname = "Alpha"\nversion = "1.0"\nsource = { registry = "https://x.example/simple" }\n'
        'sdist = { url = "https://x.example/a.tar.gz", hash = "sha256:AA" }\n'
        'wheels = [{ url = "https://x.example/a.whl", hash = "sha256:bb" }]\n'
        '[[package]]\nname = "me"\nversion = "0"\nsource = { editable = "." }\n',
    )
    assert list(wants.projects) == ["alpha"]
    assert want(wants, "alpha").hashes == {"sha256:aa", "sha256:bb"}
    assert len(wants.skipped) == 1


def test_pylock(tmp_path: Path) -> None:
    wants = locked(
        tmp_path,
        'lock-version = "1.0"\n[[packages]]\nname = "alpha"\nversion = "1.0"\n[packages.sdist]\nname = "a"\n'
        'hashes = { sha256 = "aa", sha512 = "cc" }\n[[packages.wheels]]\nhashes = { sha256 = "bb" }\n'
        '[[packages]]\nname = "away"\n[packages.vcs]\ntype = "git"\n',
    )
    assert want(wants, "alpha").hashes == {"sha256:aa", "sha512:cc", "sha256:bb"}
    assert "away" not in wants.projects


def test_poetry_locks_of_both_ages(tmp_path: Path) -> None:
    now = locked(
        tmp_path,
        '[[package]]\nname = "alpha"\nversion = "1.0"\nfiles = [{file = "a.whl", hash = "sha256:aa"}]\n'
        '[[package]]\nname = "local"\nversion = "1"\n[package.source]\ntype = "directory"\nurl = "x"\n'
        '[metadata]\ncontent-hash = "x"\n',
    )
    assert want(now, "alpha").hashes == {"sha256:aa"}
    assert "local" not in now.projects
    old = locked(
        tmp_path,
        '[[package]]\nname = "alpha"\nversion = "1.0"\n'
        '[metadata.files]\nalpha = [{file = "a.whl", hash = "sha256:aa"}]\n',
    )
    assert want(old, "alpha").hashes == {"sha256:aa"}


def test_a_lock_without_hashes_pins_the_version(tmp_path: Path) -> None:
    one = want(locked(tmp_path, 'version = 1\n[[package]]\nname = "a"\nversion = "1.0"\n'), "a")
    assert [one.wants(file(f"a-{n}.zip")) for n in ("1.0", "1.1")] == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("]", "not valid TOML"),
        ("a = 1", "no lock that is known"),
        ("[[package]]\nversion = '1'", "package 1 has no name"),
        ("[[package]]\nname = '../x'", "not a valid project name"),
    ],
)
def test_a_lock_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        locked(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "filename", "version"),
    [
        ("pep517-test", "pep517-test-1.0.tar.gz", "1.0"),
        ("a-b", "a.b-1.0-py3-none-any.whl", "1.0"),
        ("a", "a-1.0.egg", None),
        ("a", "b-1.0.zip", None),
        ("a", "a-odd-1.zip", None),
    ],
)
def test_version_of_a_file(name: str, filename: str, version: str | None) -> None:
    found = version_of(name, filename)
    assert (None if found is None else str(found)) == version
