"""The ledger on a real SQLite file."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import StateError
from heliostat.model import Event, Listed, ProjectName
from heliostat.state.changelog import Change, Entry
from heliostat.state.database import open_readonly, refuse_network_file_system
from heliostat.state.ledger import Ledger
from heliostat.state.root_list import Difference
from heliostat.state.rows import Failed, PathRow, Published, Tombstone


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(str(tmp_path / "heliostat.db"))
    yield made
    made.close()


def everything(_: str) -> bool:
    return True


def event(name: str, serial: int, action: str = "new release", version: str | None = "1.0") -> Event:
    return Event(name, version, 0, action, serial)


def published(name: str, serial: int, wanted: int | None = None) -> Published:
    return Published(
        name=ProjectName(name), display=name, wanted_serial=serial if wanted is None else wanted,
        accepted_serial=serial, page_serial=serial, state="current", files=1, bytes=10, policy="", page_etag='"p"',
        document_etag='"d"', checked_at=5.0, extra=False,
    )  # fmt: skip


def take_list(ledger: Ledger, serial: int, *listed: tuple[str, int | None], everything_again: bool = False) -> None:
    ledger.root_list.begin()
    ledger.root_list.add([Listed(name, number) for name, number in listed], everything)
    ledger.root_list.finish(serial, 1.0, everything=everything_again)


def test_events_fold_to_the_highest_serial_of_each_project_with_the_cursor(ledger: Ledger) -> None:
    owed = ledger.intake.fold_events([event("Foo.Bar", 3), event("foo-bar", 7), event("b", 5)], 7, 1.0, everything)
    assert owed == 3
    assert ledger.cursor == 7
    row = ledger.row("foo-bar")
    assert row is not None
    assert (row.wanted_serial, row.owed_serial, row.why, row.state) == (7, 3, "new", "pending")
    assert [due.name for due in ledger.due(2.0, (-1, ""), 10)] == ["b", "foo-bar"]


def test_the_checkpoint_is_just_below_the_oldest_serial_owed(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("a", 3), event("b", 5), event("a", 9)], 9, 1.0, everything)
    assert ledger.checkpoint() == 2
    ledger.record([published("a", 9)])
    assert ledger.checkpoint() == 4
    ledger.record([Failed(name=ProjectName("b"), wanted_serial=5, state="failing", error="x", due_at=99.0)])
    assert ledger.checkpoint() == 4
    ledger.record([Failed(name=ProjectName("b"), wanted_serial=5, state="blocked", error="x", due_at=None)])
    assert ledger.checkpoint() == 9


def test_a_change_announced_while_a_try_ran_keeps_the_row_owed(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("a", 3)], 3, 1.0, everything)
    ledger.intake.fold_events([event("a", 8)], 8, 1.0, everything)
    ledger.record([published("a", 5, wanted=3)])
    row = ledger.row("a")
    assert row is not None
    assert (row.state, row.owed_serial, row.accepted_serial, row.due_at) == ("pending", 8, 5, 1.0)


def test_rereading_the_feed_owes_nothing_again(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("a", 3)], 3, 1.0, everything)
    ledger.record([published("a", 3)])
    assert ledger.intake.fold_events([event("a", 3)], 3, 2.0, everything) == 0
    assert ledger.count_due(9.0) == 0


def test_a_late_row_below_the_cursor_is_still_taken(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("a", 10)], 10, 1.0, everything)
    assert ledger.intake.fold_events([event("late", 8)], 10, 1.0, everything) == 1
    assert ledger.cursor == 10


@pytest.mark.parametrize(
    ("action", "version", "hint"),
    [
        ("remove project", None, "removed"),
        ("remove", None, "removed"),
        ("remove", "1.0", None),
        ("nuke user", None, "removed"),
        ("project quarantined", None, None),
        ("something new", None, None),
    ],
)
def test_hints(ledger: Ledger, action: str, version: str | None, hint: str | None) -> None:
    ledger.intake.fold_events([event("a", 3, action, version)], 3, 1.0, everything)
    row = ledger.row("a")
    assert row is not None
    assert row.hint == hint


def test_releases_in_quarantine_are_kept_in_mind(ledger: Ledger) -> None:
    def fold(serial: int, action: str, version: str | None) -> frozenset[str]:
        ledger.intake.fold_events([event("a", serial, action, version)], serial, 1.0, everything)
        row = ledger.row("a")
        assert row is not None
        return row.releases_in_quarantine

    assert fold(3, "release quarantined", "1.0") == {"1.0"}
    assert fold(4, "release quarantined", "2.0") == {"1.0", "2.0"}
    assert fold(5, "add py3 file a-3.0.whl", "3.0") == {"1.0", "2.0"}
    assert fold(6, "release quarantine cleared", "1.0") == {"2.0"}
    assert fold(7, "remove release", "2.0") == frozenset()
    assert fold(8, "release quarantined", "3.0") == {"3.0"}
    assert fold(9, "remove project", None) == frozenset()


def test_a_later_event_takes_the_hint_away(ledger: Ledger) -> None:
    ledger.intake.fold_events(
        [event("a", 3, "remove project", None), event("a", 4, "create", None)], 4, 1.0, everything
    )
    row = ledger.row("a")
    assert row is not None
    assert row.hint is None


def test_events_outside_the_scope_move_only_the_cursor(ledger: Ledger) -> None:
    assert ledger.intake.fold_events([event("a", 3)], 3, 1.0, lambda name: name == "b") == 0
    assert ledger.cursor == 3
    assert ledger.row("a") is None


def test_names_that_cannot_be_paths_are_blocked_and_never_due(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("x" * 280, 3), event("../etc", 4)], 4, 1.0, everything)
    assert ledger.states() == {"current": 0, "blocked": 2}
    assert ledger.count_due(9.0) == 0
    assert ledger.checkpoint() == 4


def test_a_list_finds_what_is_new_changed_and_absent(ledger: Ledger) -> None:
    take_list(ledger, 10, ("a", 3), ("b", 5), ("c", 10))
    ledger.record([published("a", 3), published("b", 5), published("c", 10)])
    assert ledger.checkpoint() == 10
    ledger.root_list.begin()
    ledger.root_list.add([Listed("a", 3), Listed("B", 12), Listed("d", 11)], everything)
    difference = ledger.root_list.finish(12, 2.0, everything=False)
    assert (difference.listed, difference.new, difference.changed, difference.absent) == (3, 1, 1, 1)
    absent = ledger.row("c")
    assert absent is not None
    assert (absent.absent_serial, absent.why, absent.state) == (12, "removal", "current")
    assert {row.name for row in ledger.due(3.0, (-1, ""), 10)} == {"b", "c", "d"}


def test_a_list_older_than_a_row_is_no_sign_of_its_absence(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("fresh", 20)], 20, 1.0, everything)
    ledger.record([published("fresh", 20)])
    take_list(ledger, 15, ("a", 3))
    row = ledger.row("fresh")
    assert row is not None
    assert row.absent_serial is None
    assert ledger.cursor == 20


def test_a_removed_project_comes_back_when_a_newer_list_has_it(ledger: Ledger) -> None:
    take_list(ledger, 10, ("a", 3))
    ledger.record([published("a", 3)])
    ledger.forget("a", state="gone", serial=10, tombstones=[Tombstone(1.0, "a", None, 10, "gone")])
    take_list(ledger, 10, ("a", 3))
    assert ledger.count_due(9.0) == 0
    take_list(ledger, 11, ("a", 3))
    assert ledger.count_due(9.0) == 1


def test_a_list_without_serials_makes_everything_owed(ledger: Ledger) -> None:
    take_list(ledger, 0, ("a", None), ("b", None))
    ledger.record([published("a", 0), published("b", 0)])
    take_list(ledger, 0, ("a", None), ("b", None))
    assert ledger.count_due(9.0) == 2


def test_the_root_is_marked_only_for_what_it_shows(ledger: Ledger) -> None:
    ledger.intake.fold_events([event("a", 3)], 3, 1.0, everything)
    ledger.record([published("a", 3)])
    assert (ledger.get("root_html_dirty"), ledger.root_changed(9)) == (1, [])
    ledger.root_written(3, 1.0, {"json": "this one"})
    assert (ledger.get("root_html_dirty"), ledger.get("root_json_file")) == (None, "this one")
    ledger.record([published("a", 3)])
    assert ledger.root_changed(9) == []
    ledger.record([published("a", 4)])
    assert ledger.root_changed(9) == [("a", False)]
    ledger.intake.fold_events([event("b", 5)], 5, 1.0, everything)
    ledger.record([published("b", 5)])
    ledger.forget("a", state="gone", serial=6, tombstones=[])
    assert ledger.root_changed(9) == [("a", True), ("b", True)]
    assert ledger.root_entries(["a", "b"]) == {"b": ("b", "b", 5)}


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    def half_done() -> None:
        with ledger.transaction():
            ledger.put(cursor=5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_done()
    assert ledger.cursor == 0


def test_paths_with_an_open_fate(ledger: Ledger) -> None:
    with ledger.transaction():
        ledger.paths.add([PathRow("web/x", "a", "doomed", "unlink", 3), PathRow("web/x", "b", "claimed")])
    assert ledger.paths.owners("web/x", "web/x", ["nobody"]) == {"b"}
    assert [row.path for row in ledger.paths.of_kind("doomed")] == ["web/x"]
    with ledger.transaction():
        ledger.paths.clear([PathRow("web/x", "a", "doomed")])
    assert ledger.paths.of_kind("doomed") == []


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = str(tmp_path / "heliostat.db")
    first = Ledger(path)
    first.intake.fold_events([event("a", 3)], 3, 1.0, everything)
    second = Ledger(path)
    assert second.cursor == 3
    first.close()
    second.close()


def test_a_newer_database_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "heliostat.db"
    Ledger(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match=r"newer heliostat.*rebuild"):
        Ledger(str(path))


def test_a_damaged_database_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "heliostat.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 40)
    with pytest.raises(StateError, match="rebuild"):
        Ledger(str(path))


def test_reading_needs_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has this mirror been run"):
        open_readonly(str(tmp_path / "heliostat.db"))


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    with pytest.raises(StateError, match=r"\[mirror\] state"):
        refuse_network_file_system(str(tmp_path / "state"), str(mounts))
    refuse_network_file_system("/somewhere/else", str(mounts))


def test_mounts_with_any_name(tmp_path: Path) -> None:
    """The kernel escapes spaces and backslashes only; what else a name holds need not even be text."""
    mounts = tmp_path / "mounts"
    point = os.fsencode(tmp_path).replace(b" ", rb"\040") + b"/\xc3\xbc\\040b\\134"
    mounts.write_bytes(b"/dev/a / ext4 rw 0 0\n/dev/b /mnt/\xff xfs rw 0 0\nserver:/x " + point + b" nfs4 rw 0 0\n")
    with pytest.raises(StateError, match="nfs4"):
        refuse_network_file_system(f"{tmp_path}/ü b\\/state", str(mounts))
    refuse_network_file_system(f"{tmp_path}/ü", str(mounts))


def counted(ledger: Ledger) -> tuple[int, int, int]:
    """What :meth:`Ledger.totals` must say, by looking at every row."""
    found: tuple[int, int, int] = ledger.connection.execute(
        "SELECT count(*), coalesce(sum(files), 0), coalesce(sum(bytes), 0) FROM projects WHERE published = 1"
    ).fetchone()
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from(("publish", "quarantine", "fail", "forget", "drop", "rebuild"))
        ),
        max_size=30,
    )
)
def test_totals_are_those_of_the_rows_whatever_is_done(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"{folder}/heliostat.db")
        ledger.connection.execute("PRAGMA synchronous = OFF")
        for serial, (name, step) in enumerate(steps, 1):
            if step in ("publish", "quarantine"):
                ledger.intake.fold_events([event(name, serial)], serial, 1.0, everything)
                state: Literal["current", "quarantined"] = "current" if step == "publish" else "quarantined"
                change = {"files": serial, "bytes": 7 * serial, "state": state}
                ledger.record([msgspec.structs.replace(published(name, serial), **change)])
            elif step == "fail":
                failed = Failed(name=ProjectName(name), wanted_serial=serial, state="failing", error="x", due_at=9.0)
                ledger.record([failed])
            elif step == "forget":
                ledger.forget(name, state="gone", serial=serial, tombstones=[])
            elif step == "drop":
                ledger.drop_unknown(name)
            else:
                row = {"name": name, "display": name, "published": 1, "files": 3, "bytes": 5}
                ledger.insert_rebuilt([row, row | {"files": 4}])
            assert ledger.totals() == counted(ledger)
        assert ledger.published_count() == counted(ledger)[0]
        assert sum(ledger.owed_by_state().values()) == sum(
            count for state, count in ledger.states().items() if state in ("pending", "failing", "blocked", "held")
        )
        ledger.begin_rebuild()
        assert ledger.totals() == (0, 0, 0)
        ledger.close()


def without_columns(ledger: Ledger, *columns: str) -> None:
    """The projects' table as it was before it had these (SQLite drops no column that comments stand around)."""
    connection = ledger.connection
    statements = [
        re.sub(r"--.*", "", sql)
        for (sql,) in connection.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'projects' AND sql IS NOT NULL ORDER BY type = 'index'"
        ).fetchall()
    ]
    kept = [row[1] for row in connection.execute("PRAGMA table_info(projects)").fetchall() if row[1] not in columns]
    connection.execute(f"CREATE TEMP TABLE kept AS SELECT {', '.join(kept)} FROM projects")
    connection.execute("DROP TABLE projects")
    for statement in statements:
        if not any(column in statement for column in columns) or statement.startswith("CREATE TABLE"):
            connection.execute(re.sub(rf",\s*({'|'.join(columns)}) [^,)]*", "", statement))
    connection.execute(f"INSERT INTO projects ({', '.join(kept)}) SELECT * FROM temp.kept")


