"""Damage of the static change feed is found; --repair mends segments from the ledger, or begins the feed anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.mirror.history import History, NotKept
from heliostat.mirror.mending import mend_changes
from heliostat.mirror.segments import write_changes
from heliostat.mirror.verify.feed import check_feed
from heliostat.mirror.verify.ground import bare_ground
from heliostat.mirror.verify.reading import Budget
from heliostat.pages.changes import KEPT, SEGMENT_ROWS, segment_name
from heliostat.state.changelog import Entry
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk
from heliostat.store.tree import Tree
from support.change_feed import Feed
from support.mirrored import sample_index
from support.mirrors import Followed, following, listing
from support.scrubbed import scrubbed
from support.verified import verify

SEGMENT = "000000000001.jsonl"


def over(path: Path, old: bytes, new: bytes) -> None:
    """Other bytes in its first place, and nothing else."""
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new, 1))


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


HEAD = "head"


def of_another(folder: Path) -> None:
    """The head of a feed with another identity."""
    body = (folder / HEAD).read_bytes()
    start = body.index(b'"mirror":"') + 10
    (folder / HEAD).write_bytes(body[:start] + b"0" * 32 + body[start + 32 :])


#: What is done in ``web/changes``; what of it is wrong where there is a ledger, and on a bare web root.
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "the head is gone": (lambda folder: (folder / HEAD).unlink(), HEAD, HEAD),
    "the head is cut": (lambda folder: os.truncate(folder / HEAD, 40), HEAD, HEAD),
    "the head contradicts itself": (lambda folder: over(folder / HEAD, b'"first":1', b'"first":9999'), HEAD, HEAD),
    "the head counts too far": (lambda folder: over(folder / HEAD, b'"number":', b'"number":1'), HEAD, SEGMENT),
    "the head is another feed's": (of_another, HEAD, None),
    "the head is a pipe": (lambda folder: instead(folder / HEAD, os.mkfifo), HEAD, HEAD),
    "a segment is gone": (lambda folder: (folder / SEGMENT).unlink(), SEGMENT, SEGMENT),
    "a segment is cut": (lambda folder: os.truncate(folder / SEGMENT, 300), SEGMENT, SEGMENT),
    "a segment is a directory": (lambda folder: instead(folder / SEGMENT, Path.mkdir), SEGMENT, SEGMENT),
    "a segment is a link": (
        lambda folder: instead(folder / SEGMENT, lambda path: path.symlink_to(HEAD)), SEGMENT, SEGMENT,
    ),
    "bytes are written over a row": (
        lambda folder: over(folder / SEGMENT, b'{"number":2', b"###########"), SEGMENT, SEGMENT,
    ),
    "a row is another one": (lambda folder: over(folder / SEGMENT, b'"number":2,', b'"number":7,'), SEGMENT, SEGMENT),
    "two rows are one line": (lambda folder: over(folder / SEGMENT, b"}\n", b"} "), SEGMENT, SEGMENT),
    "a row names another project": (
        lambda folder: over(folder / SEGMENT, b'"project":"beta"', b'"project":"bets"'), SEGMENT, None,
    ),
    "a row names another path": (lambda folder: over(folder / SEGMENT, b"packages/", b"packagez/"), SEGMENT, None),
}  # fmt: skip


def feed_of(one: Followed) -> Feed:
    folder = one.web / "changes"
    return Feed(lambda path: (one.web / path).read_bytes(), os.listdir(folder))


@pytest.mark.parametrize(("do", "name", "bare"), DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_feed_is_found_and_repaired(
    do: Callable[[Path], object], name: str, bare: str | None, tmp_path: Path
) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        await one.sync()
        position, rows = History(str(one.directory)).position, feed_of(one).rows
        size = History(str(one.directory)).head.size
        assert (await verify(one.config))[0].findings == (await verify(one.web))[0].findings == []
        before = listing(one.web, without={"changes/head", f"changes/{SEGMENT}"})
        do(one.web / "changes")

        seen, _ = await verify(one.config)
        assert seen.kinds == {("feed", f"changes/{name}")}
        assert (await verify(one.web))[0].kinds == ({("feed", f"changes/{bare}")} if bare else set())
        assert (await verify(one.config, projects=("beta",)))[0].findings == []

        seen, repaired = await verify(one.config, repair={"fix": True})
        assert repaired is not None
        assert repaired.left == 0
        assert (await verify(one.config))[0].findings == (await verify(one.web))[0].findings == []
        feed = feed_of(one)
        assert feed.problems == []
        assert [row.project for row in feed.rows] == [row.project for row in rows]
        history = History(str(one.directory))
        if name == HEAD:
            assert "begins anew" in repaired.notes[0]
            with pytest.raises(NotKept):
                history.find(position)
        else:
            assert repaired.notes == []
            assert list(history.after(history.find(position))) == []
            assert (one.web / f"changes/{SEGMENT}").stat().st_size == history.head.size == size
        assert listing(one.web, without={"changes/head", f"changes/{SEGMENT}"}) == before
        assert not [path for path in listing(one.directory) if path.startswith("withheld/")]


async def test_a_quick_look_sees_the_head_and_sizes(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        await one.sync()
        os.truncate(one.web / f"changes/{SEGMENT}", 300)
        assert (await verify(one.config, quick=True))[0].kinds == {("feed", f"changes/{SEGMENT}")}


async def test_a_tree_without_a_feed_needs_none(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        await one.sync()
        shutil.rmtree(one.web / "changes")
        assert (await verify(one.web))[0].findings == []
        assert (await verify(one.config))[0].kinds == {("feed", "changes/head")}


async def test_what_lies_behind_the_bytes_that_count_does_not(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        await one.sync()
        with (one.web / f"changes/{SEGMENT}").open("ab") as file:
            file.write(b'{"number":')
        assert (await verify(one.config))[0].findings == (await verify(one.web))[0].findings == []


async def test_the_scrub_finds_and_repairs_it(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "mirror") as one:
        await one.sync()
        async with scrubbed(one) as scrub:
            await scrub.running.passes(1)
            over(one.web / f"changes/{SEGMENT}", b'{"number":2', b"###########")
            await scrub.rounds(2)
            await scrub.running.until(lambda: scrub.figures.repaired and not scrub.figures.unrepaired)
            assert scrub.figures.found["feed"] == 1
        assert (await verify(one.config))[0].findings == []
        assert feed_of(one).problems == []


def test_full_segments_and_what_the_ledger_has_forgotten(tmp_path: Path) -> None:
    tree = Tree(Disk(str(tmp_path)))
    tree.prepare()
    (tmp_path / "web/simple").mkdir(exist_ok=True)
    ledger = Ledger(str(tmp_path / "heliostat.db"))
    for serial in range(1, KEPT + 4):
        with ledger.transaction():
            ledger.changelog.write([Entry("p", serial, "updated", changed=["json/p"])] * SEGMENT_ROWS, 1.5)
            ledger.put(cursor=serial)
        write_changes(tree, ledger)
    assert ledger.changelog.first > SEGMENT_ROWS * KEPT
    ground = bare_ground(str(tmp_path / "web"), Budget())
    assert check_feed(ground, 0.0) == []
    old, newest = (tmp_path / "web/changes" / segment_name(SEGMENT_ROWS * many + 1) for many in (5, KEPT + 2))
    over(old, b'"number":50003', b'"number":####')
    assert [one.path for one in check_feed(ground, 0.0)] == [f"web/changes/{old.name}"]
    assert not mend_changes(tree, ledger, [old.name]), "the ledger does not know these rows any more"
    old.unlink()
    over(newest, b'{"number":220005', b'{"Number":220005')
    assert [one.path for one in check_feed(ground, 0.0)] == [f"web/changes/{one.name}" for one in (old, newest)]
    whole = newest.read_bytes().replace(b"Number", b"number")
    head = (tmp_path / "web/changes/head").read_bytes()
    assert mend_changes(tree, ledger, [newest.name])
    assert newest.read_bytes() == whole
    os.truncate(newest, len(whole) // 3)
    assert mend_changes(tree, ledger, [newest.name])
    assert newest.read_bytes() == whole
    first, _, rest = whole.partition(b"\n")
    newest.write_bytes(b"#" * len(first) + b"\n" + rest)
    assert mend_changes(tree, ledger, [newest.name])
    assert json.loads(newest.read_bytes().partition(b"\n")[0])["complete"] == KEPT + 3
    newest.write_bytes(first + b"\n" + b"more between two rows\n" + rest)
    assert not mend_changes(tree, ledger, [newest.name])
    newest.write_bytes(whole)
    assert [one.path for one in check_feed(ground, 0.0)] == [f"web/changes/{old.name}"]
    assert (tmp_path / "web/changes/head").read_bytes() == head
    assert not os.listdir(tmp_path / "partial")
    ledger.close()


def test_rows_that_were_lost_are_told_rather_too_often(tmp_path: Path) -> None:
    """What was complete before a row the ledger does not know: who asks by serial gets more, never less."""
    tree = Tree(Disk(str(tmp_path)))
    tree.prepare()
    ledger = Ledger(str(tmp_path / "heliostat.db"))
    ledger.put(changes_whole=1)
    for serial in range(10, 60, 10):
        with ledger.transaction():
            ledger.changelog.write([Entry(f"p{serial}", serial, "updated", changed=["json/p"])], 1.5)
            ledger.put(cursor=serial)
        write_changes(tree, ledger)
    path = tmp_path / "web/changes" / SEGMENT
    whole, told = path.read_bytes(), {}
    for since in range(0, 51, 5):
        history = History(str(tmp_path))
        told[since] = {row.project for row in history.after(history.find(str(since)))}
    lines = whole.splitlines(keepends=True)
    for lost in range(len(lines)):
        damaged = [b"#" * (len(line) - 1) + b"\n" if number == lost else line for number, line in enumerate(lines)]
        path.write_bytes(b"".join(damaged))
        assert mend_changes(tree, ledger, [SEGMENT])
        assert path.stat().st_size == len(whole)
        for since, before in told.items():
            history = History(str(tmp_path))
            assert before <= {row.project for row in history.after(history.find(str(since)))}
    ledger.close()
