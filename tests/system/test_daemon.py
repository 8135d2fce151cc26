"""The daemon as a process: signals, outages, reloads, and who may run beside it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from support.cli import arun, finish, start
from support.equality import differences
from support.invariants import broken_promises
from support.volume import Volume

#: Seconds that only a test that fails waits.
PATIENCE = 60.0


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for number in range(5):
        name = f"project-{number}"
        index.publish(name, "1.0", UploadedFile(f"project_{number}-1.0.tar.gz", Virtual(2000, number)))
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", Virtual(8 << 20, 99)))
    async with FakeIndex(index) as server:
        yield server


class Service:
    """A running daemon, and what it says on standard error."""

    def __init__(self, home: Path, upstream: FakeIndex) -> None:
        self.home, self.upstream = home, upstream
        self.lines: list[str] = []
        (home / "pypi").mkdir()

    @property
    def web(self) -> Path:
        return self.home / "pypi/web"

    def configure(self, mirror: str = "everything = true\n", service: str = "", directory: str = "pypi") -> None:
        (self.home / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "{directory}"\nmin-free = "0%"\nroot-interval = 0\nbatch-seconds = 0.1\n{mirror}'
            f'[upstream]\nurl = "{self.upstream.url}"\nallow-http = true\nretries = 1\n'
            f"[service]\nback-off-most = 1\n{service}"
        )

    async def start(self, *options: str) -> None:
        self.process = await start("mirror", "--no-progress", *options, cwd=self.home)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(line.decode().rstrip("\n"))

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert self.process.returncode is None, self.lines
                await asyncio.sleep(0.01)

    async def current(self) -> None:
        """Wait until the mirror shows what upstream has."""
        await self.until((self.web / "simple/index.v1_json").exists)
        await self.until(lambda: not differences(self.upstream.index, self.home / "pypi"))

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code


@pytest.fixture
async def service(tmp_path: Path, upstream: FakeIndex) -> AsyncIterator[Service]:
    found = Service(tmp_path, upstream)
    found.configure("everything = true\ninterval = 1\n")
    try:
        yield found
    finally:
        if found.process.returncode is None:
            found.process.kill()
        await found.process.wait()


async def test_sigterm_ends_it_with_0_while_it_waits(service: Service) -> None:
    await service.start()
    await service.current()
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended() == 0
    assert not service.said("Traceback")


async def test_sigterm_parks_what_is_in_flight_and_the_next_start_goes_on_with_it(service: Service) -> None:
    service.configure("everything = true\ninterval = 1\n", "grace = 0.5\n")
    service.upstream.fault("/packages/*/large-*", Hang(after=0.5))
    await service.start()
    await service.until((service.web / "simple/project-4/index.html").exists)
    await service.until(lambda: any((service.home / "pypi/partial").glob("*.part")))
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended() == 0
    assert list((service.home / "pypi/partial").glob("*.part"))
    assert broken_promises(Volume.of(service.home / "pypi"), strict=True) == []
    service.upstream.clear_faults()
    service.upstream.reset_log()
    await service.start()
    await service.current()
    (request,) = [one for one in service.upstream.requests if "/large-" in one.path]
    assert "range" in request.headers
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended() == 0


async def test_sigterm_lets_what_is_in_flight_finish(service: Service) -> None:
    service.configure("everything = true\ninterval = 1\n", "grace = 300\n")
    fault = service.upstream.fault("/packages/*/large-*", Hang(after=0.5))
    await service.start()
    await service.until((service.web / "simple/project-4/index.html").exists)
    service.process.send_signal(signal.SIGTERM)
    service.upstream.clear_faults()
    fault.release()
    assert await service.ended() == 0
    assert (service.web / "simple/large/index.html").exists()


async def test_a_second_signal_ends_it_at_once(service: Service) -> None:
    service.configure("everything = true\ninterval = 1\n", "grace = 3000\n")
    service.upstream.fault("/packages/*/large-*", Hang(after=0.5))
    reached = service.upstream.seen("/packages/*/large-*")
    await service.start()
    async with asyncio.timeout(PATIENCE):
        await reached
    service.process.send_signal(signal.SIGTERM)
    service.process.send_signal(signal.SIGINT)
    assert await service.ended() in (130, 143)
    assert service.said("stopped at once")
    assert broken_promises(Volume.of(service.home / "pypi"), strict=True) == []


async def test_sigusr1_polls_at_once(service: Service) -> None:
    service.configure("everything = true\ninterval = 3600\n")
    await service.start()
    await service.current()
    service.upstream.index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
    service.process.send_signal(signal.SIGUSR1)
    await service.current()


async def test_an_outage_is_survived(service: Service) -> None:
    await service.start()
    await service.current()
    service.upstream.fault("/*", Status(502))
    await service.until(lambda: any("502" in line and "trying again" in line for line in service.lines))
    service.upstream.reset_log()
    await service.until(lambda: service.upstream.count("/pypi") >= 2)
    service.upstream.index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
    service.upstream.clear_faults()
    await service.current()
    await service.until(lambda: service.said("normal again"))
    assert not service.said("Traceback")


async def test_a_good_reload_takes_effect_without_a_restart(service: Service) -> None:
    """Other projects, as after a restart: what is left out goes, what is added comes, though a file hangs."""
    service.configure('projects = ["project-0", "large"]\ninterval = 3600\n', "grace = 0.2\n")
    service.upstream.fault("/packages/*/large-*", Hang(after=0.5))
    await service.start()
    await service.until((service.web / "simple/project-0/index.html").exists)
    service.configure('projects = ["project-1", "project-0"]\ninterval = 3600\n', "grace = 0.2\n")
    service.process.send_signal(signal.SIGHUP)
    await service.until((service.web / "simple/project-1/index.html").exists)
    assert service.said("taken over: [mirror] projects")
    assert (service.web / "simple/project-0/index.html").exists()
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended() == 0


async def test_a_bad_reload_is_refused_with_all_its_problems(service: Service) -> None:
    service.configure("everything = true\ninterval = 3600\n")
    await service.start()
    await service.current()
    service.configure('everything = "yes"\nintervall = 3\n')
    service.process.send_signal(signal.SIGHUP)
    await service.until(lambda: service.said("the one before stays"))
    assert service.said("[mirror] everything: is text")
    assert service.said("did you mean interval?")
    service.upstream.index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
    service.process.send_signal(signal.SIGUSR1)
    await service.current()
    service.configure("")
    service.process.send_signal(signal.SIGHUP)
    await service.until(lambda: service.said("nothing says what to mirror"))


async def test_a_reload_names_what_needs_a_restart(service: Service) -> None:
    await service.start()
    await service.current()
    service.configure("everything = true\ninterval = 2\n", directory="elsewhere")
    service.process.send_signal(signal.SIGHUP)
    await service.until(lambda: service.said("taken over: [mirror] interval"))
    assert service.said("[mirror] directory: not changed while this runs")
    service.upstream.index.publish("later", "1.0", UploadedFile("later-1.0.tar.gz", Virtual(100, 7)))
    await service.current()
    assert not (service.home / "elsewhere").exists()


async def test_a_second_instance_names_the_first(service: Service) -> None:
    await service.start()
    await service.current()
    second = await finish(await start("mirror", cwd=service.home))
    assert (second.returncode, second.stdout) == (4, "")
    assert f"process {service.process.pid} since " in second.stderr
    once = await arun("mirror", "--once", cwd=service.home)
    assert once.returncode == 0, once.stderr  # the first one does it
    assert service.process.returncode is None
