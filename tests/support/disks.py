"""Disks for tests: one that records every operation, one that breaks, and what is left when the power goes."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from heliostat.store.appender import Appender, Buffer
from heliostat.store.disk import Disk, Entry
from support.volume import Volume


class Step(NamedTuple):
    """One change as it was made; ``data`` is what was written, or the ledger that was committed."""

    verb: str
    arguments: tuple[str, ...]
    data: bytes = b""


class WatchedDisk:
    """A real disk; a subclass is asked before each change, and told after it.  Changes come one at a time."""

    def __init__(self, root: str) -> None:
        self._disk = Disk(root)
        self.root = self._disk.root
        self.lock = threading.RLock()

    def before(self, step: Step) -> None:
        """May raise; then nothing is changed."""

    def after(self, step: Step) -> None:
        """It was done."""

    def looked(self) -> None:
        """Something was read."""

    def _do(self, verb: str, *arguments: str, data: Buffer = b"") -> bool:
        with self.lock:
            step = Step(verb, arguments, bytes(data))
            self.before(step)
            parameters: tuple[object, ...] = arguments
            if verb == "write":
                parameters = (*arguments, data)
            elif verb in ("set_mtime", "set_mode"):
                parameters = (arguments[0], int(arguments[1]))
            done = getattr(self._disk, verb)(*parameters)
            if done is not False:
                self.after(step)
            return done is not False

    def write(self, path: str, data: Buffer, mtime_ns: int | None = None) -> None:
        self._do("write", path, data=data)
        if mtime_ns is not None:
            self.set_mtime(path, mtime_ns)

    def append(self, path: str) -> Appender:
        with self.lock:
            new = self._disk.stat(path) is None
            if new:
                self.before(Step("create", (path,)))
            appender = _WatchedAppender(self, self._disk.append(path), path)
            if new:
                self.after(Step("create", (path,)))
            return appender

    def replace(self, source: str, target: str) -> None:
        self._do("replace", source, target)

    def link(self, source: str, target: str) -> None:
        self._do("link", source, target)

    def symlink(self, content: str, path: str) -> None:
        self._do("symlink", content, path)

    def unlink(self, path: str) -> bool:
        return self._do("unlink", path)

    def make_directory(self, path: str) -> None:
        self._do("make_directory", path)

    def remove_directory(self, path: str) -> bool:
        return self._do("remove_directory", path)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self._do("set_mtime", path, str(mtime_ns))

    def set_mode(self, path: str, mode: int) -> None:
        self._do("set_mode", path, str(mode))

    def sync(self) -> None:
        self._do("sync")

    def stat(self, path: str) -> Entry | None:
        self.looked()
        return self._disk.stat(path)

    def stat_directory(self, path: str) -> Entry | None:
        self.looked()
        return self._disk.stat_directory(path)

    def pieces(self, path: str) -> Iterator[bytes]:
        self.looked()
        return self._disk.pieces(path)

    def read(self, path: str) -> bytes | None:
        self.looked()
        return self._disk.read(path)

    def read_part(self, path: str, start: int, size: int) -> bytes:
        self.looked()
        return self._disk.read_part(path, start, size)

    def read_link(self, path: str) -> str | None:
        self.looked()
        return self._disk.read_link(path)

    def names(self, path: str) -> list[str]:
        self.looked()
        return self._disk.names(path)

    def free(self) -> tuple[int, int, int]:
        self.looked()
        return self._disk.free()


class _WatchedAppender:
    def __init__(self, disk: WatchedDisk, appender: Appender, path: str) -> None:
        self._disk, self._appender, self._path = disk, appender, path
        self.size = appender.size

    def write(self, data: Buffer) -> None:
        with self._disk.lock:
            step = Step("append", (self._path,), bytes(data))
            self._disk.before(step)
            self._appender.write(data)
            self.size = self._appender.size
            self._disk.after(step)

    def read_all(self) -> Iterator[bytes]:
        return self._appender.read_all()

    def truncate(self) -> None:
        with self._disk.lock:
            step = Step("truncate", (self._path,))
            self._disk.before(step)
            self._appender.truncate()
            self.size = 0
            self._disk.after(step)

    def close(self) -> None:
        self._appender.close()


class RecordingDisk(WatchedDisk):
    """Notes each change in ``steps``, and between them each state that the ledger at ``ledger`` had committed.

    What changes by itself at one time (a commit and a change on disk by two threads) is noted in either order.
    """

    def __init__(self, root: str, ledger: str) -> None:
        super().__init__(root)
        self.steps: list[Step] = []
        self._ledger, self._version = ledger, -1
        self._connection: sqlite3.Connection | None = None

    def before(self, step: Step) -> None:
        self.looked()

    def after(self, step: Step) -> None:
        self.steps.append(step)

    def looked(self) -> None:
        """Note the ledger if something was committed since the last look."""
        with self.lock:
            if self._connection is None:
                if not os.path.exists(self._ledger):
                    return
                self._connection = sqlite3.connect(self._ledger, check_same_thread=False, isolation_level=None)
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._version = version
                self.steps.append(Step("ledger", (), _without_wal(self._connection.serialize())))

    def close(self) -> None:
        """A last look at the ledger."""
        with self.lock:
            self.looked()
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _without_wal(database: bytes) -> bytes:
    """The same database, saying that it has no write-ahead log beside it (bytes 18 and 19 of the header)."""
    return database[:18] + b"\1\1" + database[20:]


class Broken(Exception):
    """What a :class:`BreakingDisk` raises: nothing that the engine expects."""


class BreakingDisk(WatchedDisk):
    """Does ``good`` changes; that one after them and every later one raises :class:`Broken`, clean-up included."""

    def __init__(self, root: str, good: int) -> None:
        super().__init__(root)
        self.left = good

    def before(self, step: Step) -> None:
        if self.left <= 0:
            raise Broken(step.verb)
        self.left -= 1


@dataclass
class Cut:
    """The power went after ``number`` steps: what is durable for certain, what may be, and the ledger."""

    number: int
    durable: Volume
    pending: list[Step] = field(default_factory=list)
    ledger: bytes | None = None

    def left(self, chance: random.Random) -> Volume:
        """What the disk may hold: of the pending steps each was done or not, and data may be cut short or missing.

        Stricter than real file systems are: they keep the order of at least some steps.
        """
        share = chance.random()

        def choose(step: Step) -> bytes | None:
            if chance.random() >= share:
                return None
            return step.data[: chance.randrange(len(step.data))] if step.data and chance.random() < 0.5 else step.data

        return self.left_if(choose)

    def left_if(self, choose: Callable[[Step], bytes | None]) -> Volume:
        """What the disk holds if of the pending steps those were done for which ``choose`` gives their data."""
        volume = self.durable.copy()
        for step in self.pending:
            data = choose(step)
            if data is not None:  # a step whose ground was lost is lost as well
                volume.apply(step.verb, step.arguments, data)
        return volume


def cuts(steps: list[Step], start: Volume | None = None) -> Iterator[Cut]:
    """Every moment at which the power may go: before the first step (over ``start``), and after each."""
    durable = start.copy() if start else Volume()
    pending: list[Step] = []
    ledger: bytes | None = None
    yield Cut(0, durable)
    for number, step in enumerate(steps, 1):
        if step.verb == "ledger":
            ledger = step.data
        elif step.verb == "sync":
            durable = durable.copy()  # the cuts that were given out keep theirs
            for one in pending:
                if not durable.apply(one.verb, one.arguments, one.data):
                    raise AssertionError(f"the record cannot be replayed: {one[:2]}")
            pending = []
        else:
            pending.append(step)
        yield Cut(number, durable, list(pending), ledger)
