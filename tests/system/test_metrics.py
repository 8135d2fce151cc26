"""Metrics and health of real processes: the daemon from its start to its end, and the text file after single passes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Hang, Status
from support.cli import arun, finish, start
from support.exported import everything, exported

#: Seconds that only a test that fails waits.
PATIENCE = 60.0


def file(name: str, version: str = "1.0") -> UploadedFile:
    return UploadedFile(f"{name}-{version}.tar.gz", f"{name} {version}".encode())


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in ("alpha", "beta"):
        index.publish(name, "1.0", file(name))
    async with FakeIndex(index) as server:
        yield server


class Home:
    """A folder with a configuration, and the endpoint of what runs in it."""

    def __init__(self, folder: Path, upstream: FakeIndex) -> None:
        self.folder, self.upstream = folder, upstream
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        (folder / "pypi").mkdir()
        self.configure()

    def configure(self, service: str | None = None) -> None:
        service = service if service is not None else f'listen = "127.0.0.1:{self.port}"\nready-within = 0'
        (self.folder / "heliostat.toml").write_text(
            '[mirror]\ndirectory = "pypi"\neverything = true\ninterval = 1\nmin-free = "0%"\nbatch-seconds = 0\n'
            "retry-first = 0.2\nretry-most = 0.2\n"
            f'[upstream]\nurl = "{self.upstream.url}"\nallow-http = true\nretries = 1\n[service]\n{service}\n'
        )

    async def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body; (0, "") while nobody listens."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
        except OSError:  # also when it stops to listen just then
            return 0, ""
        return (int(head.split()[1]), body) if head else (0, "")

    async def metrics(self) -> dict[str, float]:
        """Samples by name and labels, as they are written."""
        _, text = await self.get("/metrics")
        return dict(read(text))


def read(text: str) -> list[tuple[str, float]]:
    return [
        (sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())), sample.value)
        for family in parse(text)
        for sample in family.samples
    ]


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Home:
    return Home(tmp_path, upstream)


@asynccontextmanager
async def daemon(home: Home) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start("mirror", cwd=home.folder)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(right: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await right():
            await asyncio.sleep(0.02)


async def test_from_the_start_to_the_end(home: Home, upstream: FakeIndex) -> None:
    hanging = upstream.fault("*", Hang())
    async with daemon(home) as process:
        await until(lambda: told(home, "/healthz", 200))
        assert await home.get("/readyz") == (503, "not ready: no poll ran to its end yet\n")
        found = await home.metrics()
        assert found["heliostat_checkpoint_serial"] == 0
        hanging.remove()
        await until(lambda: told(home, "/readyz", 200))
        serial = upstream.index.serial
        await until(lambda: measured(home, heliostat_checkpoint_serial=serial, heliostat_lag_seconds=0))
        found = await home.metrics()
        assert found["heliostat_projects current"] == 2
        assert found["heliostat_served_files"] == 2
        assert found["heliostat_projects_published_total added"] == 2
        assert found["heliostat_upstream_requests_total page 200"] == upstream.count("/simple/*/")
        assert found["heliostat_fetched_bytes_total"] == len(b"alpha 1.0beta 1.0")
        assert found["heliostat_disk_free_bytes"] > 0
        assert found["heliostat_passes_total complete"] >= 1
        assert found["heliostat_polls_total"] >= 1
        names = set(exported(everything()))
        sampled = {re.sub(r"_(bucket|sum|count|created)\Z", "", name.split()[0]) for name in found}
        assert {name for name in sampled if name.startswith("heliostat_")} <= names
        process.send_signal(signal.SIGTERM)
        assert (await finish(process)).returncode == 0
    assert (await home.get("/healthz"))[0] == 0


async def told(home: Home, path: str, status: int) -> bool:
    return (await home.get(path))[0] == status


async def measured(home: Home, **wanted: float) -> bool:
    found = await home.metrics()
    return all(found.get(name) == value for name, value in wanted.items())


async def test_an_outage_and_what_is_owed(home: Home, upstream: FakeIndex) -> None:
    async with daemon(home):
        await until(lambda: told(home, "/readyz", 200))
        upstream.fault("/simple/alpha/", Status(503))
        upstream.index.publish("alpha", "2.0", file("alpha", "2.0"))
        await until(lambda: measured(home, **{"heliostat_projects failing": 1}))
        await until(lambda: behind(home))
        found = await home.metrics()
        assert found["heliostat_lag_serials"] > 0
        assert found["heliostat_upstream_requests_total page 503"] >= 1
        assert found["heliostat_oldest_owed_seconds"] > 0
        status, text = await home.get("/readyz")
        assert status == 503
        assert re.fullmatch(r"not ready: \d+ serials behind since \d+ s\n", text)
        live = json.loads((await home.get("/status.json"))[1])
        assert live["owed"][0]["project"] == "alpha"
        assert live["live"]["lag_serials"] > 0
        upstream.clear_faults()
        upstream.fault("*", Status(500))
        await until(lambda: measured(home, **{"heliostat_trouble unreachable": 1}))
        await until(lambda: unreachable(home))
        upstream.clear_faults()
        await until(lambda: measured(home, **{"heliostat_last_pass_result complete": 1}))
        await until(lambda: measured(home, **{"heliostat_trouble unreachable": 0, "heliostat_lag_serials": 0}))


async def behind(home: Home) -> bool:
    return (await home.metrics()).get("heliostat_lag_seconds", 0) > 0


async def unreachable(home: Home) -> bool:
    return (await home.metrics()).get("heliostat_last_pass_result unreachable") == 1


async def test_a_taken_port_ends_the_start(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", home.port))
        other.listen()
        done = await arun("mirror", cwd=home.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"[service] listen: 127.0.0.1:{home.port}: another process listens there already" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_reload_moves_the_endpoint(home: Home) -> None:
    async with daemon(home) as process:
        await until(lambda: told(home, "/readyz", 200))
        path = home.folder / "s"
        home.configure(f'listen = ["unix:{path}"]')
        process.send_signal(signal.SIGHUP)
        await until(lambda: told(home, "/healthz", 0))
        while not path.exists():
            await asyncio.sleep(0.02)
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        home.configure()
        process.send_signal(signal.SIGHUP)
        await until(lambda: told(home, "/readyz", 200))
        assert not path.exists()


# --- single passes -----------------------------------------------------------------------------------------------


def textfile(path: Path) -> dict[str, float]:
    lines = dict(read(path.read_text()))
    folder = str(path.parent / "pypi")
    assert all(f" {folder}" in name for name in lines)
    return {name.replace(f" {folder}", ""): value for name, value in lines.items()}


async def test_the_text_file_after_a_pass(home: Home, upstream: FakeIndex) -> None:
    home.configure('textfile = "h.prom"')
    path = home.folder / "h.prom"
    done = await arun("mirror", "--once", cwd=home.folder)
    assert done.returncode == 0, done.stderr
    found = textfile(path)
    assert found["heliostat_checkpoint_serial"] == upstream.index.serial
    assert found["heliostat_last_pass_result complete"] == 1
    assert found["heliostat_last_pass_projects added"] == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    inode = path.stat().st_ino
    upstream.fault("*", Status(500))
    done = await arun("mirror", "--once", cwd=home.folder)
    assert done.returncode == 5
    found = textfile(path)
    assert (found["heliostat_last_pass_result unreachable"], found["heliostat_last_pass_result complete"]) == (1, 0)
    assert path.stat().st_ino != inode  # replaced, never half-written
    assert sorted(entry.name for entry in home.folder.iterdir()) == ["h.prom", "heliostat.toml", "pypi"]


async def test_the_option_comes_before_the_configuration(home: Home) -> None:
    home.configure('textfile = "h.prom"')
    assert (await arun("mirror", "--once", "--textfile", "other.prom", cwd=home.folder)).returncode == 0
    assert (home.folder / "other.prom").exists()
    assert not (home.folder / "h.prom").exists()


async def test_a_pass_of_some_names_is_none_for_the_text_file(home: Home) -> None:
    home.configure('textfile = "h.prom"')
    assert (await arun("mirror", "alpha", cwd=home.folder)).returncode == 0
    assert not (home.folder / "h.prom").exists()


async def test_a_pass_that_an_error_ends_is_told(home: Home) -> None:
    home.configure('textfile = "h.prom"')
    assert (await arun("mirror", "--once", cwd=home.folder)).returncode == 0
    async with FakeIndex(Index()) as another:
        home.upstream = another
        home.configure('textfile = "h.prom"')
        done = await arun("mirror", "--once", cwd=home.folder)
    assert done.returncode == 7
    assert textfile(home.folder / "h.prom")["heliostat_last_pass_result approval"] == 1


async def test_a_text_file_that_cannot_be_written_harms_nothing(home: Home) -> None:
    home.configure('textfile = "nowhere/h.prom"')
    done = await arun("mirror", "--once", cwd=home.folder)
    assert done.returncode == 0
    assert "cannot write the text file" in done.stderr
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
