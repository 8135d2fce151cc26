"""A disk that never answers, and an event loop that hangs.  Two signals end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from support.cli import arun, environment
from support.daemon_process import configure, daemon_process, until
from support.equality import differences
from support.invariants import broken_promises
from support.volume import Volume

#: Seconds that only a test that fails waits.
PATIENCE = 60.0


def an_index() -> Index:
    index = Index()
    publish(index, "1.0")
    return index


def publish(index: Index, version: str) -> None:
    for name in ("demo", "other"):
        index.publish(name, version, UploadedFile(f"{name}-{version}.tar.gz", version.encode()))


@contextlib.contextmanager
def hung(path: Path) -> Iterator[Path]:
    """Whoever reads the file at ``path`` waits as long as this is open."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    os.mkfifo(path)
    try:
        yield path
    finally:
        aside.replace(path)


async def read_by_somebody(pipe: Path) -> int:
    """Returns once somebody reads; the descriptor keeps them waiting."""

    def writer() -> int | None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    return int(await until(writer))


async def test_two_signals_end_a_pass(tmp_path: Path) -> None:
    async with FakeIndex(an_index()) as upstream:
        configure(tmp_path, upstream.url)
        assert (await arun("mirror", "--once", cwd=tmp_path)).returncode == 0
        publish(upstream.index, "2.0")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.hung_disk", "heliostat.toml",
            cwd=tmp_path, env=environment(tmp_path) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"hung\n"
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()
        assert process.returncode in (130, 143), said  # they may come in either order
        assert b"stopped at once; what was published stays" in said
        assert b"does not answer" in said
        assert b"Traceback" not in said
        assert broken_promises(Volume.of(tmp_path / "pypi"), strict=True) == []
        assert (await arun("mirror", "--once", cwd=tmp_path)).returncode == 0
        assert differences(upstream.index, tmp_path / "pypi") == []


async def test_two_signals_end_a_loop_that_hangs(tmp_path: Path) -> None:
    """It reads its configuration anew, and turns no more."""
    async with FakeIndex(an_index()) as upstream:
        configure(tmp_path, upstream.url)
        async with daemon_process(tmp_path) as daemon:
            await daemon.says(lambda it: it["phase"] == "waiting")
            with hung(tmp_path / "heliostat.toml") as pipe:
                daemon.service.process.send_signal(signal.SIGHUP)
                held = await read_by_somebody(pipe)
                daemon.service.process.send_signal(signal.SIGINT)
                daemon.service.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(PATIENCE):
                    assert await daemon.service.process.wait() in (130, 143), daemon.log
                os.close(held)
        assert differences(upstream.index, tmp_path / "pypi") == []
