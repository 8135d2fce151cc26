"""Disks for tests: one that records every operation, to cut the power at any of them and look at what is left."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from heliostat.store.disk import Appender, Buffer, Disk, Entry


@dataclass
class Step:
    """One operation as it was done; ``data`` is what was written."""

    verb: str
    arguments: tuple[str, ...]
    data: bytes = b""


@dataclass
class Record:
    steps: list[Step] = field(default_factory=list)

    def add(self, verb: str, *arguments: str, data: Buffer = b"") -> None:
        self.steps.append(Step(verb, arguments, bytes(data)))


class RecordingDisk:
    """A real disk that notes each change; reading is not noted."""

    def __init__(self, root: str, record: Record) -> None:
        self._disk, self.record = Disk(root), record
        self.root = self._disk.root

    def write(self, path: str, data: Buffer) -> None:
        self._disk.write(path, data)
        self.record.add("write", path, data=data)

    def append(self, path: str) -> Appender:
        return _RecordingAppender(self._disk.append(path), path, self.record)

    def replace(self, source: str, target: str) -> None:
        self._disk.replace(source, target)
        self.record.add("replace", source, target)

    def link(self, source: str, target: str) -> None:
        self._disk.link(source, target)
        self.record.add("link", source, target)

    def symlink(self, content: str, path: str) -> None:
        self._disk.symlink(content, path)
        self.record.add("symlink", content, path)

    def unlink(self, path: str) -> bool:
        done = self._disk.unlink(path)
        if done:
            self.record.add("unlink", path)
        return done

    def make_directory(self, path: str) -> None:
        self._disk.make_directory(path)
        self.record.add("make_directory", path)

    def remove_directory(self, path: str) -> bool:
        done = self._disk.remove_directory(path)
        if done:
            self.record.add("remove_directory", path)
        return done

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self._disk.set_mtime(path, mtime_ns)
        self.record.add("set_mtime", path, str(mtime_ns))

    def stat(self, path: str) -> Entry | None:
        return self._disk.stat(path)

    def read(self, path: str) -> bytes | None:
        return self._disk.read(path)

    def read_link(self, path: str) -> str | None:
        return self._disk.read_link(path)

    def names(self, path: str) -> list[str]:
        return self._disk.names(path)

    def free(self) -> tuple[int, int, int]:
        return self._disk.free()

    def sync(self) -> None:
        self._disk.sync()
        self.record.add("sync")

    def note(self, what: str, data: bytes = b"") -> None:
        """Something outside the file system that is durable at once (a ledger commit)."""
        self.record.add("note", what, data=data)


class _RecordingAppender:
    def __init__(self, appender: Appender, path: str, record: Record) -> None:
        self._appender, self._path, self._record = appender, path, record
        self.size = appender.size
        if not appender.size:
            record.add("create", path)

    def write(self, data: Buffer) -> None:
        self._appender.write(data)
        self.size = self._appender.size
        self._record.add("append", self._path, data=data)

    def read_all(self) -> Iterator[bytes]:
        return self._appender.read_all()

    def truncate(self) -> None:
        self._appender.truncate()
        self.size = 0
        self._record.add("truncate", self._path)

    def close(self) -> None:
        self._appender.close()


def replay_power_cut(record: Record, cut: int, root: str, chance: random.Random) -> bytes | None:
    """Make in ``root`` what a disk may hold if the power went after ``cut`` steps; the last noted ledger.

    Everything before the last ``sync`` is there.  Of what came after it each step is there or not, at random;
    data written after it may be missing or cut short even where its name is there.
    """
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    disk = Disk(root)
    steps = record.steps[:cut]
    synced = max((number for number, step in enumerate(steps) if step.verb == "sync"), default=-1)
    ledger: bytes | None = None
    for number, step in enumerate(steps):
        if step.verb == "note":
            ledger = step.data
        elif number <= synced:
            _apply(disk, step)
        elif step.verb != "sync" and chance.random() < 0.6:
            _apply_unsynced(disk, step, chance)
    return ledger


def _apply(disk: Disk, step: Step) -> None:
    match step.verb:
        case "write":
            disk.write(step.arguments[0], step.data)
        case "create" | "append" | "truncate":
            file = disk.append(step.arguments[0])
            if step.verb == "truncate":
                file.truncate()
            file.write(step.data)
            file.close()
        case "set_mtime":
            disk.set_mtime(step.arguments[0], int(step.arguments[1]))
        case "sync":
            pass
        case verb:
            getattr(disk, verb)(*step.arguments)


def _apply_unsynced(disk: Disk, step: Step, chance: random.Random) -> None:
    if step.data and chance.random() < 0.5:
        step = Step(step.verb, step.arguments, step.data[: chance.randrange(len(step.data))])
    try:
        _apply(disk, step)
    except Exception:  # noqa: BLE001 - a step whose ground was lost is lost as well
        return
