"""The static change feed on disk: what is appended, what is never touched again, what begins anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliostat.mirror.segments import write_changes
from heliostat.pages.changes import KEPT, SEGMENT_ROWS, Head, parse_head, segment_name
from heliostat.state.changelog import Entry
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Tree
from support.change_feed import Feed
from support.mirrors import Found, listing, rewritten


class Mirror:
    """A tree and a ledger, without anything that is mirrored."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tree = Tree(Disk(str(directory)))
        self.tree.prepare()
        self.ledger = Ledger(str(directory / "heliostat.db"))
        self._serial = 0

    def record(self, count: int) -> None:
        """So many rows, of as many serials, all of which are complete."""
        with self.ledger.transaction():
            self.ledger.changelog.write(
                [Entry(f"p{n}", self._serial + n, "updated", changed=[f"json/p{n}"]) for n in range(1, count + 1)], 1.5
            )
            self._serial += count
            self.ledger.put(cursor=self._serial)

    def write(self) -> bool:
        return write_changes(self.tree, self.ledger)

    def feed(self) -> Feed:
        folder = self.directory / "web/changes"
        feed = Feed(
            lambda path: (
                (self.directory / "web" / path).read_bytes() if (self.directory / "web" / path).exists() else None
            ),
            os.listdir(folder),
        )
        assert feed.problems == []
        return feed

    def head(self) -> Head:
        return parse_head((self.directory / "web/changes/head").read_bytes(), url="head")

    def files(self) -> dict[str, Found]:
        return listing(self.directory / "web/changes")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    made = Mirror(tmp_path)
    yield made
    made.ledger.close()


def test_an_empty_mirror_has_a_head_that_says_so_and_is_written_once(mirror: Mirror) -> None:
    assert mirror.write()
    head = mirror.head()
    assert (head.number, head.first, head.size, head.serial) == (0, 1, 0, 0)
    before = mirror.files()
    assert not mirror.write()
    assert mirror.files() == before


def test_rows_are_appended_in_place_and_the_head_is_small(mirror: Mirror) -> None:
    mirror.record(3)
    mirror.write()
    first, before = mirror.head(), mirror.files()
    mirror.record(2)
    mirror.write()
    second, after = mirror.head(), mirror.files()
    name = "000000000001.jsonl"
    assert (second.number, second.serial, second.mirror, second.segment) == (5, 5, first.mirror, name)
    assert after[name].inode == before[name].inode
    assert after["head"].mtime_ns // 10**9 > before["head"].mtime_ns // 10**9
    assert after["head"].size < 1024
    assert [row.number for row in mirror.feed().rows] == [1, 2, 3, 4, 5]


def test_a_serial_that_moves_alone_touches_the_head_alone(mirror: Mirror) -> None:
    mirror.record(3)
    mirror.write()
    before = mirror.files()
    mirror.ledger.put(cursor=9)
    assert mirror.write()
    assert rewritten(before, mirror.files()) == {"head"}
    assert mirror.head().serial == 9


def test_a_full_segment_is_never_touched_again(mirror: Mirror) -> None:
    mirror.record(SEGMENT_ROWS)
    mirror.write()
    assert mirror.head().segment == "000000000001.jsonl"
    full = mirror.files()["000000000001.jsonl"]
    mirror.record(2 * SEGMENT_ROWS + 1)
    mirror.write()
    assert mirror.files()["000000000001.jsonl"] == full
    assert sorted(mirror.files()) == [*(f"{n:012d}.jsonl" for n in (1, 10001, 20001, 30001)), "head"]
    assert len(mirror.feed().rows) == 3 * SEGMENT_ROWS + 1
    assert mirror.ledger.changelog.first == 2 * SEGMENT_ROWS + 1, "one full segment stays in the ledger"


