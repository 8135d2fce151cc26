"""Complete root lists, compared with the ledger: what is new, changed or absent becomes owed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from heliostat.errors import Refused
from heliostat.model import Listed, ProjectName
from heliostat.names import normalise, normalise_all
from heliostat.state import schema
from heliostat.state.connection import Executes, transaction
from heliostat.state.intake import InScope, Intake, key_of_refused

#: Entries of a root list in one statement, which takes half the time of so many statements.
_AT_ONCE = 100
_TAKE = (
    "INSERT INTO temp.listed VALUES (?, ?, ?){} ON CONFLICT (name) DO UPDATE SET"
    " display = excluded.display, serial = max(coalesce(serial, 0), excluded.serial)"
)
#: Names of one root list that are refused, and said so one by one.
_MOST_REFUSED = 1000


class Difference(msgspec.Struct, frozen=True):
    """What a root list changed in the ledger."""

    listed: int
    new: int
    changed: int
    absent: int


class RootList:
    """One list after the other: :meth:`begin`, :meth:`add` its entries, :meth:`finish`; each is one transaction."""

    def __init__(self, connection: Executes, intake: Intake) -> None:
        self._connection, self._intake = connection, intake
        #: So many new projects in one list are a first run's, and are put into the table in another way.
        self.very_many = 20_000
        #: Entries whose names are refused: display, reason, serial.
        self._refused: list[tuple[str, str, int | None]] = []

    def begin(self) -> None:
        """Start collecting a root list, in a temporary table."""
        self._connection.execute("DROP TABLE IF EXISTS temp.listed")
        self._connection.execute(
            "CREATE TEMP TABLE listed (name TEXT PRIMARY KEY, display TEXT, serial INTEGER) WITHOUT ROWID"
        )
        self._refused = []

    def add(self, batch: list[Listed], in_scope: InScope) -> None:
        """Take entries of the list; of those that are of one project the last one's spelling and the highest serial."""
        names = normalise_all([item.display for item in batch])
        rows = [
            (name, item.display, item.serial)
            for name, item in (zip(names, batch, strict=True) if names else self._acceptable(batch))
            if in_scope(name)
        ]
        with transaction(self._connection):
            for at in range(0, len(rows), _AT_ONCE):
                some = rows[at : at + _AT_ONCE]
                self._connection.execute(_TAKE.format(", (?, ?, ?)" * (len(some) - 1)), [*chain.from_iterable(some)])

    def _acceptable(self, batch: list[Listed]) -> Iterator[tuple[ProjectName, Listed]]:
        """The entries with their normal names; those whose names are refused are kept aside."""
        for item in batch:
            try:
                yield normalise(item.display), item
            except Refused as refused:
                if len(self._refused) < _MOST_REFUSED:
                    self._refused.append((item.display, str(refused), item.serial))

    def finish(self, serial: int, now: float, *, everything: bool, jump: bool = True) -> Difference:
        """Compare the list with the ledger: what is new or changed becomes owed, what is absent is to be looked at.

        ``serial`` is the list's own; the cursor becomes it unless it is further already.  Without ``jump`` the feed's
        rows in between are still to be read, from ``rows`` on.  With ``everything`` all listed projects become owed
        again (another upstream was confirmed).
        """
        with transaction(self._connection):
            connection = self._connection
            for display, reason, refused_serial in self._refused:
                self._intake.block(display, reason, None if refused_serial is None else min(refused_serial, serial))
            if len(self._refused) < _MOST_REFUSED:
                self._forget_refused(serial, {key_of_refused(display) for display, _, _ in self._refused})
            # No entry can be newer than its list.
            connection.execute("UPDATE temp.listed SET serial = ? WHERE serial > ?", (serial, serial))
            (listed,) = connection.execute("SELECT count(*) FROM temp.listed").fetchone()
            known = self._compare(serial, everything=everything)
            changed = connection.execute(
                "UPDATE projects SET wanted_serial = max(projects.wanted_serial, coalesce(l.serial, 0)),"
                " owed_serial = coalesce(projects.owed_serial, l.serial),"
                " due_at = CASE WHEN state IN ('failing', 'blocked') AND l.serial <= projects.wanted_serial AND NOT ?"
                " THEN due_at ELSE ? END,"
                " attempts = CASE WHEN l.serial > projects.wanted_serial THEN 0 ELSE attempts END,"
                " why = CASE WHEN NOT published THEN 'new' WHEN l.serial IS NULL AND NOT ? THEN 'poll'"
                " ELSE 'changed' END,"
                " state = CASE WHEN state IN ('failing', 'blocked') AND l.serial <= projects.wanted_serial AND NOT ?"
                " THEN state"
                " WHEN l.serial IS NULL AND published AND NOT ? AND state IN ('current', 'quarantined', 'failing')"
                " THEN state ELSE 'pending' END, absent_serial = NULL,"
                " hint = CASE WHEN l.serial >= coalesce(hint_serial, 0) THEN NULL ELSE hint END"
                " FROM temp.different l WHERE l.kind & 1 AND l.name = projects.name",
                (everything, now, everything, everything, everything),
            ).rowcount
            self._take_spellings()
            # A removal that waits is judged anew, unless its event is newer than the list.
            connection.execute(
                "UPDATE projects INDEXED BY projects_odd SET state = 'pending', due_at = ?, why = 'changed'"
                " WHERE state <> 'current' AND state = 'held' AND coalesce(hint_serial, 0) <= ?"
                " AND EXISTS (SELECT 1 FROM temp.listed l WHERE l.name = projects.name)",
                (now, serial),
            )
            connection.execute(
                "UPDATE projects SET absent_serial = NULL WHERE name IN"
                " (SELECT name FROM temp.different WHERE kind & 4)"
            )
            absent = connection.execute(
                "UPDATE projects SET absent_serial = ?,"
                " due_at = CASE WHEN due_at IS NULL OR state IN ('current', 'blocked') THEN ? ELSE due_at END,"
                " why = coalesce(why, 'removal') WHERE wanted_serial <= ?"
                " AND (published = 1 OR due_at IS NOT NULL OR state = 'blocked') AND named = 0"
                " AND state NOT IN ('quarantined', 'gone', 'excluded', 'held', 'retained') AND name NOT LIKE '!%'"
                " AND NOT EXISTS (SELECT 1 FROM temp.listed l WHERE l.name = projects.name)",
                (serial, now, serial),
            ).rowcount
            new = self._insert_new("temp.different WHERE kind = 8" if known else "temp.listed", now)
            if jump:
                connection.execute("DELETE FROM meta WHERE key = 'rows'")
            else:
                connection.execute("INSERT OR IGNORE INTO meta SELECT 'rows', value FROM meta WHERE key = 'cursor'")
            self._intake.advance(serial)
            connection.execute("DROP TABLE temp.different")
            connection.execute("DROP TABLE temp.listed")
        return Difference(listed, new, changed, absent)

    def _compare(self, serial: int, *, everything: bool) -> bool:
        """Find in one look at each project what differs: few of many, which the steps after this then look at alone.

        False when the ledger knows no project at all, so that there is nothing to compare with.

        ``kind`` adds up: 1 becomes owed, 2 is spelled otherwise, 4 was absent from an earlier list, 8 is new.
        """
        connection = self._connection
        connection.execute("DROP TABLE IF EXISTS temp.different")
        connection.execute(
            "CREATE TEMP TABLE different (name TEXT PRIMARY KEY, display TEXT, serial INTEGER, kind INTEGER)"
            " WITHOUT ROWID"
        )
        (known,) = connection.execute("SELECT EXISTS (SELECT 1 FROM projects WHERE name NOT LIKE '!%')").fetchone()
        if not known:
            return False
        connection.execute(
            "INSERT INTO temp.different SELECT * FROM (SELECT l.name, l.display, l.serial, CASE WHEN p.name IS NULL"
            " THEN 8 ELSE"
            " (l.serial IS NULL OR ?1 OR l.serial > p.accepted_serial OR (p.published = 0 AND (p.state = 'excluded'"
            "  OR (p.state = 'gone' AND ?2 > p.accepted_serial))))"
            " + 2 * (l.display <> p.display AND (l.serial IS NULL OR l.serial >= p.accepted_serial))"
            " + 4 * (p.absent_serial IS NOT NULL) END AS kind"
            " FROM temp.listed l LEFT JOIN projects p ON p.name = l.name) WHERE kind",
            (everything, serial),
        )
        return True

    def _take_spellings(self) -> None:
        """A name's case or punctuation may change without a serial."""
        spelled = self._connection.execute("SELECT display, name FROM temp.different WHERE kind & 2").fetchall()
        self._connection.executemany("UPDATE projects SET display = ? WHERE name = ?", spelled)
        self._intake.root_shows((name, True) for _, name in spelled)

    def _insert_new(self, source: str, now: float) -> int:
        """The projects that the ledger does not know yet; how many."""
        connection = self._connection
        (new,) = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
        if new >= self.very_many:
            connection.execute(schema.DROP_OWED)
        connection.execute(
            "INSERT INTO projects (name, display, wanted_serial, owed_serial, due_at, why, state)"
            f" SELECT name, display, coalesce(serial, 0), serial, ?, 'new', 'pending' FROM {source}",
            (now,),
        )
        if new >= self.very_many:
            connection.execute(schema.MAKE_OWED)
        return int(new)

    def _forget_refused(self, serial: int, listed: set[str]) -> None:
        """Refused names that a list of ``serial`` does not hold any more owe nobody anything."""
        known = self._connection.execute(
            "SELECT name FROM projects WHERE name >= '!' AND name < '\"' AND wanted_serial <= ?", (serial,)
        ).fetchall()
        gone = [row for row in known if row[0] not in listed]
        self._connection.executemany("DELETE FROM projects WHERE name = ?", gone)
