"""What a user who may not do something is told, and that nothing is half done by then.

The commands run as a user without any rights of root's, also where the tests are run by root.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from support import as_ordinary_user
from support.cli import environment
from support.equality import differences
from support.invariants import broken_promises
from support.places import open_directory
from support.volume import Volume


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in ("alpha", "beta"):
        upload(index, name, "1.0")
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(upstream: FakeIndex) -> Iterator[Path]:
    """A directory that everybody may read, with a mirror that the ordinary user may write."""
    with open_directory() as path:
        (path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "pypi"\neverything = true\n[upstream]\nurl = "{upstream.url}"\nallow-http = true\n'
        )
        (path / "pypi").mkdir()
        give_away(path / "pypi")
        yield path


def upload(index: Index, name: str, version: str) -> None:
    index.publish(name, version, UploadedFile(f"{name}-{version}.tar.gz", f"{name} {version}".encode() * 50))


def give_away(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, as_ordinary_user.NOBODY, as_ordinary_user.NOBODY)


def take_back(path: Path, mode: int) -> None:
    """Not the ordinary user's any more where the tests are root's; with ``mode``."""
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    path.chmod(mode)


def owner(path: Path) -> str:
    return pwd.getpwuid(path.stat().st_uid).pw_name


async def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as an ordinary user; every message of it is in one line, and no defect."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(as_ordinary_user.__file__)),
        *arguments,
        cwd=home,
        env=environment(home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err
    assert b"defect" not in err
    return subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode())


async def test_no_right_of_roots_is_needed(home: Path, upstream: FakeIndex) -> None:
    done = await run(home, "mirror", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(upstream.index, home / "pypi") == []
    if os.geteuid() == 0:
        assert owner(home / "pypi/web/simple") == pwd.getpwuid(as_ordinary_user.NOBODY).pw_name


async def test_a_directory_that_cannot_be_written(home: Path) -> None:
    take_back(home / "pypi", 0o555)
    done = await run(home, "mirror", "--once")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
    assert f"{home}/pypi" in done.stderr
    assert "Permission denied" in done.stderr
    assert list((home / "pypi").iterdir()) == []


async def test_a_directory_that_cannot_be_entered(home: Path, upstream: FakeIndex) -> None:
    assert (await run(home, "mirror", "--once")).returncode == 0
    take_back(home / "pypi", 0o600)
    for arguments in (("mirror", "--once"), ("status",), ("rebuild",), ("mirror", "--dry-run")):
        done = await run(home, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1), arguments
        assert f"{home}/pypi" in done.stderr
        assert "no such" not in done.stderr
        assert f"run this as user '{owner(home / 'pypi')}'" in done.stderr, arguments


async def test_a_ledger_that_cannot_be_read(home: Path) -> None:
    assert (await run(home, "mirror", "--once")).returncode == 0
    take_back(home / "pypi/heliostat.db", 0o200)
    status = await run(home, "status")
    assert (status.returncode, status.stdout, status.stderr.count("\n")) == (6, "", 1)
    assert f"{home}/pypi/heliostat.db" in status.stderr
    assert f"run this as user '{owner(home / 'pypi/heliostat.db')}'" in status.stderr
    mirror = await run(home, "mirror", "--once")
    assert (mirror.returncode, mirror.stdout, mirror.stderr.count("\n")) == (6, "", 1)
    assert f"{home}/pypi/heliostat.db" in mirror.stderr


async def test_a_ledger_that_can_be_read_only_is_enough_for_status(home: Path) -> None:
    assert (await run(home, "mirror", "--once")).returncode == 0
    for path in (home / "pypi/heliostat.db", home / "pypi"):
        take_back(path, 0o555)
    done = await run(home, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (home / "pypi").glob("heliostat.db*")) == ["heliostat.db"]


#: Each is in the way of the pass that has to change it.
PARTS = {
    "web/packages": 0o555, "web/simple": 0o555, "web/simple/alpha": 0o555, "web/json": 0o555, "partial": 0o555,
    "web/simple/alpha/index.v1_json": 0o200, "web/json/alpha": 0o200, "web/pypi/alpha": 0,
}  # fmt: skip


async def test_a_part_of_the_tree_that_is_somebody_elses(home: Path, upstream: FakeIndex) -> None:
    assert (await run(home, "mirror", "--once")).returncode == 0
    for number, (path, mode) in enumerate(PARTS.items()):
        upload(upstream.index, "alpha", f"2.{number}")
        upload(upstream.index, f"new-{number}", "1.0")
        part = home / "pypi" / path
        before = part.stat()
        take_back(part, mode)
        done = await run(home, "mirror", "--once")
        said = done.stdout + done.stderr
        assert done.returncode == 6, path
        assert sum("Permission denied" in line and path in line for line in said.splitlines()) == 1, said
        os.chown(part, before.st_uid, before.st_gid)
        part.chmod(before.st_mode)
        assert broken_promises(Volume.of(home / "pypi"), strict=True) == [], path
    assert (await run(home, "mirror", "--once")).returncode == 0
    assert differences(upstream.index, home / "pypi") == []
