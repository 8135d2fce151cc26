"""Daemons that scrub, in tests: the real loop, with rounds that follow one another at once unless a test says else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from heliostat.config import Config, ScrubConfig
from heliostat.mirror.coverage import Round
from heliostat.mirror.verify.again import Pace
from heliostat.service.health import Scrub
from heliostat.service.scrubbing import scrubbing
from support.looping import Running, daemon_of
from support.mirrors import Followed
from support.verified import AT_ONCE

#: Days; a round is over before the next one is due.
NO_TIME = 1e-9


def with_scrub(config: Config, **scrub: Any) -> Config:
    """The same configuration, scrubbing as fast as it can, with other values in ``[scrub]``."""
    settings = {"enabled": True, "bytes_per_second": 10**12, "every_days": NO_TIME} | scrub
    return replace(config, scrub=ScrubConfig(**settings))


class Scrubbing:
    """A daemon that scrubs."""

    def __init__(self, running: Running) -> None:
        self.running, self.daemon = running, running.daemon

    @property
    def figures(self) -> Scrub:
        """Its figures; empty ones while there are none."""
        return self.daemon.health.scrub or Scrub()

    async def rounds(self, count: int) -> None:
        """Wait until so many more rounds were begun."""
        for _ in range(count):
            known = {None, self.figures.round_began}
            await self.running.until(partial(self._has_another, known))

    def _has_another(self, known: set[float | None]) -> bool:
        return self.figures.round_began not in known

    async def position(self) -> Round:
        """As it is in the ledger."""
        kept = await self.daemon.mirror.with_ledger(lambda ledger: ledger.get("scrub"))
        return Round() if kept is None else msgspec.json.decode(kept, type=Round)


@asynccontextmanager
async def scrubbed(
    one: Followed,
    *,
    pace: Pace | None = AT_ONCE,
    again: float = 0.0,
    settings: dict[str, Any] | None = None,
    **scrub: Any,
) -> AsyncIterator[Scrubbing]:
    """The daemon of ``one``'s mirror, scrubbing; it is stopped as by a signal."""
    one.config = with_scrub(one.config, **scrub)
    async with daemon_of(one, **(settings or {})) as running, scrubbing(running.daemon, pace=pace, again=again):
        yield Scrubbing(running)
        running.stop.set()
