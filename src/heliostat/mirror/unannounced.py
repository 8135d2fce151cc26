"""What is looked at without having been announced: on an operator's word, since a place may be free, or in its turn.

Everything here blocks, and belongs to the keeper's thread.
"""

from __future__ import annotations

from typing import Any

from heliostat.config import MirrorConfig
from heliostat.state.ledger import Ledger

#: In seconds.
DAY = 86400.0


def reconsider(ledger: Ledger, *, full: bool, approve: bool, now: float) -> None:
    """What waits for an operator is looked at again when the operator says so."""
    if full:
        ledger.schedule.unblock(now)
        ledger.schedule.doubt_stuck(now)
    if approve:
        ledger.schedule.approve(now)


def look_for_free_places(ledger: Ledger, config: MirrorConfig, now: float) -> None:
    """What is blocked since other bytes lie at its place is due when those go, and in case once in a while."""
    if not ledger.paths.of_kind("waiting", limit=1):
        return
    last = float(ledger.get("looked_for_places") or 0)
    if 0 < last <= now < last + config.reconcile_hours * 3600:
        return
    with ledger.transaction():
        ledger.put(looked_for_places=now)
        if last:
            ledger.paths.wake_all(now)


def sweep(ledger: Ledger, config: MirrorConfig, facts: dict[str, Any], now: float) -> None:
    """A share of the projects is looked at without being announced, so that each comes up in sweep-days."""
    period = config.sweep_days * DAY
    last = float(facts.get("swept") or 0)
    if not 0 < last <= now:
        ledger.put(swept=now)
        return
    if now - last < config.heartbeat:
        return
    share = min(1.0, (now - last) / period)
    limit = int(ledger.published_count() * share)
    if limit >= 1:
        ledger.schedule.sweep(now - period / 2, now, limit)
        ledger.put(swept=now)


def longest_wait(config: MirrorConfig) -> float:
    """Seconds that no project waits for its next try."""
    return 1.25 * max(config.retry_most, config.stuck_seconds, DAY) + DAY
