"""What was published: one row a project and batch, written in the transaction that records it.

The static change feed, hooks and ``heliostat changes`` read these rows.  Numbers only grow, one by one, and are never
given twice; rows that are in the static feed for long are pruned.  A row may be written again after a kill, and may
name a path that did not change after all; what did change is never missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from heliostat.pages.changes import Change, What
from heliostat.state.connection import Executes

__all__ = ["Change", "Changelog", "Entry", "What"]

#: A project with more paths makes several rows, so that a row stays below a few hundred KiB.
MOST_PATHS = 1000
_MARKS = "+*-"


class Entry(msgspec.Struct, frozen=True):
    """What happened to one project; paths are relative to ``web/``.

    ``changed`` are written at places that may have been served before.
    """

    project: str
    serial: int | None
    what: What
    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()


class Changelog:
    """Rows of ``changelog``; writes join the caller's transaction."""

    def __init__(self, connection: Executes) -> None:
        self._connection = connection

    @property
    def last(self) -> int:
        """The newest row's number; 0 before the first one."""
        (found,) = self._connection.execute("SELECT max(number) FROM changelog").fetchone()
        return int(found or 0)

    @property
    def first(self) -> int:
        """The oldest row's number that is still here; above ``last`` when there is none."""
        (found,) = self._connection.execute("SELECT min(number) FROM changelog").fetchone()
        return int(found or self.last + 1)

    def after(self, number: int, limit: int) -> list[Change]:
        """Up to ``limit`` rows above ``number``, in order; whether some are missing is told by :attr:`first`."""
        changes: list[Change] = []
        found = self._connection.execute(
            "SELECT number, at, serial, project, what, paths, display FROM changelog"
            " LEFT JOIN projects ON name = project WHERE number > ? ORDER BY number LIMIT ?",
            (number, limit),
        )
        for count, at, serial, project, what, text, spelled in found:
            display = spelled if spelled != project else None
            changes.append(Change(count, at, serial, project, what, display, None, *_unpacked(text)))
        return changes

    def write(self, entries: Iterable[Entry], at: float) -> None:
        """Record what happened; ``at`` is seconds since the epoch."""
        self._connection.executemany(
            "INSERT INTO changelog (at, serial, project, what, paths) VALUES (?, ?, ?, ?, ?)",
            [
                (at, entry.serial, entry.project, entry.what, text)
                for entry in entries
                for text in _packed(entry.added, entry.changed, entry.removed)
            ],
        )

    def prune(self, number: int) -> None:
        """Forget the rows up to ``number``, never the newest one: numbers go on from it."""
        self._connection.execute(
            "DELETE FROM changelog WHERE number <= ? AND number < (SELECT max(number) FROM changelog)", (number,)
        )

    # What is about to change, for a kill between the change and its row.

    def begin(self, projects: Iterable[str]) -> None:
        """What is served of these is about to change in place."""
        self._connection.executemany("INSERT OR IGNORE INTO changing VALUES (?)", [(name,) for name in projects])

    def begun(self, project: str) -> bool:
        return self._connection.execute("SELECT 1 FROM changing WHERE project = ?", (project,)).fetchone() is not None

    def end(self, projects: Iterable[str]) -> None:
        """What changed of these is recorded."""
        self._connection.executemany("DELETE FROM changing WHERE project = ?", [(name,) for name in projects])


def _packed(*kinds: Sequence[str]) -> list[str]:
    """The paths as text, one to a line (no path holds a line break), each with a sign of its kind; in parts."""
    if sum(map(len, kinds)) <= MOST_PATHS:
        return ["\n".join([mark + f"\n{mark}".join(paths) for mark, paths in zip(_MARKS, kinds, strict=True) if paths])]
    lines = [mark + path for mark, paths in zip(_MARKS, kinds, strict=True) for path in paths]
    return ["\n".join(lines[at : at + MOST_PATHS]) for at in range(0, len(lines), MOST_PATHS)]


def _unpacked(text: str) -> tuple[list[str], list[str], list[str]]:
    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    kinds = dict(zip(_MARKS, (added, changed, removed), strict=True))
    for line in text.split("\n") if text else ():
        kinds[line[0]].append(line[1:])
    return added, changed, removed
