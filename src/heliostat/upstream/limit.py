"""How many requests at once: the decisions, without clock, loop or network.

Fed with what each request took, it doubles from a modest start while throughput grows with it, stops when throughput
no longer does or when latency has doubled, tries one step more every now and then, and halves when upstream says that
it is too much.  It never leaves the bounds it was given.
"""

from __future__ import annotations

from typing import Literal

#: Where it starts, unless the upper bound is lower.
START = 4
#: A window holds at least so many requests, or as many as are allowed at once.
_WINDOW = 8
#: Growth of throughput that a doubling, or a single step, must bring to count.
_WORTH_DOUBLING, _WORTH_STEP = 1.15, 1.03
#: Windows to rest before one more step is tried.
_REST = 8
#: A latency so many times the best one seen says that upstream is queueing.
_SLOWER = 2.0
#: How fast a best latency is forgotten, each window: routes and servers change.
_FORGET = 1.05
#: Latencies below this (seconds) are the machine's own noise.
_NOISE = 0.001


class Limit:
    """An adaptive bound; ``value`` is always within ``least`` and ``most``."""

    def __init__(self, most: int, *, least: int = 1, start: int = START) -> None:
        if not 1 <= least <= most:
            raise ValueError("bounds must be 1 <= least <= most")
        self.least, self.most = least, most
        self._start = max(least, min(start, most))
        self.value = self._start
        self._mode: Literal["doubling", "resting", "stepping", "recovering"] = "doubling"
        self._rest = 0
        self._successes = 0
        self._reduced_at: float | None = None
        self._target = most
        #: Throughput and limit before the last growth.
        self._before: tuple[float, int] | None = None
        self._best_latency: float | None = None
        self._begin(skip=0)

    def _begin(self, *, skip: int) -> None:
        """A new window; the next ``skip`` requests were begun under the old limit and do not count."""
        self._skip = skip
        self._started: float | None = None
        self._count, self._saturated, self._work, self._latency = 0, 0, 0.0, 0.0
        self._stumbles = 0

    @property
    def successes(self) -> int:
        """Requests that ended well so far: what one remembers at its start, to hand it to :meth:`timed_out`."""
        return self._successes

    def succeeded(self, at: float, latency: float, work: float, *, saturated: bool) -> None:
        """A request ended well at ``at``: seconds to its first byte, work done, and whether all permits were out."""
        self._successes += 1
        if self._skip > 0:
            self._skip -= 1
            return
        if self._started is None:  # the window begins with an end, so that its work falls within its time
            self._started = at
            return
        self._count += 1
        self._saturated += saturated
        self._work += work
        self._latency += latency
        if self._count >= max(_WINDOW, self.value) and at > self._started:
            self._decide(self._work / (at - self._started), self._latency / self._count)

    def overloaded(self, started: float, at: float) -> bool:
        """Upstream said that it is too much, to a request begun at ``started``; True if the limit was halved.

        Once per round: requests that were under way when it was halved last say nothing new.
        """
        if self._reduced_at is not None and started <= self._reduced_at:
            return False
        self._reduced_at = at
        self._target = max(self.least, self.value - max(1, self.value // 4))
        self.value = max(self.least, self.value // 2)
        self._mode, self._before = "recovering", None
        self._begin(skip=0)
        return True

    def stumbled(self, started: float, at: float) -> bool:
        """A server, or what stands before it, had too much to do for one request.

        As :meth:`overloaded` when it happens to a share of them; one now and then is no reason to slow all down.
        """
        self._stumbles += 1
        return self._stumbles >= max(2, self.value // 8) and self.overloaded(started, at)

    def begin_anew(self, at: float) -> None:
        """Another server is asked from ``at`` on: as at the start, and what is under way by then says nothing of it."""
        self.value, self._reduced_at = self._start, at
        self._mode, self._before, self._best_latency = "doubling", None, None
        self._begin(skip=0)

    def timed_out(self, started: float, at: float, successes: int) -> bool:
        """As :meth:`overloaded`, unless a full round of others ended well meanwhile: then it is that one's fault."""
        if self._successes - successes >= self.value:
            return False
        return self.overloaded(started, at)

    def _decide(self, rate: float, latency: float) -> None:
        best = self._best_latency
        self._best_latency = max(_NOISE, latency if best is None else min(latency, best * _FORGET))
        queueing = best is not None and latency > best * _SLOWER
        busy = self._saturated * 2 > self._count
        old = self.value
        match self._mode:
            case "doubling":
                self._double(rate, queueing=queueing, busy=busy)
            case "recovering":
                self._recover(busy=busy)
            case "stepping":
                self._judge_step(rate, queueing=queueing, busy=busy)
            case "resting":
                self._rest -= 1
                if self._rest <= 0 and busy and not queueing:
                    self._step(rate)
        self._begin(skip=old if self.value != old else 0)

    def _double(self, rate: float, *, queueing: bool, busy: bool) -> None:
        if not busy:
            return
        grown = self._before is None or rate >= self._before[0] * _WORTH_DOUBLING
        if not grown or queueing or self.value == self.most:
            self._settle()
        else:
            self._before = (rate, self.value)
            self.value = min(self.most, self.value * 2)

    def _recover(self, *, busy: bool) -> None:
        """One more each window, up to three quarters of what was too much."""
        if self.value >= self._target:
            self._settle()
        elif busy:
            self.value += 1

    def _step(self, rate: float) -> None:
        if self.value < self.most:
            self._before = (rate, self.value)
            self.value = min(self.most, self.value + max(1, self.value // 4))
            self._mode = "stepping"
        else:
            self._settle()

    def _judge_step(self, rate: float, *, queueing: bool, busy: bool) -> None:
        assert self._before is not None
        before, value = self._before
        if not busy or queueing or rate < before * _WORTH_STEP:
            self.value = value
            self._settle()
        else:
            self._step(rate)

    def _settle(self) -> None:
        self._mode, self._rest, self._before = "resting", _REST, None
