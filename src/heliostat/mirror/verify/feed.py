"""The static change feed: its head, its segments, and the ledger tell one story.

A mirror may be writing it meanwhile: rows come before the head that counts them, so what the head counts is to be right
at any instant; only what is wrong twice, under one head, is wrong.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from heliostat.errors import Invalid
from heliostat.mirror.verify.findings import Finding, finding
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.reading import Odd, Stopping
from heliostat.pages.changes import (
    FOLDER,
    HEAD,
    MOST_HEAD,
    MOST_ROW,
    SEGMENT_ROWS,
    Change,
    Head,
    parse_head,
    parse_row,
    segment_name,
    segment_start,
)
from heliostat.state.changelog import Changelog

_HEAD = f"{FOLDER}/{HEAD}".removeprefix("web/").encode()
_PIECE = 1 << 18
#: Rows of the ledger in memory at once; they may name many paths each.
_ROWS = 200
#: Looks at a feed that goes on changing.
_MOST_LOOKS = 12


def check_feed(ground: Ground, pause: float, *, quick: bool = False) -> list[Finding]:
    """What is wrong with the feed, if the tree has one, after ``pause`` seconds too.

    ``quick`` looks at the head and at sizes only.  Raises Stopping, StateError.
    """
    before, head = _look(ground, quick=quick)
    for _ in range(_MOST_LOOKS):
        if not before:
            return []
        if ground.reader.budget.stop.wait(pause):
            raise Stopping
        again, later = _look(ground, quick=quick)
        if later == head and again == before:
            break
        before, head = again, later
    return before


def _look(ground: Ground, *, quick: bool) -> tuple[list[Finding], Head | None]:
    """What seems wrong under one head."""
    head = None
    try:
        body, _ = ground.reader.small(_HEAD, MOST_HEAD)
        head = parse_head(body, url=_HEAD.decode())
    except FileNotFoundError:
        return ([_wrong(_HEAD, "not there")] if _is_due(ground) else []), None
    except Odd as odd:
        return [_odd(_HEAD, odd)], None
    except Invalid as error:
        return [_wrong(_HEAD, error.reason)], None
    if ground.books is not None:
        mine, last = ground.books.get("changes_id"), ground.books.read(lambda one: Changelog(one).last)
        if mine != head.mirror:
            # Of a ledger that has no feed yet: the next pass begins one.
            return ([_wrong(_HEAD, "of another identity than the ledger's")] if mine is not None else []), head
        if head.number > last:
            return [_wrong(_HEAD, f"counts {head.number} rows, where the ledger has {last}")], head
    found = []
    if head.number >= head.first:
        for start in range(segment_start(head.first), head.number + 1, SEGMENT_ROWS):
            path = f"changes/{segment_name(start)}".encode()
            try:
                problem = _problem(ground, head, path, start, quick=quick)
            except Odd as odd:
                found.append(_odd(path, odd))
            else:
                found += [_wrong(path, problem)] if problem else []
    return found, head


def _is_due(ground: Ground) -> bool:
    """Whether there should be a head: the ledger has begun a feed, or there is something of one."""
    if ground.books is not None and ground.books.get("changes_id") is not None:
        return True
    try:
        with os.scandir(ground.reader.root + b"changes") as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _problem(ground: Ground, head: Head, path: bytes, start: int, *, quick: bool) -> str | None:
    """What is wrong with one segment; the first thing of it.  Raises Odd."""
    newest = start == head.start
    try:
        handle, found = ground.reader.open(path)
    except FileNotFoundError:
        return "not there"
    try:
        if newest and found.st_size < head.size:
            return f"{found.st_size} bytes, where the head counts {head.size}"
        if quick:
            return None
        number = max(start, head.first)
        last = head.number if newest else start + SEGMENT_ROWS - 1
        noted = _noted(ground, number - 1, last)
        known = next(noted, None)
        for line in _lines(ground, handle, head.size if newest else found.st_size):
            if number > last:
                return f"more rows than it may have: {last} is to be the last one"
            row = parse_row(line, url=f"row {number}")
            if row.number != number:
                return f"row {row.number}, where row {number} belongs"
            while known is not None and known.number < number:
                known = next(noted, None)
            if known is not None and known.number == number and _told(row) != _told(known):
                return f"row {number} says something else than the ledger"
            number += 1
        return f"row {number} is not there, nor any up to {last}" if number <= last else None
    except Invalid as error:
        return f"{error.url}: {error.reason}"
    except OSError as error:
        raise Odd("unreadable", f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def _lines(ground: Ground, handle: int, size: int) -> Iterator[bytes]:
    """The lines of the first ``size`` bytes.  Raises Invalid, Stopping, OSError."""
    rest = b""
    while size and (piece := os.read(handle, min(size, _PIECE))):
        ground.reader.budget.take(len(piece))
        size -= len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > MOST_ROW:
            raise Invalid("the last line read", f"more than {MOST_ROW} bytes without an end")
    if rest:
        raise Invalid("the last row that counts", "cut off")


def _noted(ground: Ground, after: int, last: int) -> Iterator[Change]:
    """The same rows as the ledger still knows them."""

    def some(connection: sqlite3.Connection) -> list[Change]:
        return Changelog(connection).after(after, _ROWS)

    while ground.books is not None and after < last and (rows := ground.books.read(some)):
        yield from rows
        after = rows[-1].number


def _told(row: Change) -> tuple[object, ...]:
    """What cannot change once it was told: ``display`` may, and ``complete`` is the feed's own."""
    return row.at, row.serial, row.project, row.what, row.added, row.changed, row.removed


def _wrong(path: bytes, problem: str) -> Finding:
    return finding("feed", b"web/" + path, "", problem)


def _odd(path: bytes, odd: Odd) -> Finding:
    kind = "unreadable" if odd.kind == "unreadable" else "feed"
    return finding(kind, b"web/" + path, "", odd.problem)  # type: ignore[arg-type]
