"""How the daemon is doing: plain data, changed on the event loop only, read by whoever shows or watches it."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from heliostat.mirror.report import Counters, Summary
from heliostat.service.pushing import Pushing

#: ``starting``: no pass yet.  ``working``: a pass runs, polls included.  ``waiting``: for the next one.
#: ``stopping``: what is in flight ends or is parked.
Phase = Literal["starting", "working", "waiting", "stopping"]
#: How a pass ended.  ``approval``: upstream is not the one it was (exit 7 of ``--once``); ``held``: complete but for
#: removals that wait for approval; ``interrupted``: by a stop or a reload; ``defect``: an unexpected error.
Result = Literal["complete", "incomplete", "held", "unreachable", "store", "approval", "defect", "interrupted"]
#: What makes the daemon back off.
Trouble = Literal["unreachable", "store", "approval", "defect"]


class Scrub(msgspec.Struct, kw_only=True):
    """How far the continuous check of what is served has come.  Times are seconds since the epoch, sizes bytes."""

    #: Everything that is served was checked at this time or later; None before the first round ended.
    oldest: float | None = None
    #: When the round that runs began, and the share of the mirror that it has checked.
    round_began: float | None = None
    share: float = 0.0
    #: Within how many seconds everything is to be checked.
    every: float = 0.0
    #: Since the daemon began.
    projects: int = 0
    files: int = 0
    bytes: int = 0
    found: dict[str, int] = msgspec.field(default_factory=dict)
    repaired: int = 0
    #: Findings that could not be repaired so far.
    unrepaired: int = 0
    #: Why it cannot go on at the moment.
    trouble: str | None = None


class Health(msgspec.Struct, kw_only=True):
    """The state of a daemon.  Times are seconds since the epoch, but for those said to be monotonic."""

    #: When the daemon began.
    started: float
    phase: Phase = "starting"
    #: Live figures of the pass that runs, or of the one that ended last.
    counters: Counters = msgspec.field(default_factory=Counters)
    #: Of the last pass that ended, whatever its result.
    last: Summary | None = None
    #: When the changes upstream were last asked for and answered.
    answered: float | None = None
    upstream_serial: int | None = None
    cursor: int = 0
    checkpoint: int = 0
    #: Since when the checkpoint has been below upstream's serial; None while it is not.
    behind_since: float | None = None
    #: What kind of trouble makes it back off, what exactly, and since when; None while there is none.
    trouble: Trouble | None = None
    trouble_text: str | None = None
    trouble_since: float | None = None
    #: Passes in a row that ended with an unexpected error.
    defects: int = 0
    #: When the next poll is due; None while one runs or none is planned.
    next_poll: float | None = None
    #: Which server asks to wait, and until when nothing is asked of it; None while none does, or for a moment only.
    held_by: str | None = None
    held_until: float | None = None
    #: How many passes ended in which way since the daemon began.
    passes: dict[Result, int] = msgspec.field(default_factory=dict)
    #: Polls of upstream for changes that were answered, since the daemon began.
    polls: int = 0
    #: How pings and the hook go.
    pushing: Pushing = msgspec.field(default_factory=Pushing)
    #: None while nothing is scrubbed.
    scrub: Scrub | None = None
    #: When the loop last got on, monotonic; see :mod:`heliostat.service.progress`.
    progress: float = msgspec.field(default_factory=time.monotonic)
    #: Until when nothing is expected to happen: a pause, or a wait that upstream asked for; monotonic.
    quiet_until: float = 0.0

    @property
    def lag(self) -> int | None:
        """Serials from the checkpoint to upstream's; None while upstream's is not known."""
        return None if self.upstream_serial is None else max(0, self.upstream_serial - self.checkpoint)

    def in_trouble(self, kind: Trouble, text: str, now: float) -> None:
        """Something makes the daemon back off."""
        if self.trouble is None:
            self.trouble_since = now
        if kind != "defect":
            self.defects = 0
        self.trouble, self.trouble_text = kind, text

    def recover(self) -> None:
        """Nothing does any more."""
        self.trouble = self.trouble_text = self.trouble_since = None
        self.defects = 0

    def trouble_for(self, now: float) -> float:
        """Seconds since the trouble began."""
        return max(0.0, now - (self.trouble_since or now))

    def look_at_lag(self, now: float) -> None:
        """Serials have moved."""
        if not self.lag:
            self.behind_since = None
        elif self.behind_since is None:
            self.behind_since = now
