"""A plain directory of wheels and sdists: its files get the places at which a pass looks for them.

The files themselves stay where they are; a place is another name for the same bytes, one for each digest that an
upstream may name it by.  Pages are the first pass's business, which takes what upstream lists, and removes those places
of a project that its page does not name.  Those of files whose names do not tell their project are for
``heliostat verify --delete-unreferenced``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from heliostat import names
from heliostat.errors import ConfigError, Refused, StoreError
from heliostat.mirror.adopt.eye import Eye, Stopping
from heliostat.mirror.adopt.files import PLACE_MAKERS
from heliostat.mirror.adopt.report import Finding, Kind, Record, Result
from heliostat.mirror.owners import possible_owners
from heliostat.mirror.report import Counters
from heliostat.model import ProjectName
from heliostat.store.disk import Operations

_DISTRIBUTIONS = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".egg", ".tar.xz")
#: What is ours in the mirror's directory, and is not looked through.
_OURS = frozenset(("web", "partial", "withheld", "upstream"))
_BATCH = 256
_FILE_MODE = 0o644
_STAGED = "partial/adopted"

#: Told of each project which places its files are about to get.
Announce = Callable[[Mapping[ProjectName, list[str]]], None]


class LooseFiles:
    """The files below ``root``; with a ``disk``, which must be of the same directory, they get their places."""

    def __init__(
        self,
        root: str,
        disk: Operations | None,
        *,
        in_scope: Callable[[str], bool],
        counters: Counters,
        stopped: Callable[[], bool],
        announce: Announce = lambda _places: None,
    ) -> None:
        self._announce = announce
        self._root, self._disk, self._eye = root, disk, Eye(root)
        self._in_scope, self._counters, self._stopped = in_scope, counters, stopped
        self.record = Record(None, 0, new=True)
        self.result = Result(tool="wheels", check="digest", dry_run=disk is None)

    def run(self) -> tuple[Result, Record]:
        """Files of projects out of scope are told and left alone.  Raises ConfigError for no file, StoreError."""
        paths, found = self._find(), False
        with ThreadPoolExecutor(min(16, max(2, os.cpu_count() or 1)), thread_name_prefix="heliostat-adopt") as pool:
            try:
                while batch := list(islice(paths, _BATCH)):
                    found = True
                    self._take(batch, pool)
                    self._counters.files_done += len(batch)
            except Stopping:
                self.result.interrupted = True
        if not found:
            problem = "no wheels or sdists below it; move their folder there, on the same file system"
            raise ConfigError([f"{self._root}: {problem}"])
        return self.result, self.record

    def _find(self) -> Iterator[str]:
        """Distribution files, in order, as relative paths; links are not followed."""
        for folder, folders, files in os.walk(self._root):
            if folder == self._root:
                folders[:] = [one for one in folders if one not in _OURS]
            folders.sort()
            for name in sorted(files):
                if name.endswith(_DISTRIBUTIONS):
                    yield os.path.relpath(os.path.join(folder, name), self._root)

    def _take(self, batch: list[str], pool: ThreadPoolExecutor) -> None:
        right: list[str] = []
        for path in batch:
            try:
                filename = names.safe_filename(path.rpartition("/")[2])
            except Refused as error:
                self._tell("name", path, str(error))
                continue
            found = self._eye.lstat(path)
            if not any(map(self._in_scope, possible_owners(filename))):
                self._tell("strange", path, "of no project that the configuration names; left alone")
            elif found is not None and not stat.S_ISREG(found.st_mode):
                self._tell("strange", path, "no plain file; left alone")
            else:
                right.append(path)
        placed: dict[str, list[str]] = {}
        for path, digests in zip(right, pool.map(self._digests, right), strict=True):
            if isinstance(digests, StoreError):
                self._tell("strange", path, f"{digests}; left alone")
            elif digests:  # else it went meanwhile
                targets = self._targets(path, digests)
                if targets is not None:
                    placed[path] = targets
        if self._disk is not None:
            self._place(self._disk, placed)

    def _digests(self, path: str) -> dict[str, str] | StoreError:
        """What keeps one file from being read is no reason to give up the others."""
        try:
            return self._eye.digests(path, PLACE_MAKERS, self._stopped)
        except StoreError as error:
            return error

    def _targets(self, path: str, digests: Mapping[str, str]) -> list[str] | None:
        """The places of a file, which counts as placed; None where one of them is perhaps not the mirror's own."""
        filename = path.rpartition("/")[2]
        targets = [names.package_path(digests[one], filename) for one in PLACE_MAKERS]
        for target in targets:
            if (link := self._eye.linked(target)) is not None:
                self._tell("obstacle", path, f"{link}, above its place, is a symbolic link; left alone")
                return None
        found = self._eye.lstat(path)
        self.result.files += 1
        self.result.hashed += 1
        self.result.bytes += found.st_size if found is not None else 0
        self._tell("placed", path, f"at {targets[0]}")
        return targets

    def _place(self, disk: Operations, placed: Mapping[str, list[str]]) -> None:
        """Announce what is not in place yet, then put it there."""
        missing = {path: [one for one in targets if disk.stat(one) is None] for path, targets in placed.items()}
        announced: dict[ProjectName, list[str]] = {}
        for path, targets in missing.items():
            owner = owner_of(path.rpartition("/")[2], self._in_scope)
            if owner is not None and targets:
                announced.setdefault(owner, []).extend(targets)
        self._announce(announced)
        for path, targets in missing.items():
            for target in targets:
                disk.unlink(_STAGED)
                disk.link(path, _STAGED)
                disk.replace(_STAGED, target)
                disk.set_mode(target, _FILE_MODE)
        disk.sync()

    def _tell(self, kind: Kind, path: str, problem: str) -> None:
        self.result.count(self.record.add([Finding(kind, path, "", problem)]))


def owner_of(filename: str, in_scope: Callable[[str], bool]) -> ProjectName | None:
    """The project in scope that a distribution file is of, going by its name; None where that does not tell.

    The name of a project ends where a version begins, which may have dashes in it too.
    """
    from packaging.version import InvalidVersion, Version

    built = filename.endswith((".whl", ".egg"))
    stem = filename.removesuffix(next((one for one in _DISTRIBUTIONS if filename.endswith(one)), ""))
    parts = stem.split("-")
    for count in range(1, len(parts)):
        try:
            Version(parts[count] if built else "-".join(parts[count:]))
            name = names.normalise("-".join(parts[:count]))
        except (InvalidVersion, Refused):
            continue
        return name if in_scope(name) else None
    return None
