"""SIGINT, SIGTERM and SIGKILL in the middle of a pass, and the lock that is held through all of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Action, Hang, Status
from support.cli import arun, finish, start
from support.equality import differences
from support.invariants import broken_promises
from support.killing import Victim
from support.mirrors import listing
from support.small_index import mirror_home
from support.volume import Volume

#: Seconds that only a test that fails waits.
PATIENCE = 60.0


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for number in range(12):
        name = f"project-{number}"
        file = UploadedFile(f"project_{number}-1.0-py3-none-any.whl", Virtual(2000, number), sidecar=b"Name: x\n")
        index.publish(name, "1.0", file)
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(8 << 20, 99)))
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Iterator[Path]:
    yield mirror_home(tmp_path, upstream, mirror="batch-projects = 4", limits="retry-delay = 30")
    Victim.kill_all()


async def ended(process: asyncio.subprocess.Process) -> subprocess.CompletedProcess[str]:
    """What a process that is to end by itself said; it is killed when it does not."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await finish(process)
    except TimeoutError:
        process.kill()
        raise


async def completes(home: Path, upstream: FakeIndex) -> None:
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert differences(upstream.index, home / "pypi") == []
    assert list((home / "pypi/partial").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/simple/", Hang(after=0.5)),
        ("/simple/project-3/", Hang()),
        ("/packages/*/project_3-*.whl", Hang(after=0.5)),
        ("/packages/*/large-*", Hang(after=0.5)),
        ("/packages/*", Status(503, retry_after=3000)),
        ("/simple/*", Status(500)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_it_stops_whatever_it_waits_for(home: Path, upstream: FakeIndex, path: str, fault: Action) -> None:
    """Upstream never answers, nor is any limit of time near: only the signal ends it."""
    upstream.fault(path, fault)
    reached = upstream.seen(path)
    process = await start("mirror", "--once", cwd=home)
    async with asyncio.timeout(PATIENCE):
        await reached
        process.send_signal(signal.SIGTERM)
    done = await ended(process)
    assert done.returncode == 143, (done.stdout, done.stderr)
    assert done.stdout.startswith("interrupted: ")
    assert "Traceback" not in done.stderr
    assert broken_promises(Volume.of(home / "pypi"), strict=True) == []
    upstream.clear_faults()
    await completes(home, upstream)


async def test_a_poll_of_the_feed_stops_too(home: Path, upstream: FakeIndex) -> None:
    await completes(home, upstream)
    upstream.fault("/pypi", Hang())
    reached = upstream.seen("/pypi")
    process = await start("mirror", "--once", cwd=home)
    async with asyncio.timeout(PATIENCE):
        await reached
        process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.returncode == 130, (done.stdout, done.stderr)
    upstream.clear_faults()
    await completes(home, upstream)


async def test_what_is_finished_when_it_is_stopped_stays(home: Path, upstream: FakeIndex) -> None:
    """Stopped in the middle of a batch: the batch is still recorded, and nothing of it is fetched again."""
    upstream.fault("/packages/*/large-*", Hang())
    victim = Victim(home)
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(victim.read_until, "page")
        victim.process.terminate()
        assert await victim.end() == 143, victim.lines
    shown = {path.name for path in (home / "pypi/web/simple").iterdir() if path.is_dir()}
    assert len(shown) >= 4
    upstream.clear_faults()
    upstream.reset_log()
    await completes(home, upstream)
    assert sum(upstream.count(f"/simple/{name}/") for name in shown) == 0


async def test_a_second_signal_ends_it_at_once(home: Path, upstream: FakeIndex) -> None:
    upstream.fault("/packages/*/project_3-*.whl", Hang())
    reached = upstream.seen("/packages/*/project_3-*.whl")
    process = await start("mirror", "--once", cwd=home)
    async with asyncio.timeout(PATIENCE):
        await reached
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    done = await ended(process)
    assert done.returncode in (130, 143), done.stderr  # they may come in either order
    assert done.stdout == ""
    assert "stopped at once" in done.stderr
    assert broken_promises(Volume.of(home / "pypi"), strict=True) == []
    upstream.clear_faults()
    await completes(home, upstream)


# --- the lock ----------------------------------------------------------------------------------------------------


async def test_a_killed_process_holds_no_lock(home: Path, upstream: FakeIndex) -> None:
    upstream.fault("/packages/*/project_3-*.whl", Hang())
    reached = upstream.seen("/packages/*/project_3-*.whl")
    first = await start("mirror", "--once", cwd=home)
    async with asyncio.timeout(PATIENCE):
        await reached
    signed = (home / "pypi/.lock").read_text()
    second = await ended(await start("mirror", "--once", cwd=home))
    assert (second.returncode, second.stdout) == (4, "")
    assert f"process {first.pid} since 2" in second.stderr
    rebuild = await ended(await start("rebuild", cwd=home))
    assert (rebuild.returncode, rebuild.stdout) == (4, "")
    assert (home / "pypi/.lock").read_text() == signed
    first.kill()
    await finish(first)
    status = await arun("status", cwd=home)
    assert "running       no" in status.stdout
    upstream.clear_faults()
    await completes(home, upstream)


async def test_the_lock_is_held_to_the_end(home: Path, upstream: FakeIndex) -> None:
    """From its first line on: once the lock can be had, nothing is written any more."""
    victim = Victim(home)
    await asyncio.to_thread(victim.read_until, "announce")
    reading = asyncio.create_task(victim.end())
    async with asyncio.timeout(PATIENCE):
        while not can_lock(home / "pypi/.lock"):
            await asyncio.sleep(0.001)
    after_lock = listing(home / "pypi")
    assert await reading == 0
    assert listing(home / "pypi") == after_lock
    assert any("root: written" in line for line in victim.lines)
    assert differences(upstream.index, home / "pypi") == []


def can_lock(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
