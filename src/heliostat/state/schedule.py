"""When projects are tried, or looked at again, without having been announced."""

from __future__ import annotations

from heliostat.state.connection import Executes, transaction


class Schedule:
    """Sets due times; each method is one transaction."""

    def __init__(self, connection: Executes) -> None:
        self._connection = connection

    def hasten(self, now: float) -> None:
        """Make everything that waits for its next try due now; what is only looked at again slowly keeps its pace."""
        waits = "due_at > ? AND state NOT IN ('current', 'quarantined', 'blocked')"
        (waiting,) = self._connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM projects WHERE {waits})", (now,)
        ).fetchone()
        if waiting:
            with transaction(self._connection):
                self._connection.execute(f"UPDATE projects SET due_at = ? WHERE {waits}", (now, now))

    def trust_clock(self, now: float, longest: float) -> None:
        """Nobody waits longer than ``longest`` for the next try: a time beyond it is of a clock that was ahead."""
        (ahead,) = self._connection.execute(
            "SELECT max(due_at) FROM projects WHERE due_at > ?", (now + longest,)
        ).fetchone()
        if ahead:
            with transaction(self._connection):
                self._connection.execute("UPDATE projects SET due_at = ? WHERE due_at > ?", (now, now + longest))

    def sweep(self, before: float, now: float, limit: int) -> int:
        """Make owed up to ``limit`` projects that were last looked at before ``before``; how many.

        Those first that were looked at in the future, by a clock that was ahead.
        """
        found: list[tuple[str]] = []
        for condition, value in (("checked_at > ?", now), ("checked_at < ?", before)):
            found += self._connection.execute(
                f"SELECT name FROM projects INDEXED BY projects_checked WHERE published = 1 AND {condition}"
                " AND due_at IS NULL ORDER BY checked_at LIMIT ?",
                (value, limit - len(found)),
            ).fetchall()
        if found:
            with transaction(self._connection):
                self._connection.executemany(
                    "UPDATE projects SET due_at = ?, why = 'sweep' WHERE name = ?", [(now, n) for (n,) in found]
                )
        return len(found)

    def call_witness(self, now: float) -> None:
        """A second 404 proves a removal only while another project answers: make one more due if somebody needs it."""
        (doubted,) = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM projects WHERE due_at <= ? AND missing_at IS NOT NULL)",
            (now,),
        ).fetchone()
        if doubted:
            with transaction(self._connection):
                self._connection.execute(
                    "UPDATE projects SET due_at = 0, why = 'poll' WHERE name = (SELECT name FROM projects"
                    " WHERE published = 1 AND due_at IS NULL AND state = 'current' ORDER BY checked_at LIMIT 1)"
                )

    def approve(self, now: float) -> int:
        """Make the removals that wait for approval due, so that they are looked at once more; how many."""
        with transaction(self._connection):
            return self._connection.execute(
                "UPDATE projects INDEXED BY projects_odd SET due_at = ?, why = 'removal'"
                " WHERE state <> 'current' AND state = 'held'",
                (now,),
            ).rowcount

    def owe_again(self, now: float) -> None:
        """Make everything that is published due, to be published under another policy."""
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE projects SET due_at = ?, why = 'policy' WHERE published = 1 AND due_at IS NULL", (now,)
            )

    def doubt_stuck(self, now: float) -> None:
        """Have a fresh look at all that was accepted although upstream stayed behind."""
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE projects INDEXED BY projects_stuck SET due_at = ? WHERE stuck_since IS NOT NULL", (now,)
            )

    def doubt_retained(self, now: float) -> None:
        """Have another look at all that is served although upstream removed it."""
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE projects INDEXED BY projects_odd SET due_at = ?, why = 'policy'"
                " WHERE state <> 'current' AND state = 'retained'",
                (now,),
            )
            self._connection.execute(
                "UPDATE projects SET due_at = coalesce(due_at, ?), why = coalesce(why, 'policy') WHERE published = 1"
                " AND name IN (SELECT project FROM paths WHERE kind = 'retained')",
                (now,),
            )

    def unblock(self, now: float) -> int:
        """Make blocked projects whose names can be paths due once more; how many."""
        with transaction(self._connection):
            return self._connection.execute(
                "UPDATE projects INDEXED BY projects_odd SET due_at = ?, why = 'retry'"
                " WHERE state <> 'current' AND state = 'blocked' AND name NOT LIKE '!%'",
                (now,),
            ).rowcount
