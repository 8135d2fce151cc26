"""SIGKILL at any instant, any number of times: nothing published is lost, and the next run completes.

The mirror is the real process, the index another one (this).  Where it dies is steered: by requests that the index
holds open, and by what the process itself logs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang
from heliostat.fakeindex.synthetic import provenance_for
from heliostat.fakeindex.wheels import wheel
from support.equality import differences
from support.invariants import broken_promises, unaccounted
from support.killing import Victim, ledger_of
from support.volume import Volume

KILLS = 5
#: A kill that comes a moment late hits the next phase; so many tries must have enough that do not.
TRIES = 8 * KILLS
#: Seconds for anything to happen; only a test that fails waits so long.
PATIENCE = 240.0

LARGE = 12 << 20
PHASES = (
    "list", "feed", "small file", "large file", "sidecar", "place", "page", "ledger", "root", "withdraw", "remove", "changes",
)  # fmt: skip


class Upstream:
    """An index that changes between the runs, so that each of them has something of everything to do."""

    def __init__(self) -> None:
        self.index = Index()
        self.removed: set[str] = set()
        self._numbers = iter(range(1, 10_000))
        self._names = iter(range(1, 10_000))
        for number in range(24):
            self._publish(f"steady-{number}", "1.0")
        self._brief: list[str] = []
        for _ in range(20):
            self._add_brief()

    def change(self) -> None:
        """New files and sidecars, fewer old ones, yanked ones, and now and then a quarantine."""
        number = next(self._numbers)
        version = f"1.{number}"
        for offset in range(6):
            self._publish(f"steady-{(number * 6 + offset) % 24}", version)
        name = f"steady-{number % 24}"
        releases = self.index[name].releases
        oldest = next(iter(releases))
        if len(releases) > 2:
            self.index.remove_release(name, oldest)
        else:
            self.index.yank(name, oldest, "because")
        quarantined = f"steady-{number % 5}"
        if self.index[quarantined].quarantined:
            self.index.clear_quarantine(quarantined)
        elif number % 3 == 0:
            self.index.quarantine(quarantined)

    def remove(self, count: int = 4) -> None:
        """Projects go, and as many new ones come."""
        for _ in range(count):
            self.removed.add(self._brief[0])
            self.index.remove_project(self._brief.pop(0))
            self._add_brief()

    def _add_brief(self) -> None:
        name = f"brief-{next(self._names)}"
        self.index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", name.encode() * 50))
        self._brief.append(name)

    def _publish(self, name: str, version: str) -> None:
        built = wheel(name, version)
        # What is in the wheel is not asked for: some sidecars are not.
        sidecar = built.metadata + b"\n" if name.endswith("5") else built.metadata
        uploaded = UploadedFile(built.filename, built.data, sidecar=sidecar)
        if name.endswith("3"):
            uploaded.provenance = provenance_for(uploaded)
        filename = f"{name.replace('-', '_')}-{version}.tar.gz"
        self.index.publish(name, version, [uploaded, UploadedFile(filename, f"{name} {version}".encode() * 40)])


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def server(upstream: Upstream) -> AsyncIterator[FakeIndex]:
    async with FakeIndex(upstream.index) as running:
        yield running


@pytest.fixture(params=[16, 2], ids=["batches written here", "batches written in another process"])
def home(tmp_path: Path, server: FakeIndex, request: pytest.FixtureRequest) -> Iterator[Path]:
    (tmp_path / "pypi").mkdir()
    (tmp_path / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\neverything = true\nroot-interval = 0\nbatch-projects = {request.param}\n'
        f'[upstream]\nurl = "{server.url}"\nallow-http = true\n'
    )
    yield tmp_path
    Victim.kill_all()


def check(home: Path, upstream: Upstream, victim: Victim) -> None:
    """The killed process left nothing that it must not leave."""
    volume = Volume.of(home / "pypi")
    found = broken_promises(volume, strict=True, gone=upstream.removed)
    with ledger_of(home / "pypi") as ledger:
        if ledger.execute("SELECT 1 FROM sqlite_master").fetchone():
            found += unaccounted(volume, ledger, gone=upstream.removed)
    assert not found, "\n".join([f"killed in {victim.phase}", *found, *victim.lines[-20:]])


async def recovered(home: Path, upstream: Upstream) -> None:
    """One more run, left alone, makes the mirror equal to upstream."""
    victim = Victim(home, "--allow-removals", "1000")
    assert await victim.end() == 0, "".join(victim.lines)
    assert differences(upstream.index, home / "pypi") == []
    assert list((home / "pypi/partial").iterdir()) == []


async def test_killed_in_every_phase(home: Path, server: FakeIndex, upstream: Upstream) -> None:
    hits: dict[str, int] = {}

    async def at_request(phase: str, matches: str, hang: Hang, kills: int = KILLS) -> None:
        """Die while a request of that kind is held open."""
        for _ in range(kills):
            fault = server.fault(matches, hang)
            reached = server.seen(matches)
            victim = Victim(home)
            async with asyncio.timeout(PATIENCE):
                await reached
            await victim.kill()
            fault.remove()
            hits[phase] = hits.get(phase, 0) + 1
            check(home, upstream, victim)

    async def in_large_file() -> None:
        """Die in mid-file; each run must have gone on where the last one was killed."""
        upstream.index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(LARGE, 1)))
        for number in range(1, KILLS + 1):
            fault = server.fault("/packages/*/large-*", Hang(after=float(LARGE // (KILLS + 2))))
            least = partial_size(home) + (1 << 20)
            victim = Victim(home)
            await until(lambda least=least: partial_size(home) >= least)
            await victim.kill()
            fault.remove()
            hits["large file"] = number
            check(home, upstream, victim)

    async def in_phase(phase: str, *, remove: bool = False) -> None:
        for _ in range(TRIES):
            if hits.get(phase, 0) == KILLS:
                return
            upstream.change()
            if remove:
                upstream.remove()
            victim = Victim(home, "--allow-removals", "1000")
            hits[phase] = hits.get(phase, 0) + await victim.killed_in(phase)
            check(home, upstream, victim)

    await at_request("list", "/simple/", Hang(after=0.5))
    await at_request("small file", "/packages/*steady_3*.whl", Hang(after=0.5))
    await at_request("sidecar", "/packages/*.metadata", Hang())
    await in_large_file()
    for phase in ("place", "page", "ledger", "root", "changes"):
        await in_phase(phase)
    await recovered(home, upstream)
    upstream.change()
    await at_request("feed", "/pypi", Hang())
    await in_phase("withdraw", remove=True)
    await in_phase("remove", remove=True)
    assert hits == dict.fromkeys(PHASES, KILLS)
    await recovered(home, upstream)


async def test_killed_at_random(home: Path, upstream: Upstream) -> None:
    """Twenty times, some moment after the start; the delays cover a whole run."""
    chance = random.Random(20260901)
    started = time.monotonic()
    await recovered(home, upstream)
    whole = time.monotonic() - started
    for _ in range(20):
        upstream.change()
        if chance.random() < 0.4:
            upstream.remove(1)
        victim = Victim(home, "--allow-removals", "1000")
        try:
            await asyncio.wait_for(asyncio.to_thread(victim.process.wait), chance.uniform(0.3, 1.0) * whole)
        except TimeoutError:
            victim.process.kill()
        await victim.end()
        check(home, upstream, victim)
    await recovered(home, upstream)


def partial_size(home: Path) -> int:
    return max((path.stat().st_size for path in (home / "pypi/partial").glob("*.part")), default=0)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
