"""The ledger: what upstream says there is, how far the tree has followed, and what is owed and why.

One connection, used by one thread at a time.  Every method is one transaction; a method that returns has made its
change durable.  Raises StateError, or StoreError when the disk refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from heliostat.errors import StateError
from heliostat.state.changelog import Changelog
from heliostat.state.connection import Connection, Executes, transaction
from heliostat.state.database import explained
from heliostat.state.denials import Denials
from heliostat.state.intake import Intake
from heliostat.state.paths import Paths
from heliostat.state.queries import Queries
from heliostat.state.root_list import RootList
from heliostat.state.rows import TOMBSTONE_COLUMNS, Failed, Kept, Published, Tombstone
from heliostat.state.schedule import Schedule

_ROOT_DIRTY = ("root_json_dirty", "root_html_dirty")


class Ledger(Queries):
    """The ledger in the SQLite file at ``path``, made when ``create`` and it is not there."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.path = path
        self._file = Connection(path, create=create)
        super().__init__(self._file)
        self.intake = Intake(self.connection)
        self.root_list = RootList(self.connection, self.intake)
        self.schedule = Schedule(self.connection)
        self.paths = Paths(cast(sqlite3.Connection, self.connection))
        self.changelog = Changelog(self.connection)
        self.denials = Denials(self.connection)

    def close(self) -> None:
        with explained(self.path):
            self.connection.close()

    def forget_pages(self) -> None:
        """Give back what of the file is held in memory: up to 16 MiB, filled little by little by what is touched once.

        What is needed again comes from the kernel's cache, in a few milliseconds for all of it.
        """
        with explained(self.path):
            self._file.forget_pages()

    def check(self) -> None:
        """Read all of it; raises StateError, and closes it, when it is damaged anywhere."""
        try:
            with explained(self.path):
                found = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StateError(f"{self.path}: the ledger is damaged ({found})")
        except StateError:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Executes]:
        """All or nothing, durable at the end; joins a transaction that is open already."""
        if self.connection.in_transaction:
            yield self.connection
            return
        with explained(self.path), transaction(self.connection):
            yield self.connection

    def put(self, **facts: Any) -> None:
        """Store facts; None removes one."""
        with self.transaction() as connection:
            for key, value in facts.items():
                if value is None:
                    connection.execute("DELETE FROM meta WHERE key = ?", (key,))
                else:
                    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def restart(self) -> None:
        """Forget every serial: another upstream was confirmed.  What is published stays, and is owed again."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE projects SET wanted_serial = 0, accepted_serial = 0, owed_serial = NULL, hint = NULL,"
                " hint_serial = NULL, absent_serial = NULL, missing_at = NULL, missing_pass = NULL,"
                " page_etag = NULL, document_etag = NULL, quarantined_releases = NULL, withdrawn = NULL, attempts = 0,"
                " stuck_since = NULL, stuck_tries = 0"
            )
            self.put(
                cursor=None, rows=None, root_etag=None, documents=None, went_back=None, upstream=None,
                upstream_serial=None, reconciled=None, root_serial=None, changes_id=None, changes_read=None,
                changes_whole=None, sightings=None,
            )  # fmt: skip

    def abandon_out_of_scope(self, in_scope: Callable[[str], bool], begun: Callable[[str], bool]) -> None:
        """Rows that were owed and never published, and that a changed scope leaves out, are owed no more.

        Those of which the tree has something already, since it was ``begun``, stay until that is removed.
        """
        with self.transaction() as connection:
            names = [
                name
                for (name,) in connection.execute("SELECT name FROM projects WHERE published = 0 AND named = 0")
                if not in_scope(name) and not begun(name)
            ]
            connection.executemany("DELETE FROM projects WHERE name = ?", [(name,) for name in names])

    def welcome_in_scope(self, in_scope: Callable[[str], bool], now: float) -> None:
        """What a changed scope holds is followed like everything in it; a removal that waits is judged anew."""
        with self.transaction() as connection:
            found = connection.execute("SELECT name FROM projects WHERE named = 1 OR state = 'held'").fetchall()
            connection.executemany(
                "UPDATE projects SET named = 0, due_at = CASE WHEN state = 'held' THEN ? ELSE due_at END,"
                " why = CASE WHEN state = 'held' THEN 'changed' ELSE why END,"
                " state = CASE WHEN state = 'held' THEN 'pending' ELSE state END WHERE name = ?",
                [(now, name) for (name,) in found if in_scope(name)],
            )

    def unname(self, name: str) -> None:
        """It is followed no more on account of having been asked for by name."""
        with self.transaction() as connection:
            connection.execute("UPDATE projects SET named = 0 WHERE name = ?", (name,))

    def begin_rebuild(self) -> Kept:
        """Forget all projects; what is not finished by :meth:`end_rebuild` is begun anew at the next start.

        Returns what the tree cannot tell, which is remembered until the end.
        """
        with self.transaction() as connection:
            kept = self._kept(connection)
            # What was owed and never published is not in the tree: everything has to be compared afterwards.
            self.put(rebuilding=1, cursor=None, rows=None, root_etag=None, reconciled=None, scope=None)
            self.put(kept=msgspec.json.encode(kept).decode())
            connection.execute("DELETE FROM projects")
        return kept

    def _kept(self, connection: Executes) -> Kept:
        if (before := self.get("kept")) is not None:  # a rebuild was cut short
            return msgspec.json.decode(before, type=Kept)
        if self.get("rebuilding"):
            return Kept(lost=True)
        releases = connection.execute(
            "SELECT name, quarantined_releases FROM projects WHERE quarantined_releases IS NOT NULL"
        )
        named = connection.execute("SELECT name FROM projects WHERE named = 1")
        return Kept(named=frozenset(name for (name,) in named), quarantined_releases=dict(releases.fetchall()))

    def insert_rebuilt(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with self.transaction() as connection:
            for row in rows:
                columns = ", ".join(row)
                marks = ", ".join(f":{column}" for column in row)
                connection.execute(f"INSERT OR REPLACE INTO projects ({columns}) VALUES ({marks})", row)

    def spell(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take (display, name) for projects of which only the name is known."""
        with self.transaction() as connection:
            connection.executemany("UPDATE projects SET display = ? WHERE name = ? AND display = name", pairs)

    def end_rebuild(self, checkpoint: int | None) -> None:
        """``checkpoint`` is what the tree's own ``status`` says: the feed is read from there."""
        with self.transaction():
            self.put(rebuilding=None, kept=None, adopting=None, cursor=checkpoint)
            self.mark_root(html=True, json=True)

    # -- outcomes -----------------------------------------------------------------------------------------------

    def record(self, outcomes: Iterable[Published | Failed], tombstones: Iterable[Tombstone] = ()) -> None:
        """Write back finished tries, in one transaction.

        A serial announced while the try ran keeps the row owed.  Root pages are marked for rewriting when what
        they show changed.
        """
        with self.transaction() as connection:
            shown: list[tuple[str, bool]] = []
            for outcome in outcomes:
                if isinstance(outcome, Published):
                    before = connection.execute(
                        "SELECT published, hidden, display, page_serial FROM projects WHERE name = ?", (outcome.name,)
                    ).fetchone() or (0, 0, "", None)
                    listed_before = bool(before[0]) and not before[1]
                    listed = outcome.state != "quarantined"
                    html = listed != listed_before or (listed and before[2] != outcome.display)
                    if html or (listed and before[3] != outcome.page_serial):
                        shown.append((outcome.name, html))
                    self._record_published(outcome)
                else:
                    self._record_failed(outcome)
            self.root_shows(shown)
            self.bury(tombstones)

    def touch(self, name: str, checked_at: float) -> None:
        """A sweep found nothing new: the row is not owed any more."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE projects SET checked_at = ?, due_at = NULL, why = NULL, error = NULL, attempts = 0"
                " WHERE name = ? AND owed_serial IS NULL",
                (checked_at, name),
            )

    def forget(self, name: str, *, state: str, serial: int, tombstones: Iterable[Tombstone]) -> None:
        """A project left the mirror: its row stays, as ``gone`` or ``excluded``, and remembers up to which serial.

        Who asks for one that is gone need not wait for a second sign of it again.
        """
        gone = state == "gone"
        with self.transaction() as connection:
            (shown,) = connection.execute("SELECT published FROM projects WHERE name = ?", (name,)).fetchone() or (0,)
            connection.execute(
                "UPDATE projects SET published = 0, hidden = 0, state = ?, due_at = NULL, why = NULL, error = NULL,"
                " attempts = 0, page_serial = NULL, owed_serial = NULL,"
                " accepted_serial = max(accepted_serial, wanted_serial, ?), files = 0, bytes = 0,"
                " page_etag = NULL, document_etag = NULL, document_digest = NULL, absent_serial = NULL,"
                " quarantined_releases = NULL, withdrawn = NULL,"
                " missing_at = NULL, missing_pass = NULL, stuck_since = NULL, stuck_tries = 0, named = 0"
                + (", hint = 'removed', hint_serial = max(accepted_serial, wanted_serial, ?)" if gone else "")
                + " WHERE name = ?",
                (state, serial, *([serial] if gone else []), name),
            )
            self.root_shows([(name, True)] if shown else [])
            self.bury(tombstones)

    def bury(self, tombstones: Iterable[Tombstone]) -> None:
        """Write tombstones; joins the caller's transaction."""
        self.connection.executemany(
            f"INSERT INTO tombstones ({TOMBSTONE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [tombstone.values for tombstone in tombstones],
        )

    def drop_unknown(self, name: str) -> None:
        """Remove the row of a name that was asked for and that upstream never had."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM projects WHERE name = ? AND published = 0", (name,))

    def mark_root(self, *, html: bool, json: bool) -> None:
        """Say that root pages must be written anew as a whole."""
        with self.transaction() as connection:
            for key, dirty in zip(_ROOT_DIRTY, (json, html), strict=True):
                if dirty:
                    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, 1)", (key,))

    def root_shows(self, changed: Iterable[tuple[str, bool]]) -> None:
        """Say that the root pages show something else of these projects now; True: the HTML page too."""
        if not (self.get("root_json_dirty") and self.get("root_html_dirty")):
            self.intake.root_shows(changed)

    def root_written(self, serial: int, now: float, files: Mapping[str, str]) -> None:
        """The root pages show all that the ledger knows; ``files`` tells by form which files they are."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM root_changed")
            self.put(root_json_dirty=None, root_html_dirty=None, root_serial=serial, root_written=now)
            self.put(root_number=self.changelog.last)
            self.put(**{f"root_{form}_file": file for form, file in files.items()})

    def _record_published(self, done: Published) -> None:
        self.connection.execute(
            "UPDATE projects SET display = :display, accepted_serial = max(accepted_serial, :accepted_serial),"
            " page_serial = :page_serial, published = 1, hidden = :state = 'quarantined',"
            " state = CASE WHEN wanted_serial > :accepted_serial THEN 'pending' ELSE :state END,"
            " owed_serial = CASE WHEN wanted_serial > :accepted_serial THEN wanted_serial ELSE NULL END,"
            " due_at = CASE WHEN wanted_serial > :accepted_serial THEN due_at ELSE :due_at END,"
            " why = CASE WHEN wanted_serial > :accepted_serial THEN why WHEN :stuck IS NULL THEN NULL ELSE 'stuck' END,"
            " attempts = 0, error = :stuck, files = :files, bytes = :bytes, policy = :policy,"
            " page_etag = :page_etag, document_etag = :document_etag,"
            " document_digest = :document_digest, checked_at = :checked_at, extra = :extra,"
            " absent_serial = CASE WHEN :state = 'quarantined' THEN absent_serial ELSE NULL END,"
            " withdrawn = CASE WHEN wanted_serial > :accepted_serial THEN withdrawn ELSE NULL END,"
            " missing_at = NULL, missing_pass = NULL, behind_tries = 0, behind_since = NULL,"
            " stuck_since = CASE WHEN :stuck IS NULL THEN NULL ELSE coalesce(stuck_since, :checked_at) END,"
            " stuck_tries = CASE WHEN :stuck IS NULL THEN 0 ELSE stuck_tries + 1 END,"
            " hint = CASE WHEN hint_serial > :accepted_serial THEN hint ELSE NULL END WHERE name = :name",
            msgspec.structs.asdict(done),
        )

    def _record_failed(self, failed: Failed) -> None:
        self.connection.execute(
            "UPDATE projects SET state = CASE WHEN wanted_serial > :wanted_serial THEN 'pending' ELSE :state END,"
            " due_at = CASE WHEN wanted_serial > :wanted_serial THEN due_at ELSE :due_at END, attempts = attempts + 1,"
            " behind_tries = (:behind_at IS NOT NULL) + CASE WHEN attempts = 0 THEN 0 ELSE behind_tries END,"
            " behind_since = CASE WHEN attempts > 0 AND behind_since <= coalesce(:behind_at, behind_since)"
            " THEN behind_since ELSE :behind_at END, error = :error,"
            " missing_at = CASE WHEN missing_at <= coalesce(:missing_at, missing_at) THEN missing_at"
            " ELSE :missing_at END,"
            " missing_pass = CASE WHEN missing_at <= coalesce(:missing_at, missing_at) THEN missing_pass"
            " ELSE :missing_pass END WHERE name = :name",
            msgspec.structs.asdict(failed),
        )
