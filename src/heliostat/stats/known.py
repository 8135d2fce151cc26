"""Which logs were read, how far: a log is known by its content, whatever it is called now."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from heliostat.stats.logfile import LogFile, Signature
from heliostat.stats.marks import Fingerprint, keyed, marks_of

#: A log that no run has seen for so many days is forgotten.
_FORGET = 400


class Known(NamedTuple):
    """A log that was read up to ``position``; ``device`` and ``inode`` are of the file that held it then."""

    id: int
    position: int
    tail: bytes
    marks: bytes
    device: int
    inode: int


class Place(NamedTuple):
    """Where to go on reading: the row, None for a log that is new, and the last bytes before the position."""

    known: Known | None
    position: int
    recent: bytes


class Logs:
    """The table ``logs``; writes join the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, today: int) -> None:
        self._connection, self._today = connection, today
        (secret,) = connection.execute("SELECT secret FROM meta").fetchone()
        self.fingerprint: Fingerprint = keyed(bytes(secret))

    def unchanged(self, signature: Signature) -> bool:
        """Whether it is a file that was read to its end, and not touched since."""
        found = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM logs WHERE (device, inode, size, mtime_ns) = (?, ?, ?, ?))", signature
        )
        (known,) = found.fetchone()
        return bool(known)

    def place(self, log: LogFile) -> Place | None:
        """Where to go on in ``log``; None when what there is of it was read.  Raises Unreadable.

        A file that has only the beginning of a known log, as far as it goes, is that log: one that is being copied
        or compressed.  If it is another it will show when it grows.
        """
        found = self._connection.execute(
            "SELECT id, position, tail, marks, coalesce(device, -1), coalesce(inode, -1) FROM logs WHERE head = ?",
            (self.fingerprint(log.head),),
        )
        rows = [Known(*row) for row in found]
        checks: dict[int, list[tuple[Known, bytes]]] = {}
        for row in rows:
            for mark, digest in (*marks_of(row.marks), (row.position, row.tail)):
                checks.setdefault(mark, []).append((row, digest))
        alive = {row.id: row for row in rows}
        recent: dict[int, bytes] = {}
        for mark in sorted(checks):
            stretch = log.stretch(mark) if alive else None
            if stretch is None:
                break
            digest = self.fingerprint(stretch)
            for row, expected in checks[mark]:
                if digest != expected:
                    alive.pop(row.id, None)
                elif mark == row.position:
                    recent[row.id] = stretch
        if not alive:
            return Place(None, 0, b"")
        same = (log.signature.device, log.signature.inode)
        best = max(alive.values(), key=lambda row: (row.id in recent, (row.device, row.inode) == same, row.position))
        return Place(best, best.position, recent[best.id]) if best.id in recent else None

    def record(self, row: int | None, log: LogFile, position: int, stretch: bytes, marks: bytes) -> int:
        """It was read up to ``position``; ``marks`` are all up to there.  Gives the row."""
        tail, today = self.fingerprint(stretch), self._today
        path = log.path.encode("utf-8", "backslashreplace").decode()
        device, inode = log.signature.device, log.signature.inode
        if row is None:
            added = self._connection.execute(
                "INSERT INTO logs (head, position, tail, marks, path, device, inode, seen)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self.fingerprint(log.head), position, tail, marks, path, device, inode, today),
            )
            assert added.lastrowid is not None
            return added.lastrowid
        self._connection.execute(
            "UPDATE logs SET position = ?, tail = ?, marks = ?, path = ?, device = ?, inode = ?,"
            " size = NULL, mtime_ns = NULL, seen = ? WHERE id = ?",
            (position, tail, marks, path, device, inode, today, row),
        )
        return row

    def finished(self, row: int, signature: Signature) -> None:
        """All that was there when the file was opened was read."""
        self._connection.execute(
            "UPDATE logs SET device = ?, inode = ?, size = ?, mtime_ns = ?, seen = ? WHERE id = ?",
            (*signature, self._today, row),
        )

    def seen(self, signatures: Iterable[Signature]) -> None:
        """These files are still there."""
        self._connection.executemany(
            "UPDATE logs SET seen = ? WHERE device = ? AND inode = ? AND seen < ?",
            [(self._today, one.device, one.inode, self._today) for one in signatures],
        )

    def forget(self) -> None:
        """Drop logs that have not been there for long."""
        self._connection.execute("DELETE FROM logs WHERE seen < ?", (self._today - _FORGET,))
