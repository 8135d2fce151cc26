"""What upstream announces, folded into the ledger: events of the feed, and complete root lists."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import msgspec

from heliostat.errors import Refused
from heliostat.model import Event, Listed, ProjectName
from heliostat.names import normalise, normalise_all
from heliostat.pages.changes import Told
from heliostat.state import schema
from heliostat.state.connection import Executes

_ABOUT_RELEASES = ("release quarantined", "release quarantine cleared", "remove release", "remove")

_FILE = re.compile(r"remove file |add \S+ file ")

InScope = Callable[[str], bool]

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


class Intake:
    """Announcements into rows; each public method is one transaction."""

    def __init__(self, connection: Executes) -> None:
        self._connection = connection
        #: So many new projects in one list are a first run's, and are put into the table in another way.
        self.very_many = 20_000

    def fold_events(self, events: Iterable[Event], cursor: int, now: float, in_scope: InScope) -> int:
        """Take rows of the change feed and the new cursor; returns how many projects became owed."""
        with self._transaction():
            owed = sum(self._fold(one, now, in_scope) for event in events for one in both_names(event))
            self._connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('cursor', max(?, coalesce((SELECT value FROM meta"
                " WHERE key = 'cursor'), 0)))",
                (cursor,),
            )
        return owed

    def fold_changes(self, rows: Iterable[Told], cursor: int | None, read: str, now: float, in_scope: InScope) -> None:
        """Take rows of another heliostat's change feed, and up to where it was read, see there for ``read``.

        A row counts whatever its serial: what is served can change without a new one.
        """
        with self._transaction():
            for row in rows:
                if row.what != "dropped":
                    self._fold_told(row, now, in_scope)
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('changes_read', ?)", (read,))
            if cursor is not None:
                self._connection.execute("DELETE FROM meta WHERE key = 'rows'")
                self._connection.execute(
                    "INSERT OR REPLACE INTO meta VALUES ('cursor', max(?, coalesce((SELECT value FROM meta"
                    " WHERE key = 'cursor'), 0)))",
                    (cursor,),
                )

    def _fold_told(self, row: Told, now: float, in_scope: InScope) -> None:
        removed = row.what == "removed"
        display = row.project if row.display is None or not _spells(row.display, row.project) else row.display
        event = Event(display, None, 0, "remove project" if removed else row.what, row.serial or 0)
        if self._fold(event, now, in_scope):
            return
        try:
            name = normalise(row.project)
        except Refused:
            return
        if removed:
            self._connection.execute(
                "UPDATE projects SET hint = 'removed', hint_serial = max(wanted_serial, ?), due_at = ?,"
                " why = 'removal', state = 'pending' WHERE name = ? AND (published = 1 OR due_at IS NOT NULL)"
                " AND state NOT IN ('gone', 'excluded', 'held')",
                (event.serial, now, name),
            )
        elif row.what == "repaired":
            self._connection.execute(
                "UPDATE projects SET due_at = ? WHERE name = ? AND state IN ('failing', 'pending')", (now, name)
            )
        else:
            # As for a sweep, so that what pages do not tell is asked for again too.
            self._connection.execute(
                "UPDATE projects SET due_at = ?, why = coalesce(why, 'sweep'), hint = NULL, absent_serial = NULL,"
                " state = CASE WHEN state IN ('gone', 'excluded', 'held') THEN 'pending' ELSE state END WHERE name = ?",
                (now, name),
            )
            if row.serial is None and in_scope(name):
                self.want(display, name, now, named=False, why="new")

    def want(self, display: str, name: ProjectName, now: float, *, named: bool, why: str) -> None:
        """Make one project owed whose serial is not known."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO projects (name, display, due_at, why, state, named) VALUES (?, ?, ?, ?, 'pending', ?)"
                " ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at, why = coalesce(why, excluded.why),"
                " state = CASE WHEN state IN ('current', 'quarantined', 'retained', 'failing', 'pending') THEN state"
                " ELSE 'pending' END, named = CASE WHEN published = 0 THEN excluded.named ELSE named END",
                (name, display, now, why, named),
            )

    def reopen(self, name: ProjectName, now: float, reason: str) -> None:
        """A published project turns out to lack something: it is owed once more."""
        with self._transaction():
            self._connection.execute(
                "UPDATE projects SET state = 'failing', due_at = ?, why = 'retry', error = ?,"
                " owed_serial = coalesce(owed_serial, wanted_serial) WHERE name = ?",
                (now, reason, name),
            )

    def block(self, display: str, reason: str, serial: int | None) -> None:
        """Record a project whose very name is refused; its key is never used as a path."""
        self._connection.execute(
            "INSERT INTO projects (name, display, wanted_serial, owed_serial, state, error)"
            " VALUES (?, ?, ?, ?, 'blocked', ?) ON CONFLICT (name) DO UPDATE SET"
            " wanted_serial = max(wanted_serial, excluded.wanted_serial), state = 'blocked', error = excluded.error",
            (_key(display), display[:300], serial or 0, serial, reason),
        )

    def _forget_refused(self, serial: int, listed: set[str]) -> None:
        """Refused names that a list of ``serial`` does not hold any more owe nobody anything."""
        known = self._connection.execute(
            "SELECT name FROM projects WHERE name >= '!' AND name < '\"' AND wanted_serial <= ?", (serial,)
        ).fetchall()
        gone = [row for row in known if row[0] not in listed]
        self._connection.executemany("DELETE FROM projects WHERE name = ?", gone)

    # -- root lists ---------------------------------------------------------------------------------------------

    def begin_list(self) -> None:
        """Start collecting a root list, in a temporary table."""
        self._connection.execute("DROP TABLE IF EXISTS temp.listed")
        self._connection.execute(
            "CREATE TEMP TABLE listed (name TEXT PRIMARY KEY, display TEXT, serial INTEGER) WITHOUT ROWID"
        )
        self._refused: list[tuple[str, str, int | None]] = []

    def add_listed(self, batch: list[Listed], in_scope: InScope) -> None:
        """Take entries of the list; of those that are of one project the last one's spelling and the highest serial."""
        names = normalise_all([item.display for item in batch])
        rows = [
            (name, item.display, item.serial)
            for name, item in (zip(names, batch, strict=True) if names else self._acceptable(batch))
            if in_scope(name)
        ]
        with self._transaction():
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

    def finish_list(self, serial: int, now: float, *, everything: bool, jump: bool = True) -> Difference:
        """Compare the list with the ledger: what is new or changed becomes owed, what is absent is to be looked at.

        ``serial`` is the list's own; the cursor becomes it unless it is further already.  Without ``jump`` the feed's
        rows in between are still to be read, from ``rows`` on.  With ``everything`` all listed projects become owed
        again (another upstream was confirmed).
        """
        with self._transaction():
            connection = self._connection
            for display, reason, refused_serial in self._refused:
                self.block(display, reason, None if refused_serial is None else min(refused_serial, serial))
            if len(self._refused) < _MOST_REFUSED:
                self._forget_refused(serial, {_key(display) for display, _, _ in self._refused})
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
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('cursor', max(?, coalesce((SELECT value FROM meta"
                " WHERE key = 'cursor'), 0)))",
                (serial,),
            )
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
        self.root_shows((name, True) for _, name in spelled)

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

    def root_shows(self, changed: Iterable[tuple[str, bool]]) -> None:
        """The root pages show something else of these projects now; True: the HTML page too."""
        self._connection.executemany(
            "INSERT INTO root_changed VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET html = max(html, excluded.html)",
            changed,
        )

    def _fold(self, event: Event, now: float, in_scope: InScope) -> bool:
        if not event.display:
            return False
        try:
            name = normalise(event.display)
        except Refused as refused:
            if hint_of(event) == "removed":
                self._connection.execute("DELETE FROM projects WHERE name = ?", (_key(event.display),))
            else:
                self.block(event.display, str(refused), event.serial)
            return False
        if not in_scope(name):
            followed = self._connection.execute(
                "SELECT 1 FROM projects WHERE name = ? AND named = 1", (name,)
            ).fetchone()
            if not followed:
                return False
        changed = self._connection.execute(
            "INSERT INTO projects (name, display, wanted_serial, owed_serial, due_at, why, state, hint, hint_serial)"
            " VALUES (:name, :display, :serial, :serial, :now, 'new', 'pending', :hint, :serial)"
            " ON CONFLICT (name) DO UPDATE SET wanted_serial = max(wanted_serial, :serial),"
            " owed_serial = coalesce(owed_serial, :serial), due_at = :now, state = 'pending',"
            " why = CASE WHEN published THEN 'changed' ELSE 'new' END,"
            " hint = :hint, hint_serial = :serial, attempts = CASE WHEN :serial > wanted_serial THEN 0"
            " ELSE attempts END, absent_serial = NULL, missing_at = NULL, missing_pass = NULL"
            " WHERE :serial > accepted_serial AND :serial > coalesce(hint_serial, 0)",
            {"name": name, "display": event.display, "serial": event.serial, "now": now, "hint": hint_of(event)},
        )
        if changed.rowcount > 0:
            spelling = (event.display, name, event.display)
            spelled = self._connection.execute(
                "UPDATE projects SET display = ? WHERE name = ? AND display <> ?", spelling
            )
            if spelled.rowcount > 0:
                self.root_shows([(name, True)])
        self._note_quarantine(name, event)
        self._note_withdrawn(name, event)
        return changed.rowcount > 0

    def _note_quarantine(self, name: ProjectName, event: Event) -> None:
        """Keep in mind which releases are in quarantine: their files are not removed."""
        action, removed = event.action.strip(), hint_of(event) == "removed"
        if not removed and action not in _ABOUT_RELEASES:
            return
        (known,) = self._connection.execute(
            "SELECT quarantined_releases FROM projects WHERE name = ?", (name,)
        ).fetchone() or (None,)
        versions = set() if removed else set(json.loads(known or "[]")) - {event.version}
        if action == "release quarantined":
            versions.add(event.version)
        text = json.dumps(sorted(versions)) if versions else None
        if text != known:
            self._connection.execute("UPDATE projects SET quarantined_releases = ? WHERE name = ?", (text, name))

    def _note_withdrawn(self, name: ProjectName, event: Event) -> None:
        """Keep in mind what was removed: the page of a project in quarantine does not show what is behind it."""
        action = event.action.strip()
        of_file = _FILE.match(action)
        if of_file is None and action not in ("new release", "remove release"):
            return
        there = not action.startswith("remove ")
        item = action[of_file.end() :] if of_file else event.version
        if not item:
            return
        found = self._connection.execute("SELECT withdrawn FROM projects WHERE name = ?", (name,)).fetchone()
        known = set(json.loads(found[0] or "[]")) if found else set()
        items = known - {item} if there else known | {item}
        if items != known:
            text = json.dumps(sorted(items)) if items else None
            self._connection.execute("UPDATE projects SET withdrawn = ? WHERE name = ?", (text, name))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _key(display: str) -> str:
    """The name under which a project whose name is refused is kept; no normalised name looks like it."""
    return "!" + display[:300]


def both_names(event: Event) -> Iterator[Event]:
    """The event, and for a legacy renaming also what it means for the old name: the old rows went with the new one."""
    yield event
    old = event.action.strip().removeprefix("rename from ")
    if old != event.action.strip():
        yield Event(old, None, event.time, "remove project", event.serial)


def _spells(display: str, name: str) -> bool:
    try:
        return normalise(display) == name
    except Refused:
        return False


def hint_of(event: Event) -> str | None:
    """What an action means for removal; every other action only says "fetch it again"."""
    action = event.action.strip()
    if action in ("remove project", "nuke user") or (action == "remove" and not event.version):
        return "removed"
    return None
