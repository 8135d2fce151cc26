"""The one owner of request permits: how many at once, who is next, and when nobody may.

Two gates, one for metadata and one for files, each with an adaptive limit below its configured bound.  What upstream
says about being asked too much holds back *every* request until an instant that all of them wait for.
"""

from __future__ import annotations

from typing import NamedTuple

from heliostat.upstream.clock import Clock, SystemClock
from heliostat.upstream.gate import Gate, GateFigures
from heliostat.upstream.limit import Limit
from heliostat.upstream.pauses import Pauses

#: Files above this (bytes) are large: they never take the last permit from small ones.
LARGE = 32 << 20


class PaceFigures(NamedTuple):
    metadata: GateFigures
    files: GateFigures
    #: Seconds for which requests are still held back, to one server at least.
    held: float
    #: How often upstream said that it was asked too much.
    rate_limited: int


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
        self._pauses = pauses or Pauses(self._clock, first=first, most=most)
        self.metadata = Gate(self._pauses, Limit(metadata), self._clock)
        #: Two are kept where two are allowed: one large file, and room for small ones.
        self.files = Gate(self._pauses, Limit(files, least=min(2, files)), self._clock)
        self._limited_before = self._pauses.rate_limited

    @property
    def rate_limited(self) -> int:
        """How often it was said in this pass that too much was asked."""
        return self._pauses.rate_limited - self._limited_before

    def hold(self, seconds: float) -> None:
        """Nobody sends a request for so long from now; see :meth:`heliostat.upstream.pauses.Pause.hold`."""
        self._pauses.of(None).hold(seconds)

    def figures(self) -> PaceFigures:
        return PaceFigures(self.metadata.figures(), self.files.figures(), self._pauses.held, self.rate_limited)
