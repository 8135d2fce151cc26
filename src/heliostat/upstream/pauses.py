"""What servers asked for: the instant before which none of their requests may be sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import NamedTuple

from heliostat.errors import RateLimited
from heliostat.upstream.clock import Clock
from heliostat.upstream.retry import MOST_RETRY_AFTER

log = logging.getLogger(__name__)

#: Waits up to so many seconds that upstream asks for are not worth a word.
_SHORT = 5.0


class Pause:
    """The instant before which no request may be sent to those who asked for it.

    ``first`` and ``most`` (seconds) bound the pause after a rate limit that does not say how long.
    """

    def __init__(self, clock: Clock, *, first: float, most: float, name: str = "upstream") -> None:
        self._clock, self._first, self._most = clock, first, most
        #: Whom it is about, in the log.
        self.name = name
        self._not_before = 0.0
        #: How long those who read the log know that nothing is asked.
        self._known_until = 0.0
        self._last_limited = 0.0
        self._strikes = 0
        self.rate_limited = 0

    @property
    def held_back(self) -> bool:
        """Whether anybody was ever asked to wait; cheap."""
        return self._not_before > 0

    @property
    def held(self) -> float:
        """Seconds for which no request may be sent."""
        return max(0.0, self._not_before - self._clock.now())

    @property
    def announced(self) -> float:
        """The same for a wait that is long enough to be told of; 0 for others."""
        return self.held if self._known_until > self._clock.now() else 0.0

    async def wait(self) -> None:
        """Return when requests may be sent."""
        while (left := self._not_before - self._clock.now()) > 0:
            await self._clock.sleep(left)

    def hold(self, seconds: float, why: object = "") -> None:
        """Nobody sends a request for so long from now; never shortens what was said before."""
        now = self._clock.now()
        self._not_before = max(self._not_before, now + min(seconds, MOST_RETRY_AFTER))
        if (left := self._not_before - now) <= _SHORT:
            return
        if now >= self._known_until:
            until = time.strftime("%H:%M:%S", time.localtime(self._clock.wall() + left))
            log.warning("%s asks to wait: nothing is asked of it for %.0f s, until %s: %s", self.name, left, until, why)
        self._known_until = self._not_before

    def as_before(self, other: Pause) -> None:
        """What was asked of one that is replaced by this one still counts."""
        self._not_before, self._known_until = other._not_before, other._known_until
        self._last_limited, self._strikes = other._last_limited, other._strikes

    def limited(self, error: RateLimited, started: float) -> None:
        """Upstream said to a request begun at ``started`` that it was asked too much."""
        self.rate_limited += 1
        if started > self._last_limited or not self._strikes:  # several of one round are one sign
            self._strikes += 1
            self._last_limited = self._clock.now()
        if error.retry_after is not None:
            self.hold(error.retry_after, error)
        else:
            self.hold(min(self._most, self._first * 2.0 ** min(self._strikes - 1, 60)), error)

    def fine(self, started: float) -> None:
        """A request begun at ``started`` was answered; after the last limit that means upstream bears it again."""
        if self._strikes and started > self._last_limited:
            self._strikes = 0


class Hold(NamedTuple):
    """A wait that a server asked for, and that is long enough to be told of."""

    server: str
    #: Seconds since the epoch.
    until: float


class Pauses:
    """What servers asked for: one pause for all, or where several are asked one for each.

    They outlive a pass.  ``only`` is the base of the only source, for the log.  ``first`` and ``most`` (seconds) bound
    the pause after a rate limit that does not say how long.
    """

    def __init__(self, clock: Clock, *, first: float, most: float, only: str = "upstream") -> None:
        self._clock, self._first, self._most, self._only = clock, first, most, only
        self._pauses: dict[str | None, Pause] = {}

    def of(self, server: str | None) -> Pause:
        """What a server asked for; without a name that of the only one there is."""
        found = self._pauses.get(server)
        if found is None:
            name = self._only if server is None else server
            found = self._pauses[server] = Pause(self._clock, first=self._first, most=self._most, name=name)
        return found

    @property
    def rate_limited(self) -> int:
        """How often it was said that too much was asked."""
        return sum(pause.rate_limited for pause in self._pauses.values())

    @property
    def held(self) -> float:
        """Seconds for which requests are held back, to one server at least."""
        return max((pause.held for pause in self._pauses.values()), default=0.0)

    @property
    def hold(self) -> Hold | None:
        """The longest wait that is worth to be told of; None when there is none."""
        longest = max(self._pauses.values(), key=lambda pause: pause.announced, default=None)
        if longest is None or not longest.announced:
            return None
        return Hold(longest.name, self._clock.wall() + longest.held)

    def hold_of(self, server: str | None) -> Hold | None:
        """The same for one server."""
        pause = self.of(server)
        return Hold(pause.name, self._clock.wall() + pause.held) if pause.announced else None

    def take_over(self, old: Pauses, servers: Collection[str]) -> None:
        """What those of ``servers``, the sources there are now, asked of ``old`` still counts."""
        for pause in old._pauses.values():
            if pause.name in servers and pause.held:
                self.of(None if pause.name == self._only and len(servers) == 1 else pause.name).as_before(pause)
