"""How many requests of one kind are in flight, and whose turn is next.

The limit adapts to what upstream bears, see :mod:`heliostat.upstream.limit`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from heliostat.errors import RateLimited, Unavailable, UpstreamError
from heliostat.upstream.clock import Clock
from heliostat.upstream.faults import TimedOut
from heliostat.upstream.limit import Limit
from heliostat.upstream.pauses import Pause, Pauses

#: So many bytes count as much work as one request.
_BYTES_PER_REQUEST = 64 << 10
#: Statuses that say that a server, or what stands before it, has too much to do.
_BUSY = frozenset({429, 502, 503, 504})


class GateFigures(NamedTuple):
    """What a gate looks like now, for metrics."""

    limit: int
    most: int
    in_flight: int
    waiting: int
    #: Requests that had to wait for a permit, and the seconds they waited, all together.
    waits: int
    waited: float


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

    def __init__(self, pauses: Pauses, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self.in_flight = 0
        self._pauses, self._clock = pauses, clock
        self._large_in_flight = 0
        self._small: deque[_Waiter] = deque()
        self._large: deque[_Waiter] = deque()
        self._number = 0
        self._waits, self._waited = 0, 0.0

    def permit(self, *, large: bool = False, server: str | None = None) -> Permit:
        """The permission to send one request: ``async with`` waits for it, and gives it back.

        ``server``: one of several that are asked through this gate; what it asks for holds back nobody else.
        """
        return Permit(self, self._pauses.of(server), self._clock, large=large, alone=server is None)

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
