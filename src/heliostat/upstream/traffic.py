"""What was asked of upstream and what came of it, as plain counts; kept by whoever outlives a pass, shown by others.

Counting is on the path of every request of a first sync, so it is an index into a list and an addition.  Names and
labels are made by whoever shows the counts.  Everything is changed on the event loop only; durations are seconds,
sizes bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from enum import IntEnum

from heliostat.errors import IntegrityError, Invalid, RateLimited, Unavailable
from heliostat.upstream.faults import NotConnected, TimedOut
from heliostat.upstream.pace import PaceFigures


class Kind(IntEnum):
    """What a request was for; the names in lower case are the ones that operators see."""

    #: The XML-RPC change feed, its list of all projects included.
    CHANGELOG = 0
    ROOT_LIST = 1
    PAGE = 2
    DOCUMENT = 3
    FILE = 4
    SIDECAR = 5
    PROVENANCE = 6
    #: Another heliostat's static change feed.
    CHANGES = 7


_OF_PROJECTS = (Kind.PAGE, Kind.DOCUMENT, Kind.FILE, Kind.SIDECAR, Kind.PROVENANCE)


class Fault(IntEnum):
    """How a request failed, where no status of HTTP says it."""

    #: No answer, or no further byte, in time.
    TIMEOUT = 0
    #: No connection: refused, no such name, no TLS.
    UNREACHABLE = 1
    #: The connection, or the body, broke off; or the answer itself says that the server failed (XML-RPC).
    RESET = 2
    #: An answer that is not what the protocol says.
    INVALID = 3
    #: Bytes of another digest or size than upstream declares.
    INTEGRITY = 4
    #: An answer that says that too much was asked (XML-RPC).
    LIMITED = 5
    OTHER = 6


#: Statuses from here on, which HTTP does not have, count as the last one.
MOST_STATUS = 600

#: Upper bounds of what is counted together.
SECONDS_OF_ANSWER = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SECONDS_OF_WORK = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
SIZES = tuple(float(1 << power) for power in range(10, 35, 2))


class Histogram:
    """Counts of values by upper bounds, each value in one count only; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Traffic:
    """Counts since the process began."""

    def __init__(self) -> None:
        #: Answers by kind and status of HTTP; redirects count as answers of their own.
        self.answers = [[0] * MOST_STATUS for _ in Kind]
        #: Requests without an answer, by kind and fault.
        self.unanswered = [[0] * len(Fault) for _ in Kind]
        #: Answers whose body broke off or was wrong, by kind and fault; each is among the answers, too.
        self.broken = [[0] * len(Fault) for _ in Kind]
        #: Bytes of bodies, unpacked where upstream sent them packed.
        self.received = [0] * len(Kind)
        #: From a request to the head of its answer.
        self.waits = [Histogram(SECONDS_OF_ANSWER) for _ in Kind]
        self.retries = 0
        #: From the begin of a project's work until it is durable.
        self.projects = Histogram(SECONDS_OF_WORK)
        #: Of files, sidecars included: from the first request until the bytes are verified; and their sizes.
        self.files = Histogram(SECONDS_OF_WORK)
        self.sizes = Histogram(SIZES)
        #: Sidecars that were taken out of their wheels, and so were not asked for.
        self.from_wheels = 0
        #: Of the durable batches.
        self.batches = Histogram(SECONDS_OF_WORK)
        #: How the pace is now; None before the first pass.
        self.pace: Callable[[], PaceFigures] | None = None
        self._rate_limited = 0

    def answered(self, kind: int, status: int, seconds: float) -> None:
        """The head of an answer is here, so long after its request."""
        self.answers[kind][status if status < MOST_STATUS else -1] += 1
        wait = self.waits[kind]
        wait.counts[bisect_left(wait.bounds, seconds)] += 1
        wait.sum += seconds

    def failed(self, kind: int, error: Exception) -> None:
        """A request had no answer."""
        self.unanswered[kind][fault_of(error)] += 1

    def broke(self, kind: int, error: Exception) -> None:
        """The body of an answer did not come, or is not what it should be."""
        self.broken[kind][fault_of(error)] += 1

    def follow(self, pace: Callable[[], PaceFigures]) -> None:
        """Another pass begins, with a pace of its own."""
        self._rate_limited = self.rate_limited
        self.pace = pace

    @property
    def of_projects(self) -> int:
        """Grows whenever something comes, or fails to come, of what projects consist of; polls do not count."""
        return sum(
            self.received[kind] + sum(self.waits[kind].counts) + sum(self.unanswered[kind]) + sum(self.broken[kind])
            for kind in _OF_PROJECTS
        )

    @property
    def rate_limited(self) -> int:
        """How often upstream said that it is asked too much."""
        return self._rate_limited + (self.pace().rate_limited if self.pace is not None else 0)


def fault_of(error: Exception) -> Fault:
    """What kind of fault one of our errors tells."""
    match error:
        case TimedOut():
            return Fault.TIMEOUT
        case NotConnected():
            return Fault.UNREACHABLE
        case IntegrityError():
            return Fault.INTEGRITY
        case Invalid():
            return Fault.INVALID
        case RateLimited():
            return Fault.LIMITED
        case Unavailable():
            return Fault.RESET
    return Fault.OTHER
