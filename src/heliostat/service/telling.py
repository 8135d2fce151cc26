"""The files that a hook is handed, and the lock that it runs under."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from typing import Self

import msgspec

from heliostat.state.changelog import Change

#: One run is told of so many changes at most, and of so many bytes of paths or a little more; the next, of the rest.
_MOST_CHANGES, _MOST_BYTES = 10_000, 8 << 20


class Alone:
    """The lock that the hook inherits, in a file that says which process group it runs in.

    What it started inherits the lock as well, and may hold it for ever.  So a lock that is held counts only while the
    process group of the last run is there: what left that group is on its own, within one life of ours as after it.
    """

    def __init__(self) -> None:
        self.descriptor = -1

    def runs(self, pid: int) -> None:
        """The hook was started: the leader of a process group of its own.  Raises OSError."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{pid} {_born(pid)}\n".encode(), 0)

    def hold(self, folder: str) -> bool:
        """Whether it is ours, from now until :meth:`close`.  Raises OSError."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = f"{folder}/lock"
        if self.descriptor >= 0:
            if _is_at(self.descriptor, path):
                return True
            self.close()  # somebody removed it
        descriptor = _opened(path)
        try:
            if not _taken(descriptor):
                if _still_runs(os.pread(descriptor, 100, 0).decode("ascii", "replace")):
                    return False
                # Its file is left to whoever holds it.  No other daemon can do the same now: this one has the mirror.
                os.unlink(path)
                os.close(descriptor)
                descriptor = -1
                descriptor = _opened(path)
                if not _taken(descriptor):
                    return False
            self.descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return True

    def overdue(self, folder: str, limit: float) -> int | None:
        """The process group of a run that an earlier daemon left, if it was started more than ``limit`` seconds ago.

        None also where it is not certain that this group is that run's.  Raises OSError.
        """
        path = f"{folder}/lock"
        with open(path, encoding="ascii", errors="replace") as file:
            pid, _, born = file.read(100).strip().partition(" ")
        if not (pid.isdecimal() and born) or time.time() - os.stat(path).st_mtime < limit:
            return None
        group = [stat for stat in _stats() if stat[_GROUP] == pid and stat[_STATE] != "Z"]
        leader = next((stat for stat in group if stat[0] == pid), None)
        if leader is not None:
            return int(pid) if leader[_BORN] == born else None
        return int(pid) if any(_has_open(stat[0], path) for stat in group) else None

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_runs(noted: str) -> bool:
    """Whether the process group that was noted is there; also when nothing was: the hook was just being started."""
    pid, _, born = noted.strip().partition(" ")
    if not pid.isdecimal() or int(pid) <= 1:
        return True
    try:
        os.killpg(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # as another user
        pass
    if not (stats := list(_stats())):  # no /proc
        return True
    # A group outlives its leader, and keeps its number as long; another leader of that number is of another group.
    # One that has ended, and that nobody has asked about, is still there for killpg.
    group = [stat for stat in stats if stat[_GROUP] == pid and stat[_STATE] != "Z"]
    return bool(group) and not (born and any(stat[0] == pid and stat[_BORN] != born for stat in group))


#: Where the kernel's line about a process has what, once its name is taken out.
_STATE, _GROUP, _BORN = 1, 3, 20


def _stats() -> Iterator[list[str]]:
    """What the kernel tells of each process (proc_pid_stat(5)), without its name."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and (stat := _stat(name)):
            yield stat


def _has_open(pid: str, path: str) -> bool:
    try:
        found = os.stat(path)
        return any(os.path.samestat(entry.stat(), found) for entry in os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _stat(pid: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return [pid, *file.read().rpartition(b")")[2].decode("ascii").split()]
    except OSError:
        return []


def _born(pid: int) -> str:
    """When a process began, in the kernel's own count; empty when it is not there, or there is no ``/proc``."""
    stat = _stat(str(pid))
    return stat[_BORN] if stat else ""


class Telling:
    """The files that a run is handed: the changes, an object a line; and their paths, each once and ended by NUL."""

    def __init__(self, folder: str) -> None:
        self._changes, self._paths = open(f"{folder}/changes.jsonl", "wb"), open(f"{folder}/paths", "wb")  # noqa: SIM115
        self._encoder = msgspec.json.Encoder()
        self._told: set[str] = set()
        self._count = self._bytes = 0
        self.serial = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()
        self._paths.close()

    @property
    def full(self) -> bool:
        return self._count >= _MOST_CHANGES or self._bytes >= _MOST_BYTES

    def add(self, rows: Sequence[Change]) -> None:
        for row in rows:
            self._changes.write(self._encoder.encode(row) + b"\n")
            for path in (*row.added, *row.changed, *row.removed):
                if path not in self._told:
                    self._told.add(path)
                    self._bytes += self._paths.write(os.fsencode(path) + b"\0")
            self.serial = max(self.serial, row.serial or 0)
        self._count += len(rows)
