"""What a running daemon says of itself, beyond what its ledger tells: for ``heliostat status``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from heliostat import __version__

if TYPE_CHECKING:
    from heliostat.service.health import Health


class LastPass(msgspec.Struct, kw_only=True):
    """How the last pass ended.  Times are seconds since the epoch or seconds, sizes bytes."""

    started: float
    seconds: float
    complete: bool
    added: int
    updated: int
    removed: int
    files_added: int
    bytes_fetched: int


class Live(msgspec.Struct, kw_only=True):
    """A daemon as it is now.  Times are seconds since the epoch."""

    pid: int
    version: str
    started: float
    #: starting, working, waiting or stopping
    phase: str
    #: What the pass that runs is about, and its counts so far (of the last one while none runs).
    work: str
    projects_total: int
    projects_done: int
    files_done: int
    bytes_done: int
    #: When upstream last answered, and its serial then.
    answered: float | None
    upstream_serial: int | None
    behind_since: float | None
    #: unreachable, store, approval or defect; what exactly; since when.
    trouble: str | None
    trouble_text: str | None
    trouble_since: float | None
    next_poll: float | None
    #: How many passes ended in which way since it began.
    passes: dict[str, int]
    last: LastPass | None


def live_of(health: Health) -> dict[str, Any]:
    """The daemon's own answer, as plain values: for JSON."""
    counters, last = health.counters, health.last
    figures = {name: getattr(last, name) for name in LastPass.__struct_fields__} if last else None
    live = Live(
        pid=os.getpid(),
        version=__version__,
        started=health.started,
        phase=health.phase,
        work=counters.phase,
        projects_total=counters.projects_total,
        projects_done=counters.projects_done,
        files_done=counters.files_done,
        bytes_done=counters.bytes_done,
        answered=health.answered,
        upstream_serial=health.upstream_serial,
        behind_since=health.behind_since,
        trouble=health.trouble,
        trouble_text=health.trouble_text,
        trouble_since=health.trouble_since,
        next_poll=health.next_poll,
        passes={**health.passes},
        last=LastPass(**figures) if figures else None,
    )
    found: dict[str, Any] = msgspec.to_builtins(live)
    return found


def live_from(answer: Any) -> Live | None:
    """:func:`live_of`'s answer, received; None when it cannot be understood (another version's)."""
    try:
        return msgspec.convert(answer, Live)
    except msgspec.ValidationError:
        return None
