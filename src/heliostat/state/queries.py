"""Questions to the ledger; none of them writes, so they also work beside a running mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from heliostat.state.connection import Executes
from heliostat.state.rows import ROW_COLUMNS, TOMBSTONE_COLUMNS, Denied, Row, Tombstone

#: SQLite does not find out by itself that this index has all rows of such a state.
_ODD = " INDEXED BY projects_odd"


class Queries:
    """Reads through one connection."""

    def __init__(self, connection: Executes) -> None:
        self.connection = connection

    def get(self, key: str) -> Any:
        """A fact by its key, or None."""
        found = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def facts(self) -> dict[str, Any]:
        return dict(self.connection.execute("SELECT key, value FROM meta"))

    @property
    def cursor(self) -> int:
        """The change feed is read, and its rows are here, up to this serial."""
        return int(self.get("cursor") or 0)

    def checkpoint(self) -> int:
        """The tree is complete up to this serial: just below the oldest one owed by a pending or failing row."""
        (oldest,) = self.connection.execute(
            "SELECT min(owed_serial) FROM projects WHERE owed_serial IS NOT NULL AND state IN ('pending', 'failing')"
        ).fetchone()
        return self.cursor if oldest is None else max(0, min(self.cursor, oldest - 1))

    def root_serial(self) -> int:
        """What the root list states: the checkpoint, or without feed and list the newest page's serial.

        Never less than it stated before: an index whose serial goes back is not the same one any more.
        """
        said = int(self.get("root_serial") or 0)
        if self.cursor:
            return max(said, self.checkpoint())
        (newest,) = self.connection.execute("SELECT max(page_serial) FROM projects WHERE published = 1").fetchone()
        return max(said, newest or 0)

    def unsuspected(self) -> Row | None:
        """A project with which all was well when it was looked at last, which is lately; None when there is none."""
        found = self.connection.execute(
            "SELECT name FROM projects WHERE published = 1 AND due_at IS NULL AND state = 'current'"
            " ORDER BY checked_at DESC LIMIT 1"
        ).fetchone()
        return self.row(found[0]) if found is not None else None

    def row(self, name: str) -> Row | None:
        found = self.connection.execute(f"SELECT {ROW_COLUMNS} FROM projects WHERE name = ?", (name,)).fetchone()
        return _row(found) if found else None

    def due(self, now: float, after: tuple[float, str], limit: int) -> list[Row]:
        """Rows due at ``now``, oldest first, after the given (due_at, name): a page of the todo list."""
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects INDEXED BY projects_due WHERE due_at IS NOT NULL AND due_at <= ?"
            " AND (due_at, name) > (?, ?) ORDER BY due_at, name LIMIT ?",
            (now, *after, limit),
        )
        return [_row(item) for item in found]

    def due_between(
        self, after: tuple[float, str], before: tuple[float, str], limit: int, *, newest: bool
    ) -> list[Row]:
        """Rows with a (due_at, name) between the two, both left out, beginning with the ``newest`` or the oldest."""
        order = "due_at DESC, name DESC" if newest else "due_at, name"
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects INDEXED BY projects_due WHERE due_at IS NOT NULL"
            f" AND (due_at, name) > (?, ?) AND (due_at, name) < (?, ?) ORDER BY {order} LIMIT ?",
            (*after, *before, limit),
        )
        return [_row(item) for item in found]

    def next_due(self, after: float) -> float | None:
        """When the next row becomes due that is not yet; None when none will."""
        (found,) = self.connection.execute("SELECT min(due_at) FROM projects WHERE due_at > ?", (after,)).fetchone()
        return None if found is None else float(found)

    def first_due(self) -> float | None:
        """When the first row was, or will be, due; None when nothing is owed."""
        return self.next_due(-1.0)

    def count_leaving(self, after: float, now: float) -> int:
        """Rows due after ``after`` and by ``now`` whose projects are served, and seem to be gone upstream."""
        (count,) = self.connection.execute(
            "SELECT count(*) FROM projects INDEXED BY projects_due WHERE due_at IS NOT NULL AND due_at > ?"
            " AND due_at <= ? AND published = 1 AND (hint = 'removed' OR absent_serial IS NOT NULL)",
            (after, now),
        ).fetchone()
        return int(count)

    def count_due(self, now: float) -> int:
        (count,) = self.connection.execute(
            "SELECT count(*) FROM projects WHERE due_at IS NOT NULL AND due_at <= ?", (now,)
        ).fetchone()
        return int(count)

    def published_names(self, after: str = "", limit: int = 10_000) -> list[tuple[str, str, int | None]]:
        """(display, name, page serial) of the projects served, in the order of their names."""
        return self.connection.execute(
            "SELECT display, name, page_serial FROM projects WHERE published = 1 AND hidden = 0"
            " AND name > ? ORDER BY name LIMIT ?",
            (after, limit),
        ).fetchall()

    def published_count(self) -> int:
        """Projects served, those in quarantine included."""
        return self.totals()[0]

    def owed_by_state(self) -> dict[str, int]:
        """How many projects are pending, failing, blocked or held; states without any are left out."""
        return dict(
            self.connection.execute(
                "SELECT state, count(*) FROM projects INDEXED BY projects_odd WHERE state <> 'current'"
                " AND state IN ('pending', 'failing', 'blocked', 'held') GROUP BY state"
            )
        )

    def states(self) -> dict[str, int]:
        """Projects by state; those current are counted as the rest, which takes a look at the whole table."""
        odd = dict(
            self.connection.execute(
                "SELECT state, count(*) FROM projects INDEXED BY projects_odd WHERE state <> 'current' GROUP BY state"
            )
        )
        (known,) = self.connection.execute("SELECT count(*) FROM projects").fetchone()
        return {"current": known - sum(odd.values()), **odd}

    def states_of_totals(self) -> dict[str, int]:
        """Projects by state as :meth:`states`, at a cost in proportion to those that are not current.

        Those current are the rest of the projects served: one that was never published is not current.
        """
        found = self.connection.execute(
            "SELECT state, count(*), sum(published) FROM projects INDEXED BY projects_odd WHERE state <> 'current'"
            " GROUP BY state"
        ).fetchall()
        rest = self.totals()[0] - sum(served for _, _, served in found)
        return {"current": rest, **{state: count for state, count, _ in found}}

    def oldest_owed(self) -> int | None:
        """The lowest serial that any project owes, those blocked or held included; None when none is owed."""
        (oldest,) = self.connection.execute(
            "SELECT min(owed_serial) FROM projects INDEXED BY projects_owed WHERE owed_serial IS NOT NULL"
        ).fetchone()
        return None if oldest is None else int(oldest)

    def owed(self, limit: int) -> list[Row]:
        """Rows that are pending, failing, blocked or held, the worst first."""
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects INDEXED BY projects_odd"
            " WHERE state <> 'current' AND state IN ('pending', 'failing', 'blocked', 'held')"
            " ORDER BY attempts DESC, name LIMIT ?",
            (limit,),
        )
        return [_row(item) for item in found]

    def stuck(self, limit: int) -> list[Row]:
        """Rows that were accepted although upstream stayed behind what it announced."""
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects INDEXED BY projects_stuck WHERE stuck_since IS NOT NULL"
            " AND state IN ('current', 'quarantined') ORDER BY name LIMIT ?",
            (limit,),
        )
        return [_row(item) for item in found]

    def stuck_count(self) -> int:
        (count,) = self.connection.execute(
            "SELECT count(*) FROM projects INDEXED BY projects_stuck WHERE stuck_since IS NOT NULL"
            " AND state IN ('current', 'quarantined')"
        ).fetchone()
        return int(count)

    def by_state(self, state: str, limit: int) -> list[Row]:
        """Rows of a state other than ``current``."""
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects{_ODD} WHERE state <> 'current' AND state = ?"
            " ORDER BY coalesce(hint_serial, absent_serial, 0), name LIMIT ?",
            (state, limit),
        )
        return [_row(item) for item in found]

    def out_of_scope(self, in_scope: Callable[[str], bool]) -> list[Row]:
        """Rows of which the tree has something, that a changed scope leaves out and nobody asked for by name."""
        found: list[Row] = []
        for values in self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects WHERE named = 0 AND name NOT LIKE '!%'"
            " AND (published = 1 OR state NOT IN ('gone', 'excluded'))"
        ):
            row = _row(values)
            if not in_scope(row.name):
                found.append(row)
        return found

    def denied_projects(self) -> list[Row]:
        """Rows of denied projects of which the tree may have something."""
        found = self.connection.execute(
            f"SELECT {ROW_COLUMNS} FROM projects WHERE name IN (SELECT project FROM denied WHERE version = '')"
            " AND (published = 1 OR state NOT IN ('gone', 'excluded')) ORDER BY name"
        )
        return [_row(item) for item in found]

    def totals(self) -> tuple[int, int, int]:
        """Projects served, and their files and bytes."""
        projects, files, size = self.connection.execute("SELECT projects, files, bytes FROM totals").fetchone()
        return int(projects), int(files), int(size)

    def root_changed(self, limit: int) -> list[tuple[str, bool]]:
        """(name, whether the HTML page shows it too) of what changed since the root pages were written, by name.

        Where that is more than ``limit``, what the HTML page shows is among it as long as there is any.
        """
        found = self.connection.execute(
            "SELECT name, html FROM root_changed ORDER BY html DESC, name LIMIT ?", (limit,)
        )
        return sorted((name, bool(html)) for name, html in found)

    def root_entries(self, names: Iterable[str]) -> dict[str, tuple[str, str, int | None]]:
        """(display, name, page serial) of those of ``names`` that the root pages show."""
        found = {}
        for name in names:
            entry = self.connection.execute(
                "SELECT display, name, page_serial FROM projects WHERE name = ? AND published = 1 AND hidden = 0",
                (name,),
            ).fetchone()
            if entry:
                found[name] = entry
        return found

    def removals_since(self, when: float) -> int:
        """Projects removed since ``when`` without anybody's approval."""
        (count,) = self.connection.execute(
            "SELECT count(*) FROM tombstones WHERE at >= ? AND path IS NULL AND approved = 0"
            " AND what IN ('removed', 'withheld')",
            (when,),
        ).fetchone()
        return int(count)

    def tombstones(self, since: float = 0) -> list[Tombstone]:
        return list(self.buried(since=since))

    def buried(self, *, since: float = 0, after_serial: int | None = None) -> Iterator[Tombstone]:
        """Tombstones in the order in which they were written, a few at a time; with ``after_serial`` of later ones."""
        where = "at >= ?" if after_serial is None else "coalesce(serial, 0) > ?"
        value, last = since if after_serial is None else after_serial, 0
        while True:
            found = self.connection.execute(
                f"SELECT id, {TOMBSTONE_COLUMNS} FROM tombstones WHERE {where} AND id > ? ORDER BY id LIMIT 2000",
                (value, last),
            ).fetchall()
            for number, at, name, path, serial, why, approved, version, what in found:
                yield Tombstone(at, name, path, serial, why, bool(approved), version, what)
                last = number
            if not found:
                return

    def denied(self) -> list[Denied]:
        """All that is denied, in the order of names."""
        found = self.connection.execute(
            "SELECT project, version, origin, at, reason, purge FROM denied ORDER BY project, version, origin"
        )
        return [
            Denied(project, version, origin, at, reason, bool(purge))
            for project, version, origin, at, reason, purge in found
        ]

    def retained_files(self) -> int:
        """Files that are served although upstream removed them from projects that it has."""
        (count,) = self.connection.execute("SELECT count(*) FROM paths WHERE kind = 'retained'").fetchone()
        return int(count)

    def kept_files(self) -> tuple[int, float | None]:
        """How many paths are kept out of reach for a while, and since when the oldest is."""
        count, oldest = self.connection.execute(
            "SELECT count(*), min(at) FROM paths WHERE at IS NOT NULL AND kind = 'withheld'"
        ).fetchone()
        return int(count), oldest


def _row(values: tuple[Any, ...]) -> Row:
    row = dict(zip(Row.__struct_fields__, values, strict=True))
    for flag in ("published", "named", "extra"):
        row[flag] = bool(row[flag])
    return Row(**row)
