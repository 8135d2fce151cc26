"""What no page names is removed, as long as that is plausible, after one more look at who may claim it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from heliostat.errors import Invalid, Refused, StateError
from heliostat.mirror.owners import Neighbours, owners
from heliostat.mirror.removals import plausible
from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.judge import Judge
from heliostat.mirror.verify.result import Repaired
from heliostat.names import METADATA_SUFFIX
from heliostat.state.ledger import Ledger
from heliostat.store.tree import Tree

#: Below these are the bytes that pages name.
STORED = ("web/packages/", "web/integrity/")

#: Below these a whole folder can be nobody's, if it has not more than so much in it.
_PAGES = ("web/simple/", "web/json/", "web/pypi/", "partial/")
_MOST_INSIDE = 100


class Remover:
    """Removes what findings call unreferenced, and notes in ``result`` what became of it."""

    def __init__(
        self, tree: Tree, ledger: Ledger, names: Names, judge: Judge, result: Repaired, stop: asyncio.Event
    ) -> None:
        self._tree, self._ledger, self._names, self._judge = tree, ledger, names, judge
        self._result, self._stop = result, stop

    def run(self, findings: Callable[[], Iterable[Finding]], count: int, *, allow: int, unreadable: int) -> None:
        """``findings`` have ``count`` such files; see :meth:`heliostat.mirror.run.Mirror.repair`."""
        if unreadable:
            self._result.notes.append(
                f"nothing was removed: the pages of {unreadable} projects cannot be read, and may name it; "
                "--repair first, then verify again"
            )
            return
        _, files, _ = self._ledger.totals()
        if not plausible(count, 0, files + count) and count > allow:
            self._result.held = count
            return
        for number, one in enumerate(findings()):
            if self._stop.is_set():
                return
            if one.kind == "unreferenced" and self._remove(one):
                self._result.fixed.add(number)

    def _remove(self, one: Finding) -> bool:
        """Remove it, unless anything says by now that it is somebody's; whether it is gone."""
        path = one.file
        if path.startswith(STORED):
            if one.raw:
                return self._unlink(path)  # nothing of ours has such a name
            if self._ledger.paths.is_spoken_for(path) or self._is_claimed(path):
                self._result.notes.append(f"{one.path}: stays: the ledger or a page says that it is somebody's")
                return False
        elif not path.startswith(("web/simple/", "web/json/", "web/pypi/", "partial/")):
            return False
        elif one.project and not self._is_stray(one):
            self._result.notes.append(f"{one.path}: stays: it belongs to the project by now")
            return False
        return self._unlink(path)

    def _is_stray(self, one: Finding) -> bool:
        """Whether what lies among a project's pages is still none of them."""
        judgement = self._judge.judge(self._names.one(one.project))
        return any((still.kind, still.path) == (one.kind, one.path) for still in judgement.findings)

    def _unlink(self, path: str) -> bool:
        entry = self._tree.disk.stat(path)
        if entry is None:
            return True
        if entry.is_directory:
            inside = self._inside(path) if path.startswith(_PAGES) else []
            if inside is not None:
                for one in inside:
                    self._tree.disk.remove_directory(one) or self._tree.disk.unlink(one)
                self._result.deleted += len(inside)
            if not self._tree.disk.remove_directory(path):
                self._result.notes.append(f"{path!a}: a directory with something in it; look at it, and remove it")
                return False
            return True
        self._tree.discard(path)
        self._result.deleted += 1
        return True

    def _inside(self, path: str) -> list[str] | None:
        """All that a directory holds, the innermost first; None for more than may go as one thing."""
        found: list[str] = []
        folders = [path]
        for folder in folders:
            for entry in self._tree.disk.names(folder):
                one = f"{folder}/{entry}"
                there = self._tree.disk.stat(one)
                if there is not None and there.is_directory:
                    folders.append(one)
                found.append(one)
                if len(found) > _MOST_INSIDE:
                    return None
        return found[::-1]

    def _is_claimed(self, path: str) -> bool:
        """Whether any project that may own the path claims it, or has a page that cannot be read."""
        try:
            filename = path.rpartition("/")[2].removesuffix(METADATA_SUFFIX)
            return Neighbours(self._tree, self._ledger, "", {filename}).claim(path) or any(
                self._names_it(name, path) for name in owners(self._ledger, path)
            )
        except (Invalid, Refused, StateError):
            return True

    def _names_it(self, name: str, path: str) -> bool:
        line = path.removeprefix("web/").encode("utf-8", "surrogateescape") + b"\t"
        judgement = self._judge.judge(self._names.one(name))
        return not judgement.readable or any(claim.startswith(line) for claim in judgement.claims)
