"""Whether the daemon gets on: what the supervisor's watchdog and ``/healthz`` are told by.

It does when the pass that runs has counted something, and when nothing is expected to happen: in a pause, or while
upstream asks to wait.  A poll that is answered beside projects under way counts, too, since it may be upstream that
leaves those waiting; but not for longer than any time limit lets them wait.  And whatever else goes on, a piece of work
in a thread that does not end, as with a disk that does not answer, is a hang.  All instants are monotonic seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from heliostat.config import UpstreamConfig
from heliostat.mirror.run import Mirror
from heliostat.service.health import Health
from heliostat.store.beats import working_since

#: Seconds on top of the longest time limit.
_SLACK = 60.0


class Progress:
    """Of one daemon; keeps ``health.progress``."""

    def __init__(self, health: Health, mirror: Mirror) -> None:
        self._health, self._mirror = health, mirror
        self._figures: tuple[int, ...] = ()
        #: When the pass that runs got on by itself, polls beside it left out.
        self._moved = time.monotonic()
        #: It polls beside its projects, and until when it waits for the next poll.
        self._beside, self._waits_until = False, 0.0

    def begin(self) -> None:
        """Another pass, or other work with counters of its own, begins."""
        self._figures, self._moved = (), time.monotonic()
        self._beside, self._waits_until = False, 0.0
        self._health.quiet_until = 0.0

    def got_on(self) -> None:
        """Something is durable, or at an end."""
        self._health.progress = self._moved = time.monotonic()

    @contextlib.contextmanager
    def waiting_beside(self, until: float) -> Iterator[None]:
        """While the projects of a pass are under way, which is to poll at that time."""
        self._beside, self._waits_until = True, until
        try:
            yield
        finally:
            self._waits_until = 0.0

    def heard(self, limits: UpstreamConfig) -> None:
        """Upstream answered a poll, or the pause before one is over."""
        self._step(time.monotonic(), limits)

    def look(self, limits: UpstreamConfig, *, quiet_until: float) -> float:
        """When it last got on; ``quiet_until``: what ends has its grace."""
        now, health, pace = time.monotonic(), self._health, self._mirror.figures
        figures = self._count()
        quiet = now < max(health.quiet_until, quiet_until)
        if figures != self._figures or quiet or (pace is not None and pace.held > 0):
            self._figures, health.progress, self._moved = figures, now, now
        elif now < self._waits_until:
            self._step(now, limits)
        return min(health.progress, working_since())

    def _count(self) -> tuple[int, ...]:
        counters = self._health.counters
        figures = (counters.bytes_done, counters.files_done, counters.projects_done, self._mirror.traffic.of_projects)
        return figures if self._beside else (*figures, counters.requests, counters.retries)

    def _step(self, now: float, limits: UpstreamConfig) -> None:
        if not self._beside or now - self._moved <= _patience(limits):
            self._health.progress = now


def _patience(limits: UpstreamConfig) -> float:
    """For how long projects under way may stand still for want of upstream."""
    waits = (limits.connect_timeout, limits.stall_timeout, limits.metadata_timeout)
    return _SLACK + max(*waits, limits.retry_delay_most, limits.source_rest)
