"""How far a scrub has come, and what that says: when was each project checked last?

A scrub goes round: project by project in the order of names, then from the beginning, so that the next one is always
the one whose last check is the longest ago.  All that is remembered is the position, and for the round before some
marks, each a name with the time when it was passed.  Pure.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import msgspec

from heliostat.mirror.verify.findings import Finding

#: What a project without files counts for beside the bytes of others: pages are to be read, too.
_PROJECT = 64 << 10
#: Marks of a round; between two of them the age of a check is known no closer.
_MARKS = 48
#: A round is planned for this share of the time it may take, so that a day without electricity does no harm.
_SHARE = 0.9
#: Findings that are remembered one by one.
MOST_OPEN = 100


def weight(size: int, projects: int = 1) -> int:
    """What projects with so many bytes of files count for."""
    return size + projects * _PROJECT


class Round(msgspec.Struct, omit_defaults=True):
    """A position, as the ledger keeps it.  Times are seconds since the epoch."""

    #: When this round began; 0 when none ever did.
    began: float = 0.0
    #: Everything up to this name is checked in this round; of the project ``current`` everything up to ``path``.
    name: str = ""
    current: str = ""
    path: str = ""
    #: Checked in this round, by :func:`weight`.
    done: int = 0
    marks: list[tuple[str, float]] = []
    marked: int = 0
    #: The round before: when it began, and its marks.
    last_began: float | None = None
    last_marks: list[tuple[str, float]] = []
    #: What was found and could not be repaired yet, in the order of projects.
    open: list[Finding] = []

    def begin(self, now: float) -> None:
        """A new round; this one, if there was any, is the one before then."""
        if self.began:
            self.last_began, self.last_marks = self.began, self.marks
        self.began, self.name, self.current, self.path, self.done = now, "", "", "", 0
        self.marks, self.marked = [], 0

    def passed(self, name: str, size: int, total: int, now: float) -> None:
        """A project with so many bytes is checked; ``total`` is the weight of all."""
        self.name, self.current, self.path = name, "", ""
        self.done += weight(size)
        if self.done - self.marked >= total / _MARKS and len(self.marks) < 2 * _MARKS:
            self.marks, self.marked = [*self.marks, (name, now)], self.done

    def share(self, total: int) -> float:
        """Share of the mirror that is checked in this round."""
        return min(1.0, self.done / total) if total else 1.0

    def due(self, total: int, period: float, now: float) -> float:
        """When the next project is to be begun so that a round takes no longer than ``period`` seconds."""
        began = min(self.began, now)  # the clock was set back
        return began + _SHARE * period * self.share(total)

    def next_begin(self, period: float, now: float) -> float:
        """When the round after this one is to begin."""
        return min(self.began, now) + _SHARE * period

    def oldest(self) -> float | None:
        """Everything that is there now was checked at this time or later; None while nobody knows.

        What came after its place was passed was checked when it came.
        """
        if self.last_began is None:
            return None
        number = bisect.bisect_right([name for name, _ in self.last_marks], self.name)
        return self.last_marks[number - 1][1] if number else self.last_began

    def take(self, looked_at: Iterable[str], found: Iterable[Finding]) -> int:
        """What is wrong with these projects now; how many findings are too many to be remembered."""
        looked = set(looked_at)
        now = sorted(
            {*(one for one in self.open if one.project not in looked), *found},
            key=lambda one: (one.project, one.path, one.kind),
        )
        self.open = now[:MOST_OPEN]
        return len(now) - len(self.open)
