"""A daemon in this process: its mirror opened, its loop running or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from heliostat.config import Config
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.service.daemon import Daemon, Wish


@contextlib.asynccontextmanager
async def idle_daemon(config: Config) -> AsyncIterator[Daemon]:
    """One that does nothing by itself; what :meth:`Daemon.reload` reads is ``daemon.config`` until a test says else."""
    async with Mirror.open(config) as mirror:
        yield Daemon(
            config, mirror, asyncio.Event(), read_config=lambda: config, first=Wish(), showing=lambda _: quiet()
        )


@contextlib.asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[None]:
    """Its loop runs until the block ends."""
    task = asyncio.create_task(daemon.run())
    try:
        yield
    finally:
        daemon.stop.set()
        await task


@contextlib.asynccontextmanager
async def quiet() -> AsyncIterator[None]:
    yield


async def one_pass(daemon: Daemon) -> None:
    """A pass of its mirror, taken note of as its loop would."""
    counters = Counters()
    daemon.health.last = summary = await daemon.mirror.run(counters=counters, stop=daemon.stop, patient=True)
    if summary.unreachable is None:
        daemon.health.answered = summary.started
