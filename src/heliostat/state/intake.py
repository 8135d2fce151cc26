"""What upstream announces, folded into the ledger: events of its feed, and what somebody asks for.

Complete lists are in :mod:`heliostat.state.root_list`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from heliostat.errors import Refused
from heliostat.model import Event, ProjectName
from heliostat.names import normalise
from heliostat.pages.changes import Told
from heliostat.state.connection import Executes, transaction

_ABOUT_RELEASES = ("release quarantined", "release quarantine cleared", "remove release", "remove")

_FILE = re.compile(r"remove file |add \S+ file ")

InScope = Callable[[str], bool]


class Intake:
    """Announcements into rows; each public method is one transaction."""

    def __init__(self, connection: Executes) -> None:
        self._connection = connection

    def fold_events(self, events: Iterable[Event], cursor: int, now: float, in_scope: InScope) -> int:
        """Take rows of the change feed and the new cursor; returns how many projects became owed."""
        with transaction(self._connection):
            owed = sum(self._fold(one, now, in_scope) for event in events for one in both_names(event))
            self.advance(cursor)
        return owed

    def fold_changes(self, rows: Iterable[Told], cursor: int | None, read: str, now: float, in_scope: InScope) -> None:
        """Take rows of another heliostat's change feed, and up to where it was read, see there for ``read``.

        A row counts whatever its serial: what is served can change without a new one.
        """
        with transaction(self._connection):
            for row in rows:
                if row.what != "dropped":
                    self._fold_told(row, now, in_scope)
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('changes_read', ?)", (read,))
            if cursor is not None:
                self._connection.execute("DELETE FROM meta WHERE key = 'rows'")
                self.advance(cursor)

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
        with transaction(self._connection):
            self._connection.execute(
                "INSERT INTO projects (name, display, due_at, why, state, named) VALUES (?, ?, ?, ?, 'pending', ?)"
                " ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at, why = coalesce(why, excluded.why),"
                " state = CASE WHEN state IN ('current', 'quarantined', 'retained', 'failing', 'pending') THEN state"
                " ELSE 'pending' END, named = CASE WHEN published = 0 THEN excluded.named ELSE named END",
                (name, display, now, why, named),
            )

    def reopen(self, name: ProjectName, now: float, reason: str) -> None:
        """A published project turns out to lack something: it is owed once more."""
        with transaction(self._connection):
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
            (key_of_refused(display), display[:300], serial or 0, serial, reason),
        )

    def advance(self, cursor: int) -> None:
        """The cursor, unless it is further already; joins the caller's transaction."""
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('cursor', max(?, coalesce((SELECT value FROM meta"
            " WHERE key = 'cursor'), 0)))",
            (cursor,),
        )

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
                self._connection.execute("DELETE FROM projects WHERE name = ?", (key_of_refused(event.display),))
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


def key_of_refused(display: str) -> str:
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
