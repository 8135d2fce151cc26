"""Telling an upstream that is down from projects that fail: the first ends the pass, the second does not."""

from __future__ import annotations

from heliostat.errors import Unavailable, UpstreamError

#: So many projects in a row that got no answer at all, and none that did: upstream is down.
_IN_A_ROW = 10


class Reachability:
    """Watches what projects meet; any answer proves that upstream is there.

    ``answered``: upstream told in this pass what changed.
    """

    def __init__(self, *, answered: bool) -> None:
        self._in_a_row = 0
        self._answered = answered
        #: What was met last speaks against upstream.
        self.in_doubt = False
        self._last: UpstreamError | None = None

    def answered(self) -> None:
        """A project's metadata came."""
        self._in_a_row = 0
        self._answered, self.in_doubt = True, False

    @property
    def down(self) -> bool:
        """Whether so many failed that upstream is down, unless another project says otherwise."""
        return self._in_a_row >= _IN_A_ROW

    def failed(self, error: UpstreamError, *, before: bool) -> None:
        """A project failed.  Raises ``error`` when it is one too many of the kind that says upstream is down.

        One that failed ``before`` says nothing of the others: those that never succeed must not end every pass.
        """
        if not isinstance(error, Unavailable):
            self.answered()
            return
        self._last, self.in_doubt = error, True
        if before:
            return
        self._in_a_row += 1
        if self.down:
            raise error

    def check(self) -> None:
        """At the end: raises the last error if projects failed and not one was answered."""
        if self._last is not None and not self._answered:
            raise self._last
