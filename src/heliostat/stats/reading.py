"""Reads logs from where they were left, and closes the days that are over."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field

from heliostat.stats.database import transaction
from heliostat.stats.known import Logs
from heliostat.stats.lines import hit_of
from heliostat.stats.logfile import LogFile, Signature, Unreadable, look_at
from heliostat.stats.marks import Trail
from heliostat.stats.tally import Tally, close_days, settle

#: So many days before the newest one are open: who was there is remembered, for lines that come late.
_OPEN = 2
#: Lines after which what was counted is written, if it did not come to much before.
_LINES = 200_000


@dataclass
class Reading:
    """What one run read; ``unreadable`` are messages."""

    files: int = 0
    #: Files that were as they had been.
    unchanged: int = 0
    lines: int = 0
    #: Lines that are no request, or none that is understood.
    odd: int = 0
    bytes: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidate:
    path: str
    first: int


def expand(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files that names and patterns stand for, each once, sorted; and messages about those for none."""
    found: dict[str, None] = {}
    missing = []
    for pattern in patterns:
        if os.path.lexists(pattern) or not glob.has_magic(pattern):
            found[pattern] = None
            continue
        names = sorted(glob.glob(pattern, recursive=True))
        found |= dict.fromkeys(name for name in names if not os.path.isdir(name))
        if not names:
            missing.append(f"{pattern}: nothing matches")
    return sorted(found), missing


def read_logs(
    connection: sqlite3.Connection,
    patterns: Iterable[str],
    *,
    today: int,
    directory: str | None,
    progress: Callable[[Reading], None] = lambda _: None,
) -> Reading:
    """Count every line of these logs that was not counted before.

    ``today`` is a day of UTC; lines of later days than tomorrow are not believed.  ``directory`` is the mirror's, whose
    files tell how large they are.  Logs that cannot be read are listed in the result, the others are counted all the
    same.  Whenever this is killed, the next run goes on where it was.
    """
    paths, missing = expand(patterns)
    reading = Reading(unreadable=missing)
    logs, tally = Logs(connection, today), Tally(connection)
    (oldest,) = connection.execute("SELECT floor FROM meta").fetchone()
    for one in _by_age(paths, logs, reading):
        with transaction(connection):
            settle(connection, directory)
            close_days(connection, min(one.first, today) - _OPEN)
        try:
            with closing(LogFile(one.path)) as log:
                _read(log, connection, logs, tally, reading, progress, oldest, today + 1)
        except Unreadable as error:
            reading.unreadable.append(str(error))
    with transaction(connection):
        settle(connection, directory)
        (newest,) = connection.execute("SELECT max(day) FROM days").fetchone()
        if newest is not None:
            close_days(connection, min(newest, today) - _OPEN)
        logs.forget()
    return reading


def _by_age(paths: Iterable[str], logs: Logs, reading: Reading) -> list[_Candidate]:
    """What is to be looked into, oldest first: when a file is opened, the days long before its first line are over."""
    chosen: dict[tuple[int, int], _Candidate] = {}
    known: list[Signature] = []
    for path in paths:
        try:
            signature = look_at(path)
            if logs.unchanged(signature):
                known.append(signature)
                continue
            with closing(LogFile(path)) as log:
                hit = hit_of(log.head.rstrip(b"\r\n"))
        except Unreadable as error:
            reading.unreadable.append(str(error))
            continue
        chosen.setdefault((signature.device, signature.inode), _Candidate(path, hit.day if hit else 0))
    reading.unchanged = len({(one.device, one.inode) for one in known})
    logs.seen(known)
    return sorted(chosen.values(), key=lambda one: one.first)


def _read(
    log: LogFile,
    connection: sqlite3.Connection,
    logs: Logs,
    tally: Tally,
    reading: Reading,
    progress: Callable[[Reading], None],
    oldest: int,
    newest: int,
) -> None:
    reading.files += 1
    place = logs.place(log) if log.head else None
    if place is None:
        return
    row = place.known.id if place.known else None
    trail = Trail(logs.fingerprint, place.position, place.recent)
    position, stretch = saved, _ = place.position, place.recent
    marks, lines = place.known.marks if place.known else b"", 0

    def write() -> None:
        nonlocal row, saved, lines, marks
        marks += trail.take(position)
        with transaction(connection):
            tally.write()
            row = logs.record(row, log, position, stretch, marks)
        saved, lines = position, 0

    damage = None
    blocks = log.blocks(place.position, trail)
    while True:
        try:
            block = next(blocks, None)
        except Unreadable as error:
            block, damage = None, error
        if block is None:
            break
        for line in block.lines:
            hit = hit_of(line)
            if hit is not None and oldest <= hit.day <= newest:
                tally.add(hit)
            elif line:
                reading.odd += 1
        reading.odd += block.oversized
        reading.lines += len(block.lines) + block.oversized
        reading.bytes += block.position - position
        lines += len(block.lines)
        position, stretch = block.position, block.stretch
        if tally.full or lines > _LINES:
            write()
            progress(reading)
    if position > saved:
        write()
    if damage is not None:
        raise damage
    if row is not None:
        logs.finished(row, log.signature)
