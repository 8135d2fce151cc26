"""How a pass ended, and what the log says of it."""

from __future__ import annotations

import logging

from heliostat.errors import HeliostatError, StateError, StoreError, UpstreamChanged, printable
from heliostat.mirror.report import Summary
from heliostat.service.health import Result

_log = logging.getLogger(__name__)


#: Unknown names that one line of the log lists.
_NAMED = 5


def log_result(summary: Summary, before: object = None) -> object:
    """One line for a pass; only one that did something, or owes something new, is worth it at the usual level.

    ``before`` is what this returned for the pass before: what is wrong as it was then is no news.
    """
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
        return None
    reason = why_incomplete(summary)
    wrong = (reason, [(one.project, one.state, one.reason) for one in summary.owed])
    text = "incomplete: %s; complete to serial %d: %d added, %d updated, %d removed, %d bytes in %.1f s"
    if wrong == before:
        level = logging.INFO if changed else logging.DEBUG
    else:
        level = logging.INFO if summary.interrupted else logging.WARNING
    _log.log(level, text, reason, *figures, extra=more)
    return wrong


def why_incomplete(summary: Summary) -> str:
    """What keeps a pass from being complete, in words."""
    if trouble := summary.store_error or summary.unreachable:
        return trouble
    parts = []
    if owed := sum(count for state, count in summary.owed_by_state.items() if state != "held"):
        parts.append(f"{owed} project{'s' * (owed != 1)} owed")
    if summary.held:
        parts.append(f"{summary.held} removal{'s' * (summary.held != 1)} held")
    if summary.unknown:
        more = f" and {len(summary.unknown) - _NAMED} more" if len(summary.unknown) > _NAMED else ""
        parts.append(f"unknown upstream: {', '.join(printable(name) for name in summary.unknown[:_NAMED])}{more}")
    if summary.interrupted:
        parts.append("stopped before its end")
    return ", ".join(parts)


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
