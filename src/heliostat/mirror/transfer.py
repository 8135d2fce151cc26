"""One object that is to be fetched, as it counts in the totals of a pass."""

from __future__ import annotations

from heliostat.mirror.report import Counters


class Transfer:
    """Keeps the totals at least as high as what is done, whatever is not known beforehand or comes twice.

    A total is what has arrived and what is still expected: it grows with each try that begins anew, and what will not
    come any more is taken out of it by :meth:`end`.  The object itself stays one that was wanted.
    """

    def __init__(self, counters: Counters, size: int | None) -> None:
        """``size`` in bytes, where upstream says it."""
        self._counters = counters
        self._expected = self._arrived = 0
        counters.files_total += 1
        self.expect(size or 0)

    def expect(self, size: int) -> None:
        """So many bytes are still to come."""
        total = self._arrived + size
        self._counters.bytes_total += total - self._expected
        self._expected = total

    def arrived(self, count: int) -> None:
        """So many bytes came, whatever becomes of them."""
        if self._arrived + count > self._expected:
            self.expect(count)
        self._arrived += count
        self._counters.bytes_done += count

    def done(self) -> None:
        """It is there, and verified."""
        self.end()
        self._counters.files_done += 1

    def end(self) -> None:
        """Nothing more will come."""
        self.expect(0)