def without_digests(ledger: Ledger) -> None:
    """As it was before version 5."""
    ledger.connection.execute("ALTER TABLE projects DROP COLUMN document_digest")


def without_removals(ledger: Ledger) -> None:
    """As it was before version 4."""
    without_digests(ledger)
    for statement in (
        *(f"DROP TABLE {table}" for table in ("denied", "retained", "kept")),
        "DROP INDEX paths_at",
        "ALTER TABLE paths DROP COLUMN at",
        "ALTER TABLE tombstones DROP COLUMN version",
        "ALTER TABLE tombstones DROP COLUMN what",
    ):
        ledger.connection.execute(statement)


def test_a_ledger_of_version_4_does_not_know_which_documents_were_published(tmp_path: Path) -> None:
    path = str(tmp_path / "heliostat.db")
    made = Ledger(path)
    made.intake.fold_events([event("a", 3)], 4, 1.0, everything)
    made.record([published("a", 3)])
    without_digests(made)
    made.connection.execute("PRAGMA user_version = 4")
    made.close()
    newer = Ledger(path)
    assert newer.connection.execute("SELECT name, document_digest FROM projects").fetchall() == [("a", None)]
    newer.close()


def test_an_older_ledger_is_brought_up_to_date_when_it_is_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "heliostat.db")
    made = Ledger(path)
    made.intake.fold_events([event("a", 3), event("b", 4)], 4, 1.0, everything)
    made.record([published("a", 3)])
    made.connection.execute("DROP TABLE root_changed")
    made.connection.execute("DROP TABLE totals")
    for trigger in ("new", "old", "changed"):
        made.connection.execute(f"DROP TRIGGER totals_of_{trigger}")
    for table in ("incoming", "changelog", "changing"):
        made.connection.execute(f"DROP TABLE {table}")
    without_removals(made)
    without_columns(made, "withdrawn", "behind_tries", "behind_since", "stuck_since", "stuck_tries")
    for path_of_b in ("web/packages/1", "web/packages/2"):
        made.connection.execute("INSERT INTO paths (path, project, kind) VALUES (?, 'b', 'incoming')", (path_of_b,))
    made.put(root_html_dirty=None, root_json_dirty=None)
    made.connection.execute("PRAGMA user_version = 1")
    made.close()
    with pytest.raises(StateError, match="older heliostat"):
        open_readonly(path)
    newer = Ledger(path)
    assert newer.paths.incoming("b") == {"web/packages/1", "web/packages/2"}
    assert newer.paths.all_of_project("b") == []
    assert newer.totals() == (1, 1, 10)
    assert (newer.cursor, newer.get("root_json_dirty")) == (4, 1)
    newer.record([published("b", 4)])
    assert newer.totals() == (2, 2, 20)
    newer.changelog.write([Entry("b", 4, "added")], 1.0)
    assert newer.changelog.last == 1
    newer.close()
    open_readonly(path).close()


def test_a_ledger_of_the_version_before_gets_a_changelog(tmp_path: Path) -> None:
    path = str(tmp_path / "heliostat.db")
    made = Ledger(path)
    made.intake.fold_events([event("a", 3)], 4, 1.0, everything)
    made.record([published("a", 3)])
    without_removals(made)
    for table in ("changelog", "changing"):
        made.connection.execute(f"DROP TABLE {table}")
    made.connection.execute("PRAGMA user_version = 2")
    made.close()
    newer = Ledger(path)
    assert (newer.changelog.last, newer.changelog.first, newer.totals()) == (0, 1, (1, 1, 10))
    with newer.transaction():
        newer.changelog.write([Entry("a", 3, "updated", changed=["json/a"])], 7.0)
    assert newer.changelog.after(0, 9) == [Change(1, 7.0, 3, "a", "updated", changed=["json/a"])]
    newer.close()


def test_a_ledger_of_version_3_learns_what_became_of_what_was_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "heliostat.db")
    made = Ledger(path)
    made.record([], [Tombstone(5.0, "a", None, 3, "removed upstream")])
    made.connection.execute(
        "INSERT INTO paths (path, project, kind, fate) VALUES ('web/x', 'a', 'withheld', 'withhold')"
    )
    without_removals(made)
    made.connection.execute("PRAGMA user_version = 3")
    made.close()
    newer = Ledger(path)
    assert newer.tombstones() == [Tombstone(5.0, "a", None, 3, "removed upstream")]
    assert newer.paths.of_kind("withheld") == [PathRow("web/x", "a", "withheld", "withhold")]
    assert (newer.denied(), newer.paths.kept_before(9e9, 10)) == ([], [])
    newer.close()


def test_a_ledger_that_is_only_read_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "heliostat.db"
    made = Ledger(str(path))
    made.intake.fold_events([event("a", 3)], 3, 1.0, everything)
    made.close()
    before = (sorted(os.listdir(tmp_path)), path.stat())
    again = Ledger(str(path))
    assert again.facts()["cursor"] == again.cursor == 3
    assert (again.count_due(2.0), again.checkpoint()) == (1, 2)
    assert again.states() == {"current": 0, "pending": 1}
    again.schedule.hasten(2.0)
    assert (sorted(os.listdir(tmp_path)), path.stat()) == before
    again.put(cursor=4)
    assert os.path.exists(f"{path}-wal")
    again.record([published("a", 4)])
    assert again.published_count() == 1
    again.close()
    assert Ledger(str(path)).cursor == 4


@pytest.mark.parametrize("very_many", [1, 10**6])
@given(
    known=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 20)),
    listed=st.dictionaries(st.sampled_from("ABCDEFGH"), st.none() | st.integers(1, 30)),
)
def test_a_list_makes_owed_exactly_what_is_new_changed_or_absent(
    very_many: int, known: dict[str, int], listed: dict[str, int | None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"{folder}/heliostat.db")
        ledger.connection.execute("PRAGMA synchronous = OFF")
        ledger.root_list.very_many = very_many
        ledger.intake.fold_events([event(name, serial) for name, serial in known.items()], 20, 1.0, everything)
        ledger.record([published(name, serial) for name, serial in known.items()])
        ledger.root_list.begin()
        ledger.root_list.add([Listed(name, serial) for name, serial in listed.items()], everything)
        difference = ledger.root_list.finish(30, 2.0, everything=False)
        new = {name.lower() for name in listed} - known.keys()
        changed = {
            name.lower()
            for name, serial in listed.items()
            if name.lower() in known and (serial is None or serial > known[name.lower()])
        }
        absent = known.keys() - {name.lower() for name in listed}
        assert difference == Difference(len(listed), len(new), len(changed), len(absent))
        assert {row.name for row in ledger.due(3.0, (-1, ""), 99)} == new | changed | absent
        for row in ledger.due(3.0, (-1, ""), 99):
            assert row.absent_serial == (30 if row.name in absent else None)
            assert row.display == (row.name if row.name in absent else row.name.upper())
        assert ledger.connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE name = 'projects_owed'"
        ).fetchone() == (1,)
        ledger.close()
