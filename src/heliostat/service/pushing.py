"""How pushing goes: plain data, changed on the event loop only, shown by status and metrics."""

from __future__ import annotations

from typing import Literal

import msgspec

#: What a ping was answered with: 202, 400 or 415, 401, 413, 429.
Answer = Literal["accepted", "malformed", "unauthorised", "too_large", "limited"]


class Told(msgspec.Struct, kw_only=True):
    """How telling one other goes: a downstream mirror, or the hook.  Times are seconds since the epoch."""

    done: int = 0
    failed: int = 0
    #: When it last went well.
    last: float | None = None
    #: Why it does not go well now, since when, and when it is tried again; None while it does.
    trouble: str | None = None
    since: float | None = None
    again: float | None = None

    def well(self, now: float) -> bool:
        """It went well; whether it did not before."""
        before = self.trouble is not None
        self.done, self.last = self.done + 1, now
        self.trouble = self.since = self.again = None
        return before

    def badly(self, trouble: str, now: float) -> bool:
        """It failed; whether that is news."""
        before, self.trouble = self.trouble, trouble
        self.failed += 1
        self.since = now if self.since is None else self.since
        return before != trouble


class Pushing(msgspec.Struct, kw_only=True):
    """Pings received by what they were answered with, pings sent by where to, and the hook."""

    pings: dict[Answer, int] = {}
    downstream: dict[str, Told] = {}
    hook: Told = msgspec.field(default_factory=Told)
    #: The hook runs now.
    running: bool = False
