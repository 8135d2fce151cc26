"""What is not right is moved aside, into ``withheld/damaged/``, until what is right is there."""

from __future__ import annotations

import itertools
import logging

from heliostat.mirror.places import DAMAGED
from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.folders import is_for_directory
from heliostat.store.obstacles import obstacle
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)


class Damaged:
    """What was moved aside, of one mirror; ``notes`` get what somebody should look at."""

    def __init__(self, tree: Tree, notes: list[str]) -> None:
        self._tree, self._notes = tree, notes

    def take(self, path: str) -> None:
        """Bytes that are not right are served no more, and kept until the right ones are there."""
        self.clear_way(path)
        if self._tree.disk.stat(path) is not None:
            log.warning("%s: damaged; kept as %s until it is replaced", path, self._move(path))

    def clear(self, one: Finding) -> None:
        """What is no file and no page of ours goes from where a page, document or link belongs; it is kept aside."""
        path = one.file.rstrip("/")
        if one.raw:
            return
        self.clear_way(path)
        if self._tree.disk.stat(path) is not None:
            self._move(path)

    def clear_obstacle(self, path: str) -> None:
        """What is no file where one belongs, or no directory where one does, goes, unless it has gone already."""
        self.clear_way(path)
        found = self._tree.disk.stat(path)
        directory = is_for_directory(path.removeprefix("web/").encode("utf-8", "surrogateescape"))
        if found is None or (found.is_directory if directory else found.is_file):
            return
        if directory:
            self._set_aside(path)
        else:
            log.warning("%s: in the way; moved to %s", path, self._move(path))

    def clear_way(self, path: str) -> None:
        """What is no directory goes from where one above ``path`` belongs; somebody is to look at it."""
        found = obstacle(self._tree.disk, path)
        if found is not None and found[0] != path:
            self._set_aside(found[0])

    def clear_unless_file(self, one: Finding) -> None:
        entry = self._tree.disk.stat(one.path)
        if entry is not None and not entry.is_file:
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

    def forget_replaced(self, folder: str = DAMAGED) -> int:
        """What an earlier repair moved aside, and could not replace, goes once a pass has; how many files that were."""
        gone = 0
        for entry in sorted(self._tree.disk.names(folder)):
            path = f"{folder}/{entry}"
            found = self._tree.disk.stat(path)
            if found is not None and found.is_directory:
                gone += self.forget_replaced(path)
                continue
            there = self._tree.disk.stat("web" + path.removeprefix(DAMAGED))
            if there is not None and not there.is_directory:
                gone += self._tree.discard(path)
        return gone

    def _set_aside(self, path: str) -> None:
        aside = self._move(path)
        log.warning("%s: in the way of what belongs below it; moved to %s", path, aside)
        self._notes.append(f"{aside}: was in the way; look at it, then remove it")

    def _move(self, path: str) -> str:
        """Move it aside, over an earlier one that is of no use any more; where it is then."""
        disk = self._tree.disk
        for number in itertools.count():
            aside = _aside(path) + (f"~{number}" if number else "")
            self._make_room(aside)
            there = disk.stat(aside)
            if there is not None and not there.is_directory and number == 0:
                self._tree.discard(aside)
                there = None
            if there is None or (there.is_directory and disk.remove_directory(aside)):
                break
        disk.replace(path, aside)
        return aside

    def _make_room(self, aside: str) -> None:
        """An earlier thing that was moved aside may lie where a directory is needed now."""
        found = obstacle(self._tree.disk, aside)
        if found is not None and found[0] != aside:
            for number in itertools.count(1):
                other = f"{found[0]}~{number}"
                if self._tree.disk.stat(other) is None:
                    self._tree.disk.replace(found[0], other)
                    return


def _aside(path: str) -> str:
    return f"{DAMAGED}/{path.removeprefix('web/')}"
