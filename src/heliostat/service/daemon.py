"""The daemon: it follows upstream until it is stopped, and whatever goes wrong meanwhile is a state, not an end."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack

from heliostat.config import Config
from heliostat.errors import ConfigError, HeliostatError, UpstreamChanged
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from heliostat.service.health import Health
from heliostat.service.reload import ReloadResult, compare
from heliostat.service.results import log_result

log = logging.getLogger(__name__)

Showing = Callable[[Counters], AbstractAsyncContextManager[None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What the first pass is asked beyond the ordinary."""

    full: bool = False
    allow_removals: int = 0


class Daemon:
    """Follows upstream; everything it does happens in the task that runs :meth:`run`, one pass at a time."""

    def __init__(
        self,
        config: Config,
        mirror: Mirror,
        stop: asyncio.Event,
        *,
        read_config: Callable[[], Config],
        first: Wish,
        showing: Showing,
    ) -> None:
        self.config, self.mirror, self.stop = config, mirror, stop
        self._read_config, self._wish, self._showing = read_config, first, showing
        self.health = Health(started=time.time())
        #: Called when something was published and is durable, also in the middle of a long pass.
        self.after_pass: list[Callable[[Summary], Awaitable[None]]] = []
        #: Entered while the configuration is read anew.
        self.around_reload: list[Callable[[], AbstractContextManager[None]]] = []
        #: Called with the new configuration once it counts.
        self.after_reload: list[Callable[[Config], Awaitable[None]]] = []
        self._poked = asyncio.Event()
        self._named: set[str] = set()

    def poke(self, names: Iterable[str] = ()) -> None:
        """Poll at once; the named projects are looked at whatever the feed says."""
        self._named.update(names)
        self._poked.set()

    async def sync_now(self, names: Sequence[str], counters: Counters | None = None) -> Summary:
        """What ``heliostat mirror NAME...`` means; returns when those projects are dealt with."""
        raise NotImplementedError

    async def pass_now(self, wish: Wish, counters: Counters | None = None) -> Summary:
        """What ``heliostat mirror --once`` means, with what it is asked beyond the ordinary."""
        raise NotImplementedError

    async def reload(self) -> ReloadResult:
        """Read the configuration anew; a bad one is refused as a whole, and the old one stays."""
        with ExitStack() as around:
            for each in self.around_reload:
                around.enter_context(each())
            return await self._reload()

    async def _reload(self) -> ReloadResult:
        try:
            new = self._read_config()
        except ConfigError as error:
            for problem in error.problems:
                log.error("configuration not reloaded: %s", problem)
            return ReloadResult(problems=error.problems)
        self.config, result = compare(self.config, new)
        self.mirror.reconfigure(self.config)
        self._poked.set()
        for listener in self.after_reload:
            await listener(self.config)
        return result

    def progressed(self) -> float:
        """When the loop last got on, monotonic; later than now while nothing is expected to happen."""
        return max(self.health.progress, self.health.quiet_until)

    async def run(self) -> None:
        """Follow upstream until stopped.  Raises what ends a daemon: a defect that does not go away."""
        wish = self._wish
        while not self.stop.is_set():
            self._poked.clear()
            self.health.phase, self.health.counters, self.health.next_poll = "working", Counters(), None
            try:
                async with self._showing(self.health.counters):
                    summary = await self.mirror.run(
                        full=wish.full, allow_removals=wish.allow_removals, patient=wish is not self._wish,
                        counters=self.health.counters, stop=self.stop,
                    )  # fmt: skip
                log_result(summary)
                self._take(summary)
                for listener in self.after_pass:
                    await listener(summary)
            except (UpstreamChanged, HeliostatError) as error:
                log.error("pass failed: %s", error)
            wish = Wish()
            pause = self.config.mirror.interval * random.uniform(1 - self.config.service.jitter, 1)
            self.health.phase, self.health.next_poll = "waiting", time.time() + pause
            self.health.quiet_until = time.monotonic() + pause
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        events = [asyncio.ensure_future(event.wait()) for event in (self.stop, self._poked)]
        try:
            await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
            await asyncio.gather(*events, return_exceptions=True)

    def _take(self, summary: Summary) -> None:
        health = self.health
        health.last, health.cursor, health.checkpoint = summary, summary.cursor, summary.checkpoint
        if not summary.unreachable:
            health.answered = time.time()
            health.upstream_serial = summary.upstream_serial or health.upstream_serial
        health.progress = time.monotonic()
