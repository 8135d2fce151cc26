"""What the log says of a pass."""

from __future__ import annotations

import logging

from heliostat.mirror.report import Summary

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
