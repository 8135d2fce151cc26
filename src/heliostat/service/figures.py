"""All figures of one moment, for whoever shows them: metrics, health, status."""

from __future__ import annotations

import time

import msgspec

from heliostat.config import Config
from heliostat.mirror.figures import DiskFigures, LedgerFigures
from heliostat.mirror.report import Summary
from heliostat.mirror.tally import Tally
from heliostat.service.health import Health, Result
from heliostat.upstream.sources import Sources
from heliostat.upstream.traffic import Traffic


class Process(msgspec.Struct, frozen=True):
    """What is counted while the daemon runs."""

    health: Health
    traffic: Traffic
    sources: Sources
    done: Tally
    #: Seconds since the loop last got on.
    idle: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is shown; what is None is left out."""

    config: Config
    ledger: LedgerFigures | None
    disk: DiskFigures | None
    #: The pass that ended last, and how; of one that an error ended there is the result alone.
    last: Summary | None
    result: Result | None
    process: Process | None = None
    now: float = msgspec.field(default_factory=time.time)

    @property
    def behind(self) -> float | None:
        """Seconds since upstream went beyond the checkpoint; 0 when it did not, None when that is not known."""
        lag = None if self.ledger is None else self.ledger.lag
        if lag is None or self.ledger is None:
            return None
        if lag == 0:
            return 0.0
        since = self.ledger.behind_since
        if since is None and self.process is not None:
            since = self.process.health.behind_since
        return None if since is None else max(0.0, self.now - since)

    @property
    def last_poll(self) -> float | None:
        """Start of the last poll that ran to its end, seconds since the epoch."""
        known = [] if self.ledger is None or self.ledger.last_poll is None else [self.ledger.last_poll]
        if self.last is not None and not self.last.missed and self.result in ("complete", "incomplete", "held"):
            known.append(self.last.started)
        return max(known, default=None)


def why_not_ready(figures: Figures) -> str | None:
    """Why this mirror should not be relied on now; None when it may be.

    It may once a poll ran to its end, while it is behind by less than ``ready-within`` seconds, and upstream was heard
    not longer ago than that and one pause between two polls.
    """
    within = figures.config.service.ready_within
    if figures.ledger is None:
        return "the ledger cannot be read"
    if figures.last_poll is None:
        return "no poll ran to its end yet"
    lag, behind = figures.ledger.lag, figures.behind
    if lag and (behind is None or behind > within):
        since = "" if behind is None else f" since {behind:.0f} s"
        return f"{lag} serials behind{since}"
    answered = figures.process.health.answered if figures.process else None
    silent = figures.now - max(figures.last_poll, answered or 0.0)
    if silent > within + 2 * figures.config.mirror.interval:
        return f"upstream was heard {silent:.0f} s ago"
    return None
