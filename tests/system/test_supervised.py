"""The daemon under a supervisor with a real notification socket: what it is told, and what it does about a hang."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, UploadedFile
from heliostat.fakeindex.faults import Hang
from support.small_index import mirror_home, serving
from support.supervisor import supervised


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "beta") as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    return configure(tmp_path, upstream)


def configure(home: Path, upstream: FakeIndex, *, interval: float = 1, service: str = "") -> Path:
    return mirror_home(home, upstream, mirror=f"interval = {interval}", more=f"[service]\n{service}")


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
async def test_ready_status_and_the_end(home: Path, upstream: FakeIndex, abstract: bool) -> None:
    async with supervised("mirror", cwd=home, abstract=abstract) as service:
        await service.until_said("READY")
        serial = upstream.index.serial
        await service.until(lambda said: said.get("STATUS", "").startswith(f"complete to serial {serial}; 0 behind"))
        assert await service.stop() == 0
    assert [said for said in service.messages if "STOPPING" in said]
    assert "STOPPING" not in service.messages[0]
    extended = int(next(said for said in service.messages if "STOPPING" in said)["EXTEND_TIMEOUT_USEC"])
    assert extended > 10e6  # the grace, and more
    assert not [said for said in service.messages if "WATCHDOG" in said]  # nobody watches


async def test_it_is_not_ready_before_upstream_has_answered(home: Path, upstream: FakeIndex) -> None:
    hanging = upstream.fault("*", Hang())
    reached = upstream.seen("*")
    async with supervised("mirror", cwd=home) as service:
        await reached
        at = await service.until_said("STATUS", "waiting for upstream's first answer")
        assert not [said for said in service.messages if "READY" in said]
        hanging.remove()
        upstream.clear_faults()
        await service.until_said("READY", after=at)
        assert await service.stop() == 0


async def test_it_is_ready_after_the_grace_all_the_same(home: Path, upstream: FakeIndex) -> None:
    configure(home, upstream, service="ready-grace = 0.3\ngrace = 0")
    upstream.fault("*", Hang())
    async with supervised("mirror", cwd=home) as service:
        # However long the grace is: systemd does not give up before.
        await service.until_said("EXTEND_TIMEOUT_USEC", "60300000")
        await service.until_said("READY")
        await service.until(lambda said: "upstream unknown" in said.get("STATUS", ""))


async def test_told_to_end_before_it_is_ready_it_never_says_so(home: Path, upstream: FakeIndex) -> None:
    configure(home, upstream, service="grace = 0")
    upstream.fault("*", Hang())
    reached = upstream.seen("*")
    async with supervised("mirror", cwd=home) as service:
        await reached
        await service.until_said("STATUS", "waiting for upstream's first answer")
        service.process.send_signal(signal.SIGTERM)
        await service.until_said("STOPPING")
        assert not [said for said in service.messages if "READY" in said]


async def test_a_daemon_that_gets_on_is_fed_and_lives(home: Path, upstream: FakeIndex) -> None:
    """A pause that is much longer than the watchdog's patience is no hang."""
    configure(home, upstream, interval=3600)
    async with supervised("mirror", cwd=home, watchdog=4) as service:
        at = await service.until_said("READY")
        for _ in range(6):
            at = await service.until_said("WATCHDOG", after=at)
        assert await service.stop() == 0
        assert not service.starved


async def test_a_loop_that_hangs_is_not_fed(home: Path, upstream: FakeIndex) -> None:
    async with supervised("mirror", cwd=home, watchdog=2) as service:
        await service.until_said("READY")
        await service.until(lambda said: "0 behind" in said.get("STATUS", ""))
        (home / "heliostat.toml").unlink()
        os.mkfifo(home / "heliostat.toml")  # nobody will ever write to it: reading it stops the loop
        service.process.send_signal(signal.SIGHUP)
        assert await service.until_starved() == -signal.SIGABRT


async def test_a_poll_that_hangs_is_not_fed(home: Path, upstream: FakeIndex) -> None:
    """The loop turns, and nothing moves: not even a poll is answered, for longer than any time limit."""
    configure(home, upstream, interval=1)
    text = (home / "heliostat.toml").read_text()
    (home / "heliostat.toml").write_text(text.replace("allow-http = true", "allow-http = true\nstall-timeout = 3600"))
    async with supervised("mirror", cwd=home, watchdog=2) as service:
        await service.until_said("READY")
        upstream.fault("/*", Hang())
        assert await service.until_starved() == -signal.SIGABRT


async def test_a_file_that_hangs_is_no_reason_not_to_feed(home: Path, upstream: FakeIndex) -> None:
    """The daemon polls on, and that is progress: it is upstream that hangs."""
    configure(home, upstream, interval=1)
    text = (home / "heliostat.toml").read_text()
    (home / "heliostat.toml").write_text(text.replace("allow-http = true", "allow-http = true\nstall-timeout = 3600"))
    async with supervised("mirror", cwd=home, watchdog=4) as service:
        await service.until_said("READY")
        upstream.fault("/packages/*/gamma-1.0.tar.gz", Hang())
        upstream.index.publish("gamma", "1.0", UploadedFile("gamma-1.0.tar.gz", b"never"))
        while not upstream.count("/packages/*/gamma-1.0.tar.gz"):
            await asyncio.sleep(0.05)
        polls = upstream.count("/pypi")
        while upstream.count("/pypi") < polls + 8:
            assert service.process.returncode is None
            await asyncio.sleep(0.05)
        assert await service.stop() == 0


async def test_a_reload_is_announced_with_its_time_and_ended(home: Path, upstream: FakeIndex) -> None:
    async with supervised("mirror", cwd=home) as service:
        at = await service.until_said("READY")
        for text in ((home / "heliostat.toml").read_text() + "grace = 1\n", "not TOML"):  # a good one, and a bad one
            (home / "heliostat.toml").write_text(text)
            service.process.send_signal(signal.SIGHUP)
            began = await service.until_said("RELOADING", after=at)
            assert int(service.messages[began - 1]["MONOTONIC_USEC"]) > 0
            at = await service.until_said("READY", after=began)
        assert await service.stop() == 0
    assert any(line.startswith("<3>configuration not reloaded: ") for line in service.lines)


async def test_a_supervisor_that_goes_away_harms_nobody(home: Path, upstream: FakeIndex) -> None:
    async with supervised("mirror", cwd=home) as service:
        await service.until_said("READY")
        service.forget()
        reached = upstream.seen("/packages/*/gamma-1.0.tar.gz")
        upstream.index.publish("gamma", "1.0", UploadedFile("gamma-1.0.tar.gz", b"new"))
        await reached
        assert await service.stop() == 0
    warnings = [line for line in service.lines if "cannot be told" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("<4>")


async def test_log_lines_carry_priorities(home: Path, upstream: FakeIndex) -> None:
    async with supervised("mirror", "--verbose", cwd=home) as service:
        await service.until(lambda said: "0 behind" in said.get("STATUS", ""))
        assert await service.stop() == 0
    assert all(line[:1] == "<" and line[1] in "234567" and line[2] == ">" for line in service.lines), service.lines
    published = [line for line in service.lines if ": published" in line]
    assert sorted(line[:9] for line in published) == ["<6>alpha:", "<6>beta: "]  # each once
