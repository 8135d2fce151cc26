"""What is not right is moved aside, into ``withheld/damaged/``, until what is right is there."""

from __future__ import annotations

import logging
import os
import stat

from heliostat.mirror.places import DAMAGED
from heliostat.mirror.verify.findings import Finding
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)


class Damaged:
    """What was moved aside, of one mirror; ``notes`` get what somebody should look at."""

    def __init__(self, tree: Tree, notes: list[str]) -> None:
        self._tree, self._notes = tree, notes

    def take(self, path: str) -> None:
        """Bytes that are not right are served no more, and kept until the right ones are there."""
        if self._tree.disk.stat(path) is not None:
            log.warning("%s: damaged; kept as %s until it is replaced", path, _aside(path))
            self.discard(path)
            self._tree.disk.replace(path, _aside(path))

    def clear(self, one: Finding) -> None:
        """What is no file and no page of ours goes from where a page, document or link belongs; it is kept aside."""
        path = one.file.rstrip("/")
        if self._tree.disk.stat(path) is not None and not one.raw:
            self._tree.disk.replace(path, _aside(path))

    def clear_unless_file(self, one: Finding) -> None:
        entry = os.lstat(os.path.join(self._tree.disk.root, one.path)) if self._tree.disk.stat(one.path) else None
        if entry is not None and not stat.S_ISREG(entry.st_mode):
            self.clear(one)

    def discard(self, place: str) -> None:
        """What was moved aside from ``place`` is of no use any more; a directory is left for somebody to look at."""
        path = _aside(place)
        entry = self._tree.disk.stat(path)
        if entry is not None and not entry.is_directory:
            self._tree.discard(path)
        elif entry is not None and self._tree.disk.remove_directory(path):
            self._tree.prune(path)
        elif entry is not None:
            self._notes.append(f"{path}: was in the way; look at it, then remove it")

    def forget_replaced(self, folder: str = DAMAGED) -> None:
        """What an earlier repair moved aside, and could not replace, goes once a pass has."""
        for entry in sorted(self._tree.disk.names(folder)):
            path = f"{folder}/{entry}"
            found = self._tree.disk.stat(path)
            if found is not None and found.is_directory:
                self.forget_replaced(path)
            elif self._tree.disk.stat("web" + path.removeprefix(DAMAGED)) is not None:
                self._tree.discard(path)


def _aside(path: str) -> str:
    return f"{DAMAGED}/{path.removeprefix('web/')}"
