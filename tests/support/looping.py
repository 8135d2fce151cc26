"""Daemons in tests: the real loop in a task of its own, and ways to wait for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from heliostat.config import Config
from heliostat.mirror.report import Summary
from heliostat.mirror.run import Mirror
from heliostat.service.daemon import Daemon, Showing, Wish
from support.mirrors import Followed, changed

#: Seconds that only a test that fails waits.
PATIENCE = 60.0
_TICK = 0.01


def with_service(config: Config, **service: Any) -> Config:
    """The same configuration with other values in ``[service]``."""
    return replace(config, service=replace(config.service, **service))


class Running:
    """A daemon at work; what it was told of passes is kept."""

    def __init__(self, daemon: Daemon, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.daemon, self.stop, self.task = daemon, stop, task
        self.told: list[Summary] = []
        daemon.after_pass.append(self._listen)

    async def _listen(self, summary: Summary) -> None:
        self.told.append(summary)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds; the daemon must not end meanwhile."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self.task.done():
                    await self.task
                    raise AssertionError("the daemon ended")
                await asyncio.sleep(_TICK)

    async def passes(self, count: int) -> None:
        """Wait until so many passes have ended."""
        await self.until(lambda: sum(self.daemon.health.passes.values()) >= count)

    async def end(self) -> None:
        """Stop it as a first signal does, and wait until it has ended."""
        self.stop.set()
        async with asyncio.timeout(PATIENCE):
            await self.task


@asynccontextmanager
async def daemon_of(
    one: Followed,
    *,
    first: Wish | None = None,
    service: dict[str, Any] | None = None,
    showing: Showing = lambda _: nullcontext(),
    **overrides: Any,
) -> AsyncIterator[Running]:
    """The daemon of ``one``'s mirror, which polls often; what :meth:`Followed.configure` sets is what it reloads."""
    settings = {"interval": 0.05} | overrides
    one.config = with_service(changed(one.config, **settings), **({"jitter": 0.0, "grace": 0.2} | (service or {})))
    stop = asyncio.Event()
    async with Mirror.open(one.config) as mirror:
        daemon = Daemon(
            one.config, mirror, stop,
            read_config=lambda: one.config, first=first or Wish(), showing=showing,
        )  # fmt: skip
        running = Running(daemon, stop, asyncio.create_task(daemon.run()))
        try:
            yield running
        finally:
            stop.set()
            if not running.task.done():
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(running.task, return_exceptions=True)
