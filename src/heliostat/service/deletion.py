"""Deleting and restoring in a mirror that a daemon holds: between two passes, so that nothing is in flight."""

from __future__ import annotations

import time
from collections.abc import Sequence

from heliostat.mirror.report import Counters, Deletion, Summary
from heliostat.policy.denials import parse_entry
from heliostat.service.daemon import Daemon


async def delete(daemon: Daemon, entries: Sequence[str], *, reason: str, purge: bool, counters: Counters) -> Deletion:
    """What ``heliostat delete`` means.  Raises Refused, StateError."""
    for text in entries:
        parse_entry(text)
    result: Deletion = await daemon.between(
        lambda: daemon.mirror.delete(entries, reason=reason, purge=purge, counters=counters, stop=daemon.stop), counters
    )
    await _tell(daemon, removed=result.projects)
    return result


async def restore(daemon: Daemon, entries: Sequence[str], *, counters: Counters) -> Deletion:
    """What ``heliostat restore`` means.  Raises Refused, StateError."""
    for text in entries:
        parse_entry(text)
    result: Deletion = await daemon.between(
        lambda: daemon.mirror.restore(entries, counters=counters, stop=daemon.stop), counters
    )
    await _tell(daemon, updated=result.projects)
    return result


async def _tell(daemon: Daemon, *, updated: int = 0, removed: int = 0) -> None:
    """Those who wait for something new are told."""
    if updated or removed:
        await daemon.tell(Summary(upstream="", started=time.time(), updated=updated, removed=removed))