def test_old_segments_go_and_the_head_says_so_first(mirror: Mirror) -> None:
    for _ in range(KEPT + 3):
        mirror.record(SEGMENT_ROWS)
        mirror.write()
    mirror.record(1)
    mirror.write()
    assert mirror.head().first == 3 * SEGMENT_ROWS + 1
    assert len(mirror.files()) == KEPT + 2
    assert mirror.feed().rows[0].number == 3 * SEGMENT_ROWS + 1


@pytest.mark.parametrize("tail", [b'{"number":4,"at":1', b"x" * 5_000_000])
def test_what_a_kill_left_behind_the_rows_that_count_is_cut_off(mirror: Mirror, tail: bytes) -> None:
    mirror.record(3)
    mirror.write()
    with open(mirror.directory / "web/changes/000000000001.jsonl", "ab") as file:
        file.write(tail)
    identity = mirror.head().mirror
    mirror.record(2)
    mirror.write()
    assert [row.number for row in mirror.feed().rows] == [1, 2, 3, 4, 5]
    assert mirror.head().mirror == identity
    assert not os.listdir(mirror.directory / "partial")


def test_a_segment_that_was_begun_before_its_head_is_begun_again(mirror: Mirror) -> None:
    mirror.record(SEGMENT_ROWS)
    mirror.write()
    (mirror.directory / "web/changes/000000010001.jsonl").write_bytes(b"torn")
    mirror.record(1)
    mirror.write()
    assert len(mirror.feed().rows) == SEGMENT_ROWS + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: (m.directory / "web/changes/head").write_bytes(b"nonsense"),
        lambda m: (m.directory / "web/changes/head").unlink(),
        lambda m: (m.directory / "web/changes/000000000001.jsonl").write_bytes(b"short"),
        lambda m: m.ledger.connection.execute("DELETE FROM changelog WHERE number > 2"),
        lambda m: m.ledger.restart(),
    ],
    ids=["head damaged", "head gone", "segment damaged", "ledger older", "another upstream"],
)
def test_what_contradicts_the_ledger_begins_anew_under_another_identity(mirror: Mirror, damage: object) -> None:
    mirror.record(4)
    mirror.write()
    before = mirror.head()
    assert callable(damage)
    damage(mirror)
    mirror.write()
    mirror.record(1)
    mirror.write()
    after = mirror.head()
    assert after.mirror != before.mirror
    assert [row.number for row in mirror.feed().rows] == list(range(after.first, after.number + 1))


def test_a_feed_that_begins_anew_leaves_no_old_segment(mirror: Mirror) -> None:
    mirror.record(2 * SEGMENT_ROWS + 5)
    mirror.write()
    mirror.ledger.put(changes_id=None)
    mirror.write()
    assert mirror.head().first == SEGMENT_ROWS + 1
    assert sorted(mirror.files()) == ["000000010001.jsonl", "000000020001.jsonl", "head"]
    assert len(mirror.feed().rows) == SEGMENT_ROWS + 5


def test_the_serial_never_goes_back_under_one_identity(mirror: Mirror) -> None:
    mirror.record(4)
    mirror.write()
    mirror.ledger.put(cursor=2)
    mirror.record(0)
    mirror.ledger.put(cursor=2)
    mirror.write()
    assert mirror.head().serial == 4


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
@pytest.mark.parametrize("name", ["head", segment_name(1), "zzz", "000000000000.jsonl"])
def test_what_lies_where_the_feed_belongs_holds_nothing_up(
    mirror: Mirror, name: str, make: Callable[[Path], object]
) -> None:
    mirror.record(3)
    mirror.write()
    place = mirror.directory / "web/changes" / name
    place.unlink(missing_ok=True)
    make(place)
    if place.is_dir():
        (place / "kept").write_text("somebody's")
    mirror.record(2)
    assert mirror.write()
    folder = mirror.directory / "web/changes"
    feed = Feed(lambda path: (mirror.directory / "web" / path).read_bytes(), {"head", segment_name(1)})
    assert feed.problems == []
    assert len(feed.rows) == 5
    assert (folder / "head").is_file()
