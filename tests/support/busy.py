"""An index on which something always happens, and which often answers badly."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Protocol

from heliostat.fakeindex import FakeIndex, UploadedFile, Virtual
from heliostat.fakeindex.faults import Wire
from heliostat.fakeindex.troubles import TROUBLES


class Target(Protocol):
    """An index that is changed: in this process, or another."""

    def call(self, operation: str, *arguments: Any) -> object: ...
    def publish(self, name: str, version: str, seed: int) -> object: ...
    def fault(self, path: str, action: Wire, times: int) -> object: ...
    def clear_faults(self) -> None: ...


class Here:
    """The index of a server in this process."""

    def __init__(self, server: FakeIndex, size: int = 2000) -> None:
        self._server, self._size = server, size

    def call(self, operation: str, *arguments: Any) -> object:
        return getattr(self._server.index, operation)(*arguments)

    def publish(self, name: str, version: str, seed: int) -> object:
        file = UploadedFile(f"{name}-{version}.tar.gz", Virtual(self._size, seed))
        return self._server.index.publish(name, version, file)

    def fault(self, path: str, action: Wire, times: int) -> object:
        return self._server.fault(path, action, times=times)

    def clear_faults(self) -> None:
        self._server.clear_faults()


class Busy:
    """Changes an index, and makes it fail, as ``seed`` says; the number of projects and of files stays about the same.

    ``removals`` is how many projects may be removed altogether: more, in one day, a mirror would hold back.  Half of
    those that were removed come back.
    """

    def __init__(self, target: Target, *, projects: int, removals: int, seed: int = 0) -> None:
        self._target, self._random, self._removals = target, random.Random(seed), removals
        #: Versions of each project that is there, the oldest first; those that are yanked.
        self._versions: dict[str, list[str]] = {}
        self._yanked: set[tuple[str, str]] = set()
        self._gone: list[str] = []
        self._number = 0
        #: What was done so far, and which faults were put in force.
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        for number in range(projects):
            self._publish(f"busy-{number:04}")

    def change(self) -> None:
        """One change, of one project."""
        names = list(self._versions)
        name = self._random.choice(names)
        kind = self._random.choice(("publish", "publish", "yank", "yank", "unyank", "remove", "create"))
        if kind == "remove" and self.done["remove"] < self._removals:
            self._remove(name)
        elif kind == "create" and self._gone and self.done["create"] * 2 < self.done["remove"]:
            self._publish(self._gone.pop(0))
        elif kind == "yank":
            version = self._random.choice(self._versions[name])
            self._target.call("yank", name, version, f"reason {self._number}")
            self._yanked.add((name, version))
        elif kind == "unyank" and self._yanked:
            name, version = self._random.choice(sorted(self._yanked))
            self._target.call("unyank", name, version)
            self._yanked.discard((name, version))
        else:
            kind = "publish"
            self._publish(name)
        self.done[kind] += 1

    def fail(self) -> None:
        """The next few requests of some kind are answered badly."""
        path, action = self._random.choice(TROUBLES)
        self._target.fault(path, action, self._random.randrange(1, 4))
        self.faults[type(action).__name__] += 1

    def recover(self) -> None:
        """Everything is answered well from now on."""
        self._target.clear_faults()

    def _publish(self, name: str) -> None:
        self._number += 1
        version = f"1.{self._number}"
        self._target.publish(name, version, self._number)
        versions = self._versions.setdefault(name, [])
        versions.append(version)
        if len(versions) > 3:
            self._target.call("remove_release", name, oldest := versions.pop(0))
            self._yanked.discard((name, oldest))

    def _remove(self, name: str) -> None:
        self._target.call("remove_project", name)
        self._yanked -= {(name, version) for version in self._versions.pop(name)}
        self._gone.append(name)
