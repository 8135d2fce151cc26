"""How a pass ended, and what the log says of it."""

from __future__ import annotations

import logging

from heliostat.errors import HeliostatError, StateError, StoreError, UpstreamChanged
from heliostat.mirror.report import Summary
from heliostat.service.health import Result

_log = logging.getLogger(__name__)


def log_result(summary: Summary) -> None:
    """One line for a pass; only one that did or owes something is worth it at the usual level."""
    changed = summary.added + summary.updated + summary.removed
    figures = (
        summary.checkpoint,
        summary.added,
        summary.updated,
        summary.removed,
        summary.bytes_fetched,
        summary.seconds,
    )
    fields = {"event": "pass", "complete": summary.complete, "bytes": summary.bytes_fetched}
    fields |= {name: getattr(summary, name) for name in ("checkpoint", "added", "updated", "removed", "seconds")}
    more = {"fields": fields}
    if summary.complete:
        level = logging.INFO if changed else logging.DEBUG
        text = "complete to serial %d: %d added, %d updated, %d removed, %d bytes in %.1f s"
        _log.log(level, text, *figures, extra=more)
        return
    owed = sum(summary.owed_by_state.values())
    reason = summary.store_error or summary.unreachable or f"{owed} projects owed, {summary.held} removals held"
    text = "incomplete: %s; complete to serial %d: %d added, %d updated, %d removed, %d bytes in %.1f s"
    _log.log(logging.INFO if summary.interrupted else logging.WARNING, text, reason, *figures, extra=more)


def result_of(summary: Summary) -> Result:
    """How a pass ended, what an operator must see first coming first."""
    if summary.store_error:
        return "store"
    if summary.interrupted:
        return "interrupted"
    if summary.unreachable:
        return "unreachable"
    if summary.held or summary.owed_by_state.get("held"):
        return "held"
    return "complete" if summary.complete else "incomplete"


def result_of_error(error: HeliostatError) -> Result | None:
    """How a pass ended that an error ended; None for one that never was: a wrong command, or another's lock."""
    if isinstance(error, UpstreamChanged):
        return "approval"
    return "store" if isinstance(error, StoreError | StateError) else None
