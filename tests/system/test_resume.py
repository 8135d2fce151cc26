"""A large download that ends at 90%, by a cut connection or by SIGKILL, costs its rest only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Cut, Hang
from support.cli import arun
from support.equality import differences
from support.killing import Victim
from support.small_index import mirror_home

SIZE = 200_000_000
FILE = "/packages/*/large-*"
#: Seconds that only a test that fails waits.
PATIENCE = 120.0


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(SIZE, 3)))
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Iterator[Path]:
    yield mirror_home(tmp_path, upstream, limits="retry-delay = 0.01")
    Victim.kill_all()


def sent(upstream: FakeIndex) -> int:
    """Bytes of the file that upstream has sent so far."""
    (path,) = {request.path for request in upstream.requests if "/large-" in request.path}
    return upstream.bytes_sent[path]


async def test_a_cut_connection(home: Path, upstream: FakeIndex) -> None:
    cut = upstream.fault(FILE, Cut(after=0.9), times=1)
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert cut.fired == 1
    assert SIZE <= sent(upstream) < 1.15 * SIZE
    assert differences(upstream.index, home / "pypi") == []


async def test_a_killed_process(home: Path, upstream: FakeIndex) -> None:
    upstream.fault(FILE, Hang(after=0.9))
    victim = Victim(home)
    async with asyncio.timeout(PATIENCE):
        while sum(path.stat().st_size for path in (home / "pypi").glob("partial/*.part")) < 0.89 * SIZE:
            await asyncio.sleep(0.01)
    await victim.kill()
    upstream.clear_faults()
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert SIZE <= sent(upstream) < 1.15 * SIZE
    assert differences(upstream.index, home / "pypi") == []
    assert list((home / "pypi/partial").iterdir()) == []
