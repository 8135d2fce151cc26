"""A plain directory of wheels and sdists: its files get the places at which a pass looks for them.

The files themselves stay where they are; a place is another name for the same bytes, one for each digest that an
upstream may name it by.  Pages are the first pass's business, which takes what upstream lists; places that no page
names then are for ``heliostat verify --delete-unreferenced``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from heliostat import names
from heliostat.errors import ConfigError, Refused
from heliostat.mirror.adopt.eye import Eye, Stopping
from heliostat.mirror.adopt.files import PLACE_MAKERS
from heliostat.mirror.adopt.report import Finding, Kind, Record, Result
from heliostat.mirror.owners import possible_owners
from heliostat.mirror.report import Counters
from heliostat.store.disk import Operations

_DISTRIBUTIONS = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".egg", ".tar.xz")
#: What is ours in the mirror's directory, and is not looked through.
_OURS = frozenset(("web", "partial", "withheld", "upstream"))
_BATCH = 256
_FILE_MODE = 0o644
_STAGED = "partial/adopted"


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
    ) -> None:
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
            if any(map(self._in_scope, possible_owners(filename))):
                right.append(path)
            else:
                self._tell("strange", path, "of no project that the configuration names; left alone")
        for path, digests in zip(right, pool.map(self._digests, right), strict=True):
            if not digests:
                continue  # it went meanwhile
            filename = path.rpartition("/")[2]
            targets = [names.package_path(digests[one], filename) for one in PLACE_MAKERS]
            if self._disk is not None:
                self._place(self._disk, path, targets)
            found = self._eye.lstat(path)
            self.result.files += 1
            self.result.hashed += 1
            self.result.bytes += found.st_size if found is not None else 0
            self._tell("placed", path, f"at {targets[0]}")
        if self._disk is not None:
            self._disk.sync()

    def _digests(self, path: str) -> dict[str, str]:
        return self._eye.digests(path, PLACE_MAKERS, self._stopped)

    def _place(self, disk: Operations, path: str, targets: list[str]) -> None:
        for target in targets:
            if disk.stat(target) is None:
                disk.unlink(_STAGED)
                disk.link(path, _STAGED)
                disk.replace(_STAGED, target)
                disk.set_mode(target, _FILE_MODE)

    def _tell(self, kind: Kind, path: str, problem: str) -> None:
        self.result.count(self.record.add([Finding(kind, path, "", problem)]))
