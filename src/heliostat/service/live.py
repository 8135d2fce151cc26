"""What a running daemon says of itself, as ``heliostat status`` reads it: the ``live`` of its ``/status.json``."""

from __future__ import annotations

from typing import Any

import msgspec

from heliostat.mirror.report import Counters
from heliostat.service.health import Scrub
from heliostat.service.pushing import Pushing


class LastPass(msgspec.Struct, kw_only=True):
    """How the last pass ended.  Times are seconds since the epoch or seconds, sizes bytes."""

    started: float
    seconds: float
    added: int
    updated: int
    removed: int
    bytes_fetched: int


class Live(msgspec.Struct, kw_only=True):
    """A daemon as it is now.  Times are seconds since the epoch; :class:`heliostat.service.health.Health` has more."""

    version: str
    started: float
    phase: str
    #: Of the pass that runs, or of the last one.
    counters: Counters
    trouble: str | None = None
    trouble_text: str | None = None
    trouble_since: float | None = None
    next_poll: float | None = None
    held_by: str | None = None
    held_until: float | None = None
    #: How the last pass ended, and its figures.
    result: str | None = None
    last: LastPass | None = None
    scrub: Scrub | None = None
    #: How pings to other mirrors and the hook go.
    pushing: Pushing = msgspec.field(default_factory=Pushing)


def live_from(answer: Any) -> Live | None:
    """What is shown of ``answer``; None when it cannot be understood, as that of another version may be."""
    try:
        return msgspec.convert(answer, Live)
    except msgspec.ValidationError:
        return None
