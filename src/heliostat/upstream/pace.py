"""The one owner of request permits: how many at once, who is next, and when nobody may.

Two gates, one for metadata and one for files, each with an adaptive limit below its configured bound.  What upstream
says about being asked too much holds back *every* request until an instant that all of them wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from heliostat.errors import RateLimited, Unavailable, UpstreamError
from heliostat.upstream.faults import TimedOut
from heliostat.upstream.limit import Limit
from heliostat.upstream.retry import MOST_RETRY_AFTER

log = logging.getLogger(__name__)

#: Waits up to so many seconds that upstream asks for are not worth a word.
_SHORT = 5.0
#: Files above this (bytes) are large: they never take the last permit from small ones.
LARGE = 32 << 20
#: So many bytes count as much work as one request.
_BYTES_PER_REQUEST = 64 << 10
#: Statuses that say that a server, or what stands before it, has too much to do.
_BUSY = frozenset({429, 502, 503, 504})


class Clock(Protocol):
    """Time as the client sees it; tests bring their own."""

    def now(self) -> float:
        """Seconds on a clock that never goes backwards."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    async def sleep(self, seconds: float) -> None:
        """Come back after ``seconds``."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class GateFigures(NamedTuple):
    """What a gate looks like now, for metrics."""

    limit: int
    most: int
    in_flight: int
    waiting: int
    #: Requests that had to wait for a permit, and the seconds they waited, all together.
    waits: int
    waited: float


class PaceFigures(NamedTuple):
    metadata: GateFigures
    files: GateFigures
    #: Seconds for which requests are still held back, to one server at least.
    held: float
    #: How often upstream said that it was asked too much.
    rate_limited: int


class Permits(Protocol):
    """Whoever gives permits: a gate, or what stands before it."""

    def permit(self, *, large: bool = False) -> Permit:
        """The permission to send one request."""


class _Waiter(NamedTuple):
    number: int
    turn: asyncio.Future[None]


class Gate:
    """Permits for one kind of request, given in the order they were asked for.

    Large files hold at most all permits but one, so that a small one never waits for a large or dripping one; where
    only one request at a time is configured there is nothing to keep free, and a large file does hold up the others.
    """

    def __init__(self, pace: Pace, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self.in_flight = 0
        self._pace, self._clock = pace, clock
        self._large_in_flight = 0
        self._small: deque[_Waiter] = deque()
        self._large: deque[_Waiter] = deque()
        self._number = 0
        self._waits, self._waited = 0, 0.0

    def permit(self, *, large: bool = False, server: str | None = None) -> Permit:
        """The permission to send one request: ``async with`` waits for it, and gives it back.

        ``server``: one of several that are asked through this gate; what it asks for holds back nobody else.
        """
        return Permit(self, self._pace.pause_of(server), self._clock, large=large, alone=server is None)

    def another_server(self) -> None:
        """From now on another server is asked: what was learnt says nothing of it."""
        self.limit.begin_anew(self._clock.now())
        self.wake()

    def figures(self) -> GateFigures:
        waiting = len(self._small) + len(self._large)
        return GateFigures(self.limit.value, self.limit.most, self.in_flight, waiting, self._waits, self._waited)

    def acquire_at_once(self, *, large: bool) -> bool:
        """Take a permit if one is free and nobody waits for it."""
        if (self._large if large else self._small) or not self._free(large=large):
            return False
        self._take(large=large)
        return True

    async def acquire(self, *, large: bool) -> None:
        """Take a permit when it is this one's turn."""
        queue = self._large if large else self._small
        self._number += 1
        waiter = _Waiter(self._number, asyncio.get_running_loop().create_future())
        queue.append(waiter)
        begun = self._clock.now()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():  # it was given, and is not wanted any more
                self.release(large=large)
            else:
                with contextlib.suppress(ValueError):  # already passed over
                    queue.remove(waiter)
            raise
        finally:
            self._waits += 1
            self._waited += self._clock.now() - begun

    def release(self, *, large: bool) -> None:
        self.in_flight -= 1
        self._large_in_flight -= large
        self.wake()

    def reclassify(self, *, large: bool) -> None:
        """One request in flight turned out to be large, or not to be."""
        self._large_in_flight += 1 if large else -1
        self.wake()

    def wake(self) -> None:
        """Give what is free to those who wait."""
        while self._small or self._large:
            small = self._small[0] if self._small and self._free(large=False) else None
            large = self._large[0] if self._large and self._free(large=True) else None
            if small and (large is None or small.number < large.number):
                self._small.popleft()
                self._grant(small, large=False)
            elif large:
                self._large.popleft()
                self._grant(large, large=True)
            else:
                return

    def _free(self, *, large: bool) -> bool:
        if self.in_flight >= self.limit.value:
            return False
        return not large or self._large_in_flight < max(1, self.limit.value - 1)

    def _take(self, *, large: bool) -> None:
        self.in_flight += 1
        self._large_in_flight += large

    def _grant(self, waiter: _Waiter, *, large: bool) -> None:
        if not waiter.turn.done():
            self._take(large=large)
            waiter.turn.set_result(None)


