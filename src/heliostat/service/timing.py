"""When the next poll is due: the interval with jitter, and after trouble pauses that double up to a ceiling."""

from __future__ import annotations

import random
import time

from heliostat.config import Config
from heliostat.upstream.retry import MOST_RETRY_AFTER

#: The least pause between two passes that only try again what is owed, in seconds.
_LEAST = 1.0


def paused(seconds: float) -> str:
    """A pause as log lines tell it; a short one is not shown as none."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


class Timing:
    """Instants are monotonic seconds."""

    def __init__(self, config: Config) -> None:
        self.configure(config)
        #: Passes or polls in a row that failed.
        self.failures = 0
        self.next_poll = time.monotonic()
        #: Nobody polls before this: upstream asked for it.
        self.not_before = 0.0

    def configure(self, config: Config) -> None:
        """Another configuration counts."""
        self._interval, self._jitter = config.mirror.interval, config.service.jitter
        self._most = max(config.service.back_off_most, self._interval)

    def left(self) -> float:
        """Seconds to the next poll."""
        return max(0.0, self.next_poll - time.monotonic())

    def when(self, wall: float) -> float:
        """The instant of something that is due at ``wall`` (seconds since the epoch), but not at once."""
        return time.monotonic() + max(_LEAST, wall - time.time())

    def answered(self) -> None:
        """Upstream told what changed: the next poll is an ordinary one, if nothing else fails meanwhile."""
        self.not_before = 0.0
        self._after(self._interval, up=True)

    def well(self) -> None:
        """Nothing is wrong any more."""
        if self.failures:
            self.failures = 0
            self._after(self._interval, up=True)

    def failed(self, retry_after: float | None) -> None:
        """A poll or a pass failed; ``retry_after``: what upstream asked for, in seconds."""
        pause = min(self._most, self._interval * 2.0 ** min(self.failures, 60))
        self.failures += 1
        self._after(pause, up=pause < self._most)
        if retry_after is not None:
            self.not_before = time.monotonic() + min(retry_after, max(self._most, MOST_RETRY_AFTER))
            self.next_poll = max(self.next_poll, self.not_before)

    def at_once(self) -> None:
        """Poll now, unless upstream asked for a wait."""
        self.next_poll = self.not_before

    def _after(self, pause: float, *, up: bool) -> None:
        self.next_poll = time.monotonic() + pause * random.uniform(1 - self._jitter, 1 + self._jitter * up)
