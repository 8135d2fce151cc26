"""Signals that reach a daemon before it is one."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index
from support.daemon_process import configure, daemon_process, until


async def test_a_signal_that_comes_at_once_is_answered_later(tmp_path: Path) -> None:
    """While it still reads its configuration, here from a pipe, no handler is there yet."""
    async with FakeIndex(Index()) as upstream:
        configure(tmp_path, upstream.url)
        config, pipe = tmp_path / "heliostat.toml", tmp_path / "pipe"
        os.mkfifo(pipe)
        async with daemon_process(tmp_path, "--config", str(pipe), ready=False) as daemon:
            writer = await until(lambda: _writer(pipe))
            for number in (signal.SIGHUP, signal.SIGUSR1):
                daemon.service.process.send_signal(number)
            os.replace(shutil.copy(config, tmp_path / "copy"), pipe)
            os.write(writer, config.read_bytes())
            os.close(writer)
            await daemon.logged("nothing changed")
            await daemon.says(lambda it: it["phase"] == "waiting")
            await daemon.stop()


def _writer(pipe: Path) -> int | None:
    """A descriptor for writing, once somebody reads."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
