"""A disk that is full, out of inodes, or read-only: exit 6 with one clear message, and the next run goes on.

Small file systems in memory are mounted for this, which needs ``mount`` and root.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Cut, Rewrite
from heliostat.store.disk import Disk
from support.cli import arun
from support.daemon_process import configure as configure_daemon
from support.daemon_process import daemon_process, metrics_of
from support.equality import differences
from support.invariants import broken_promises, unaccounted
from support.killing import ledger_of
from support.volume import Volume

pytestmark = pytest.mark.outside

PROJECTS, FILE = 40, 100_000

#: (where, options) -> a path with a new file system
Mount = Callable[[str, str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with contextlib.ExitStack() as mounted:

        def make(name: str, options: str) -> Path:
            path = tmp_path / name
            path.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
            mounted.callback(lambda: subprocess.run(["umount", path], check=True))
            return path

        yield make


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for number in range(PROJECTS):
        name = f"project-{number}"
        filename = f"project_{number}-1.0-py3-none-any.whl"
        index.publish(name, "1.0", UploadedFile(filename, Virtual(FILE, number), sidecar=b"Metadata-Version: 2.1\n"))
    async with FakeIndex(index) as server:
        yield server


def configure(
    home: Path, upstream: FakeIndex, more: str = 'min-free = "0%"\n', scope: str = "everything = true"
) -> None:
    (home / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\n{scope}\nbatch-projects = 8\n{more}'
        f'[upstream]\nurl = "{upstream.url}"\nallow-http = true\nretries = 2\nretry-delay = 0.01\n'
    )


async def fails(home: Path, *words: str, lines: tuple[int, ...] = (1,)) -> None:
    """A run ends with 6 and says why in so many lines; nothing that is shown is broken by that."""
    done = await arun("mirror", "--once", cwd=home)
    said = [line for line in (done.stdout + done.stderr).splitlines() if all(word in line for word in words)]
    assert done.returncode == 6, done.stdout[:900] + done.stderr[:900]
    assert len(said) in lines, done.stdout[:900] + done.stderr[:900]
    assert "Traceback" not in done.stderr
    state = home / "state" if (home / "state").exists() else home / "pypi"
    volume = Volume.of(home / "pypi")
    found = broken_promises(volume, strict=True)
    with ledger_of(state) as ledger:
        if ledger.execute("SELECT 1 FROM sqlite_master").fetchone():
            found += unaccounted(volume, ledger)
    assert found == []
    assert [path for path in volume.below("partial") if not path.endswith((".part", ".etag"))] == []


async def completes(home: Path, upstream: FakeIndex, only: Collection[str] | None = None) -> None:
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert differences(upstream.index, home / "pypi", only=only) == []


async def test_a_full_disk(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    pypi = mount("pypi", "size=2m")
    configure(tmp_path, upstream)
    await fails(tmp_path, "store: cannot")
    await fails(tmp_path, "store: cannot")
    assert (await arun("status", cwd=tmp_path)).returncode == 0
    remount(pypi, "size=64m")
    await completes(tmp_path, upstream)


async def test_a_full_disk_in_the_middle_of_a_large_file(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    """It is not known beforehand: upstream does not say how large the file is."""
    upstream.index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(24 << 20, 1000)))
    without_size = Rewrite(lambda body: re.sub(rb'"size":\s*\d+,?', b"", body))
    upstream.fault("/simple/large/", without_size)
    upstream.fault("/pypi/large/json", without_size)
    pypi = mount("pypi", "size=16m")
    configure(tmp_path, upstream)
    await fails(tmp_path, "store: cannot")
    assert partial_bytes(pypi) > 4 << 20
    sent = upstream.total_bytes
    upstream.clear_faults()
    remount(pypi, "size=64m")
    await completes(tmp_path, upstream)
    assert upstream.total_bytes - sent < 24 << 20  # what had come was not thrown away


async def test_a_file_that_cannot_fit_is_not_begun(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    upstream.index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(24 << 20, 1000)))
    pypi = mount("pypi", "size=24m")
    configure(tmp_path, upstream)
    # In the log when it happens, as what the store said, and as what its project is owed for.
    await fails(tmp_path, "large-1.0.tar.gz", "25165824 bytes", lines=(3,))
    assert upstream.count("/packages/*/large-*") == 0
    remount(pypi, "size=64m")
    await completes(tmp_path, upstream)


async def test_a_full_disk_under_the_ledger(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    (tmp_path / "pypi").mkdir()
    state = mount("state", "size=80k")
    configure(tmp_path, upstream, 'min-free = "0%"\nstate = "state"\n')
    await fails(tmp_path, "heliostat.db")
    remount(state, "size=4m")
    await completes(tmp_path, upstream)


@pytest.mark.parametrize("size", ["4k", "16k", "40k", "60k", "120k", "160k", "200k"])
async def test_a_ledger_that_finds_no_room_at_some_point(
    tmp_path: Path, upstream: FakeIndex, mount: Mount, size: str
) -> None:
    (tmp_path / "pypi").mkdir()
    state = mount("state", f"size={size}")
    configure(tmp_path, upstream, 'min-free = "0%"\nstate = "state"\n')
    done = await arun("mirror", "--once", cwd=tmp_path)
    assert done.returncode in (0, 6), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    remount(state, "size=4m")
    await completes(tmp_path, upstream)


async def test_a_disk_that_fills_up_under_a_daemon(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    """Another program's file takes all there is, the ledger's part as well: no end, and it is over when that goes."""
    pypi = mount("pypi", "size=32m")
    configure_daemon(tmp_path, upstream.url)
    text = (tmp_path / "heliostat.toml").read_text().replace("interval = 86400", "interval = 1")
    often = "[service]\nback-off-most = 1\ngive-up-after = 2\n"
    (tmp_path / "heliostat.toml").write_text(text.replace("[service]\n", often))
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting" and it["passes"].get("complete"))
        fill_up(pypi / "somebody-elses")
        upstream.index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(FILE, 77)))
        told = await daemon.says(lambda it: it["passes"].get("store", 0) >= 4)
        assert (told["trouble"], told["passes"].get("defect")) == ("store", None)
        assert 'heliostat_trouble{kind="store"} 1' in await metrics_of(tmp_path)
        done = await arun("mirror", "--once", cwd=tmp_path)
        assert done.returncode == 6, (done.stdout, done.stderr)
        (pypi / "somebody-elses").unlink()
        await daemon.says(lambda it: it["trouble"] is None)
        await daemon.says(lambda it: it["checkpoint"] == upstream.index.serial)
        await daemon.stop()
    assert differences(upstream.index, pypi) == []


def fill_up(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


async def test_no_inodes(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    pypi = mount("pypi", "size=64m,nr_inodes=150")
    configure(tmp_path, upstream)
    await fails(tmp_path, "store: cannot")
    remount(pypi, "size=64m,nr_inodes=10000")
    await completes(tmp_path, upstream)


def test_the_store_says_when_it_is_inodes_that_are_missing(mount: Mount) -> None:
    disk = Disk(str(mount("pypi", "size=64m,nr_inodes=20")))
    while disk.free()[2]:
        disk.write(f"partial/{disk.free()[2]}", b"x")
    with pytest.raises(StoreError, match="no inodes free"):
        disk.write("partial/one-more", b"x")
    with pytest.raises(StoreError, match="no inodes free"):
        disk.make_directory("web")


async def test_a_read_only_file_system(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    pypi = mount("pypi", "size=64m")
    configure(tmp_path, upstream)
    await completes(tmp_path, upstream)
    before = Volume.of(pypi)
    upstream.index.remove_project("project-1")
    remount(pypi, "ro")
    done = await arun("mirror", "--once", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.count("\n") == 1
    assert str(pypi) in done.stderr
    assert "ead-only file system" in done.stderr
    status = await arun("status", cwd=tmp_path)
    assert (status.returncode, status.stderr) == (0, "")
    assert before.nodes.keys() == Volume.of(pypi).nodes.keys()
    remount(pypi, "rw")
    await completes(tmp_path, upstream)


async def test_min_free_ends_a_pass_before_the_disk_is_full(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    pypi = mount("pypi", "size=6m")
    configure(tmp_path, upstream, 'min-free = "50%"\n')
    await fails(tmp_path, "min-free")
    assert free(pypi) > 2 << 20
    remount(pypi, "size=64m")
    await completes(tmp_path, upstream)


async def test_nothing_is_fetched_that_cannot_be_kept(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    pypi = mount("pypi", "size=16m")
    (pypi / "somebody-elses").write_bytes(bytes(9 << 20))
    configure(tmp_path, upstream, 'min-free = "50%"\n')
    await fails(tmp_path, "min-free")
    assert upstream.count("/packages/*") == 0
    (pypi / "somebody-elses").unlink()
    await completes(tmp_path, upstream)


async def test_min_free_counts_for_large_files_too(tmp_path: Path, upstream: FakeIndex, mount: Mount) -> None:
    """Three at once, each of which alone would fit."""
    for number in range(3):
        file = UploadedFile(f"large-{number}.tar.gz", Virtual(9 << 20, 1000 + number))
        upstream.index.publish("large", f"1.{number}", file)
    pypi = mount("pypi", "size=40m")
    configure(tmp_path, upstream, 'min-free = "50%"\n', scope='projects = ["large"]')
    await fails(tmp_path, "min-free", lines=(1, 3))  # the file, or the disk it left
    assert free(pypi) > 20 << 20
    remount(pypi, "size=128m")
    await completes(tmp_path, upstream, only=["large"])


async def test_a_download_that_is_nearly_complete_needs_room_for_its_rest_only(
    tmp_path: Path, upstream: FakeIndex, mount: Mount
) -> None:
    upstream.index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(20 << 20, 1000)))
    mount("pypi", "size=36m")
    configure(tmp_path, upstream)
    upstream.fault("/packages/*/large-*", Cut(0.9))
    done = await arun("mirror", "--once", cwd=tmp_path)
    assert done.returncode == 3, (done.stdout, done.stderr)
    upstream.clear_faults()
    await completes(tmp_path, upstream)


async def test_what_leaves_the_scope_makes_room_on_a_full_disk(
    tmp_path: Path, upstream: FakeIndex, mount: Mount
) -> None:
    mount("pypi", "size=6m")
    configure(tmp_path, upstream)
    await completes(tmp_path, upstream)
    for number in range(PROJECTS):
        upstream.index.publish(f"project-{number}", "2.0", UploadedFile(f"p_{number}-2.0.zip", Virtual(FILE, -number)))
    await fails(tmp_path, "store: cannot")
    kept = [f"project-{number}" for number in range(PROJECTS // 2 + 2)]
    text = (tmp_path / "heliostat.toml").read_text()
    (tmp_path / "heliostat.toml").write_text(text.replace("everything = true", f"projects = {kept}"))
    await completes(tmp_path, upstream, only=kept)


def partial_bytes(pypi: Path) -> int:
    return sum(path.stat().st_size for path in (pypi / "partial").iterdir())


def free(path: Path) -> int:
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize
