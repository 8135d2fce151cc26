"""The feed read back: from a serial that was stated, from a position, and what of it is there now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.mirror.history import History, NotKept
from heliostat.mirror.segments import write_changes
from heliostat.pages.changes import KEPT, SEGMENT_ROWS
from heliostat.state.changelog import Entry
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Tree


class Writer:
    """A feed that is written to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = Tree(Disk(str(directory)))
        self.tree.prepare()
        self.ledger = Ledger(str(directory / "heliostat.db"))
        self.ledger.put(changes_whole=1)

    def publish(self, serial: int, *projects: str, count: int = 1) -> None:
        """Rows of these projects (``count`` times), after which the mirror is complete up to ``serial``."""
        with self.ledger.transaction():
            self.ledger.changelog.write(
                [Entry(name, serial, "updated", changed=[f"json/{name}"]) for name in projects for _ in range(count)],
                1.0,
            )
            self.ledger.put(cursor=serial)
        write_changes(self.tree, self.ledger)

    @property
    def history(self) -> History:
        return History(str(self.directory))

    def since(self, where: str | int) -> list[str]:
        history = self.history
        return [row.project for row in history.after(history.find(str(where)))]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path)
    yield made
    made.ledger.close()


def test_everything_after_the_head_that_stated_a_serial(writer: Writer) -> None:
    writer.publish(10, "a", "b")
    writer.publish(20, "c")
    writer.publish(20, "repaired")
    writer.publish(30, "d")
    writer.publish(40)
    assert writer.since(10) == ["c", "repaired", "d"]
    assert writer.since(20) == ["repaired", "d"]
    assert writer.since(30) == ["d"], "only rows say what was complete before them: rather too much"
    assert writer.since(40) == []


def test_a_serial_that_no_head_stated_tells_rather_too_much(writer: Writer) -> None:
    writer.publish(10, "a")
    writer.publish(20, "b")
    writer.publish(30, "c")
    assert writer.since(5) == ["a", "b", "c"]
    assert writer.since(15) == ["b", "c"]
    assert writer.since(25) == ["c"]


def test_a_serial_in_the_future_is_none_of_this_mirror(writer: Writer) -> None:
    writer.publish(10, "a")
    with pytest.raises(NotKept, match="up to serial 10 only"):
        writer.since(11)


def test_a_feed_that_began_later_does_not_know_what_was_before(writer: Writer) -> None:
    """As of a mirror that an older version made."""
    writer.ledger.put(changes_whole=None)
    writer.publish(10)
    writer.publish(20, "a")
    assert writer.since(10) == ["a"]
    with pytest.raises(NotKept, match="begins at serial 10"):
        writer.since(9)


def test_positions(writer: Writer) -> None:
    writer.publish(10, "a")
    position = writer.history.position
    writer.publish(20, "b", "c")
    assert writer.since(position) == ["b", "c"]
    assert writer.since(writer.history.position) == []
    for wrong, why in ((f"{'0' * 32}:1", "began anew"), (position.replace(":1", ":9"), "ends at row 3")):
        with pytest.raises(NotKept, match=why):
            writer.since(wrong)


def test_many_segments_and_those_that_went(writer: Writer) -> None:
    for number in range(KEPT + 3):
        writer.publish(number + 1, f"p{number}", count=SEGMENT_ROWS)
    writer.publish(100, "last")
    history = writer.history
    assert history.head.first == 3 * SEGMENT_ROWS + 1
    assert set(writer.since(KEPT + 2)) == {f"p{KEPT + 2}", "last"}
    assert set(writer.since(99)) == {"last"}
    with pytest.raises(NotKept, match=f"begins at serial {3}"):
        writer.since(2)
    with pytest.raises(NotKept, match="begins at row"):
        writer.since(f"{history.head.mirror}:5")
    assert history.old_segments(5) == [f"changes/{n:012d}.jsonl" for n in (1, 10001, 20001)]
    assert history.segments(23 * SEGMENT_ROWS) == [
        "changes/000000220001.jsonl",
        "changes/000000230001.jsonl",
        "changes/head",
    ]


def test_what_lies_behind_the_rows_that_count_is_not_read(writer: Writer) -> None:
    writer.publish(10, "a")
    with (writer.directory / "web/changes/000000000001.jsonl").open("ab") as file:
        file.write(b'{"number":2,"at')
    assert writer.since(0) == ["a"]


def test_paths_there_and_gone(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "web/simple/kept").mkdir()
    (tmp_path / "web/simple/kept/index.html").write_text("")
    (tmp_path / "web/pypi/link").mkdir()
    os.symlink("../../json/nowhere", tmp_path / "web/pypi/link/json")
    paths = [
        "pypi/link/json",
        "simple/gone/index.html",
        "simple/gone/index.v1_html",
        "simple/kept/index.html",
        "simple/kept/x",
    ]
    writer.publish(10, "a")
    history = writer.history
    assert list(history.present(paths)) == ["pypi/link/json", "simple/kept/index.html"]
    assert list(history.missing(paths)) == ["simple/gone", "simple/kept/x"]


def test_a_feed_that_is_not_there_or_damaged(tmp_path: Path, writer: Writer) -> None:
    with pytest.raises(StoreError, match="has this mirror been run yet"):
        History(str(tmp_path))
    writer.publish(10, "a")
    (tmp_path / "web/changes/head").write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"changes/head: .*verify --repair"):
        History(str(tmp_path))
    (tmp_path / "web/changes/head").unlink()
    with pytest.raises(StoreError, match=r"changes/head: not there; heliostat verify --repair"):
        History(str(tmp_path))
    os.mkfifo(tmp_path / "web/changes/head")
    with pytest.raises(StoreError, match="not the head of a change feed"):
        History(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'{"number":2', b"###########", "not a row of a change feed"),
        (b'{"number":2', b'{"number":7', "row 7, where row 2 belongs"),
        (b"\n{", b" {", "not a row of a change feed"),
    ],
)
def test_a_damaged_row(writer: Writer, old: bytes, new: bytes, said: str) -> None:
    writer.publish(10, "a", "b", "c")
    path = writer.directory / "web/changes/000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(StoreError, match=f"{path.name}: {said}.*verify --repair"):
        writer.since(0)


def test_a_segment_that_is_cut_or_not_there(writer: Writer) -> None:
    writer.publish(10, "a", "b", "c")
    path = writer.directory / "web/changes/000000000001.jsonl"
    history, position = writer.history, f"{writer.history.head.mirror}:1"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match="verify --repair"):
        writer.since(position)
    os.truncate(path, 0)
    with pytest.raises(StoreError, match="row 1 is not there"):
        writer.since(9)
    path.unlink()
    with pytest.raises(StoreError, match=f"{path.name}: not there"):
        writer.since(position)
    (writer.directory / "web/changes/head").unlink()
    writer.publish(20, "d")
    path.unlink()
    with pytest.raises(NotKept, match="gone on meanwhile"):
        list(history.after(0))


def test_paths_that_lead_elsewhere_are_left_out(writer: Writer) -> None:
    writer.ledger.changelog.write(
        [Entry("a", 1, "updated", changed=["../../etc/passwd", "/etc/passwd", "json/a"])], 1.0
    )
    write_changes(writer.tree, writer.ledger)
    assert writer.history.paths(writer.history.after(0)) == ["json/a"]
