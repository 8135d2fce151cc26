"""Pass after pass, for as long as the process is to run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from heliostat.errors import HeliostatError
from heliostat.mirror.report import Summary

_log = logging.getLogger(__name__)


async def follow(next_pass: Callable[[], Awaitable[Summary]], *, interval: float, stop: asyncio.Event) -> None:
    """Runs passes with ``interval`` seconds between them until ``stop`` is set.

    A pass that fails in a known way is logged and followed by the next one; anything else is a defect and comes out.
    """
    while not stop.is_set():
        try:
            _log_result(await next_pass())
        except HeliostatError as error:
            _log.error("pass failed: %s; next one in %g s", error, interval)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval):
                await stop.wait()


def _log_result(summary: Summary) -> None:
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
    if summary.complete:
        level = logging.INFO if changed else logging.DEBUG
        _log.log(level, "complete to serial %d: %d added, %d updated, %d removed, %d bytes in %.1f s", *figures)
        return
    owed = sum(summary.owed_by_state.values())
    reason = summary.store_error or summary.unreachable or f"{owed} projects owed, {summary.held} removals held"
    text = "incomplete: %s; complete to serial %d: %d added, %d updated, %d removed, %d bytes in %.1f s"
    _log.log(logging.INFO if summary.interrupted else logging.WARNING, text, reason, *figures)
