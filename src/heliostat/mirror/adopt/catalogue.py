"""Which projects a tree has, however the folders are called that they lie in."""

from __future__ import annotations

from heliostat import names
from heliostat.errors import Refused
from heliostat.mirror.adopt.eye import Eye
from heliostat.mirror.adopt.layouts import is_temporary
from heliostat.model import ProjectName
from heliostat.store.tree import HTML_PAGES, JSON_PAGE

#: What a folder with an index page has in it.
PAGES = frozenset((JSON_PAGE, *HTML_PAGES))
SIMPLE, JSON, PYPI = "web/simple", "web/json", "web/pypi"
#: Beside the root pages.
_ROOT = PAGES | {f"{page}.gz" for page in PAGES}


class Catalogue:
    """All project names, in order, and where those lie that are not simply at ``simple/NAME/`` and ``json/NAME``.

    One look at the three folders; memory grows with the number of projects by a name each.
    """

    def __init__(self, eye: Eye) -> None:
        self._eye = eye
        #: Folders with pages: of an index hashed by first letters, or not in normal form.
        self.folders: dict[ProjectName, list[str]] = {}
        #: Documents below ``json/`` or ``pypi/`` that are not in normal form.
        self.documents: dict[ProjectName, list[str]] = {}
        #: Folders of a hashed index that are no projects themselves.
        self.hashed: list[str] = []
        #: Temporaries of an old tool, and what lies there that is no project.
        self.temporaries: list[str] = []
        self.strange: list[str] = []
        found: set[ProjectName] = set()
        self._simple(found)
        self._documents(JSON, found)
        self._documents(PYPI, found)
        self.names = sorted(found)
        self.hashed = [path for path in self.hashed if path[-1] not in found]  # a project of one letter will need it

    def _simple(self, found: set[ProjectName]) -> None:
        for entry in self._eye.names(SIMPLE):
            path = f"{SIMPLE}/{entry}"
            if entry in _ROOT:
                continue
            if len(entry) == 1 and (inside := self._hashed(path, entry)) is not None:
                for one in inside:
                    self._take(one, f"{path}/{one}", found, self.folders, always=True)
                if not self._has_page(path):
                    self.hashed.append(path)
                    continue
            self._take(entry, path, found, self.folders)

    def _documents(self, folder: str, found: set[ProjectName]) -> None:
        for entry in self._eye.names(folder):
            path = f"{folder}/{entry}" + ("/json" if folder == PYPI else "")
            self._take(entry, path, found, self.documents)

    def _take(
        self,
        entry: str,
        path: str,
        found: set[ProjectName],
        odd: dict[ProjectName, list[str]],
        *,
        always: bool = False,
    ) -> None:
        try:
            name = names.normalise(entry)
        except Refused:
            if is_temporary(entry):
                self.temporaries.append(path)
            else:
                self.strange.append(path.removesuffix("/json"))
            return
        found.add(name)
        if always or name != entry:
            odd.setdefault(name, []).append(path)

    def _hashed(self, path: str, letter: str) -> list[str] | None:
        """The projects that begin with ``letter`` and lie in it; None when it is no folder of a hashed index.

        Folders without pages, and none at all, are what an adoption left that was killed.
        """
        entries = self._eye.names(path)
        inside = [one for one in entries if one[:1].lower() == letter.lower() and self._is_project(f"{path}/{one}")]
        return inside if inside or not entries else None

    def _is_project(self, path: str) -> bool:
        """Project "v" may have a folder for older versions of its pages."""
        return self._eye.is_folder(path) and not any(one.startswith("index_") for one in self._eye.names(path))

    def _has_page(self, path: str) -> bool:
        return any(self._eye.lstat(f"{path}/{page}") is not None for page in PAGES)
