"""What makes the daemon back off: pauses grow, the log is told once, and once more when it is over."""

from __future__ import annotations

import logging
import time

from heliostat.errors import UpstreamError
from heliostat.service.health import Health, Result, Trouble
from heliostat.service.timing import Timing, paused

log = logging.getLogger(__name__)


class Troubles:
    """Writes them into ``health``, and sets ``timing``."""

    def __init__(self, health: Health, timing: Timing) -> None:
        self._health, self._timing = health, timing
        #: What is wrong is that the last poll, in the middle of a pass, failed: one that is answered ends it.
        self._deaf = False
        #: The trouble that was told last, until it is over.
        self._told: tuple[Trouble, str] | None = None

    def met(self, kind: Trouble, text: str, retry_after: float | None) -> None:
        """Back off, and say so."""
        self._deaf = False
        self._timing.failed(retry_after)
        known, self._told = self._told == (kind, text), (kind, text)
        self._health.in_trouble(kind, text, time.time())
        level = logging.DEBUG if known else logging.ERROR if kind in ("approval", "store") else logging.WARNING
        log.log(level, "%s; trying again in %s", text, paused(self._timing.left()))

    def poll_failed(self, error: UpstreamError | None) -> None:
        """In the middle of a pass, which goes on; what it could not get has been told."""
        self._deaf = True
        self._timing.failed(getattr(error, "retry_after", None))
        self._health.in_trouble("unreachable", str(error), time.time())

    def poll_answered(self, *, whole: bool) -> None:
        """``whole``: it told all that changed."""
        self._timing.answered()
        if self._deaf and whole:
            self._deaf = False
            self._well()

    def committed(self, *, well: bool) -> None:
        """A pass published something; ``well``: upstream had answers for it."""
        if well and self._health.trouble == "unreachable" and not self._deaf:
            self._well()

    def pass_ended(self, result: Result, text: str, retry_after: float | None) -> None:
        """``text`` says what the trouble is, where it ended in one."""
        if result in ("unreachable", "store", "approval", "defect"):
            self.met(result, text, retry_after)
        elif result != "interrupted" and not (self._health.trouble == "unreachable" and self._deaf):
            self._well()

    def _well(self) -> None:
        health = self._health
        self._timing.well()
        if health.trouble is not None:
            log.info("normal again after %.0f s: %s", health.trouble_for(time.time()), health.trouble_text)
        self._told = None
        health.recover()
