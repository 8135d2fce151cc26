"""So many a minute: how often something may happen."""

from __future__ import annotations


class Allowance:
    """A bucket of permits that fills again evenly; ``now`` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._left: float | None = None
        self._at = 0.0

    def take(self, a_minute: int, now: float) -> float:
        """0 when one more is allowed, and then it is taken; else the seconds until one is.

        ``a_minute`` is also how many may come at once after a pause.
        """
        left = float(a_minute) if self._left is None else self._left + (now - self._at) * a_minute / 60
        self._at, self._left = now, min(left, float(a_minute))
        if self._left < 1:
            return (1 - self._left) * 60 / a_minute
        self._left -= 1
        return 0.0