class Permit:
    """One request's permission, and what is learnt from it."""

    def __init__(self, gate: Gate, pause: Pause, clock: Clock, *, large: bool, alone: bool = True) -> None:
        self._gate, self._pause, self._clock, self.large, self._alone = gate, pause, clock, large, alone
        self._started = 0.0
        self._first_byte: float | None = None
        self._successes = 0
        #: Bytes received, for the measure of throughput.
        self.received = 0
        #: Raises when the request is not to be sent after all; asked when it is its turn.
        self.check: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        if not self._gate.acquire_at_once(large=self.large):
            await self._gate.acquire(large=self.large)
        if not self._alone and self._pause.held_back:
            await self._let_others_go_first()
        try:
            if self._pause.held_back:
                await self._pause.wait()
            if self.check is not None:
                self.check()
        except BaseException:
            self._gate.release(large=self.large)
            raise
        self._started = self._clock.now()
        self._successes = self._gate.limit.successes
        return self

    async def _let_others_go_first(self) -> None:
        """While this server asks to wait, the permit is for those who ask another one."""
        while self._pause.held > 0:
            self._gate.release(large=self.large)
            await self._pause.wait()
            await self._gate.acquire(large=self.large)

    def answered(self) -> float:
        """The first bytes of the answer are here; the instant."""
        self._first_byte = now = self._clock.now()
        return now

    def is_large(self, *, large: bool) -> None:
        """What the answer says about its size."""
        if large != self.large:
            self.large = large
            self._gate.reclassify(large=large)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gate, limit, now = self._gate, self._gate.limit, self._clock.now()
        if isinstance(error, RateLimited):
            limit.overloaded(self._started, now)
            self._pause.limited(error, self._started)
        elif isinstance(error, TimedOut):
            limit.timed_out(self._started, now, self._successes)
        elif isinstance(error, Unavailable) and error.status in _BUSY:
            limit.stumbled(self._started, now)
        elif self._first_byte is not None and (error is None or _answered(error)):
            work = 1 + self.received / _BYTES_PER_REQUEST
            saturated = gate.in_flight >= limit.value
            limit.succeeded(now, self._first_byte - self._started, work, saturated=saturated)
            self._pause.fine(self._started)
        gate.release(large=self.large)


def _answered(error: BaseException) -> bool:
    """Whether a failed request still says that upstream is at work: a 404 does, a lost connection does not."""
    return isinstance(error, UpstreamError) and not isinstance(error, Unavailable)


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

    def take_over(self, old: Pauses, servers: Collection[str]) -> None:
        """What those of ``servers``, the sources there are now, asked of ``old`` still counts."""
        for pause in old._pauses.values():
            if pause.name in servers and pause.held:
                self.of(None if pause.name == self._only and len(servers) == 1 else pause.name).as_before(pause)


class Pace:
    """Both gates, and the pauses that were asked for: one for all, or where several servers are asked one for each.

    ``pauses`` are those of the passes before; without them ``first`` and ``most`` are as there.
    """

    def __init__(
        self,
        metadata: int,
        files: int,
        *,
        first: float = 1.0,
        most: float = 60.0,
        clock: Clock | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.metadata = Gate(self, Limit(metadata), self._clock)
        #: Two are kept where two are allowed: one large file, and room for small ones.
        self.files = Gate(self, Limit(files, least=min(2, files)), self._clock)
        self._pauses = pauses or Pauses(self._clock, first=first, most=most)
        self._limited_before = self._pauses.rate_limited

    def pause_of(self, server: str | None = None) -> Pause:
        """What a server asked for; without a name that of the only one there is."""
        return self._pauses.of(server)

    @property
    def rate_limited(self) -> int:
        """How often it was said in this pass that too much was asked."""
        return self._pauses.rate_limited - self._limited_before

    def hold(self, seconds: float) -> None:
        """Nobody sends a request for so long from now; see :meth:`Pause.hold`."""
        self.pause_of().hold(seconds)

    def figures(self) -> PaceFigures:
        return PaceFigures(self.metadata.figures(), self.files.figures(), self._pauses.held, self.rate_limited)
