"""Who claims a path: pages say it, and the ledger says of which projects the pages are to be asked.

The ledger has no row a file.  A file's owners are the projects whose names its own begins with, as on any index nearly
always, and those recorded for it: where its name does not tell that it is the project's (``claimed``), and where the
project's document alone lists it (``extra``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from heliostat import names
from heliostat.errors import Invalid, Obstructed, Occupied, Refused
from heliostat.mirror.wanted import Held, held_files, nanoseconds, provenance_path
from heliostat.model import ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.links import local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.state.ledger import Ledger
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Tree, is_of

#: Pages of other projects of which something is kept while one project is worked on.
_MOST_NEIGHBOURS = 64


class Claimed(NamedTuple):
    """Paths below ``web/`` that a project puts in place now."""

    #: By its JSON page, which the next pass starts from, and by the rows of what only its document lists.
    by_json: set[str]
    #: By any form of its page: a power cut may have left a new one beside an old one.
    by_any: set[str]
    #: When files that the JSON page lists were uploaded, in nanoseconds, by their paths.
    times: dict[str, int]


def claimed_paths(tree: Tree, ledger: Ledger, name: ProjectName) -> Claimed:
    """What the project's pages claim, and its rows.  Raises Invalid or Refused when a page cannot be read."""
    directory, url = names.page_directory(name), local_page_url(name)
    body = tree.disk.read(f"{directory}/{JSON_PAGE}")
    html = {tree.disk.read(f"{directory}/{entry}") for entry in HTML_PAGES}
    page = parse_project(body, url=url, name=name) if body is not None else None
    pages = [parse_html.parse_project(body, url=url, name=name) for body in html if body is not None]
    extra = {row.path for row in ledger.paths.of_project(name, "extra")}
    by_json = held_paths(name, held_files(page)) | extra
    by_any = by_json.union(*(held_paths(name, held_files(one)) for one in pages))
    return Claimed(by_json, by_any, _times(page))


def _times(page: ProjectPage | None) -> dict[str, int]:
    times: dict[str, int] = {}
    for file in page.files if page else ():
        path, when = package_of(file.url), nanoseconds(file.upload_time)
        if path is not None and when is not None:
            times[path] = times[names.sidecar_path(path)] = when
    return times


def held_paths(name: ProjectName, held: Mapping[str, Held]) -> set[str]:
    """The paths of files, their sidecars and their provenance objects."""
    paths: set[str] = set()
    for filename, file in held.items():
        paths.add(file.path)
        if file.core_metadata:
            paths.add(names.sidecar_path(file.path))
        if file.provenance and (path := provenance_path(name, file.provenance, filename)):
            paths.add(path)
    return paths


def owners(ledger: Ledger, path: str) -> set[str]:
    """The projects whose pages may claim ``path``."""
    return ledger.paths.owners(path, path.removesuffix(names.METADATA_SUFFIX), list(possible_owners(path)))


class Neighbours:
    """What other projects claim of the places of one project's files; belongs to the keeper's thread.

    A page is read once, however many files are asked about.  That holds as long as the project has its turn with
    those file names (:mod:`heliostat.mirror.claims`): until then nobody else begins, or ceases, to claim such a path.
    What is kept of a page is what concerns those names, so that it is bounded by the project's own files.
    """

    def __init__(self, tree: Tree, ledger: Ledger, project: str, filenames: set[str]) -> None:
        self._tree, self._ledger, self._project, self._filenames = tree, ledger, project, filenames
        #: None for a page that cannot be read.
        self._known: dict[str, Claimed | None] = {}

    def claim(self, path: str) -> bool:
        """Whether another project claims ``path``; one whose page cannot be read may do so."""
        return any(one is None or path in one.by_any for one in self._asked(path))

    def give_time(self, path: str) -> bool:
        """Whether a file has the time that another project gives it, or may have any."""
        entry = self._tree.disk.stat(path)
        for one in self._asked(path):
            if one is None:
                return True
            if path in one.by_any and entry is not None and is_of(entry, one.times.get(path)):
                return True
        return False

    def refuse_if_shared(self, path: str) -> None:
        """Raises Occupied for a path whose bytes the project may not replace, since another one has them too."""
        if self.claim(path):
            raise Occupied(path)

    def _asked(self, path: str) -> Iterator[Claimed | None]:
        for name in owners(self._ledger, path) - {self._project}:
            if name not in self._known:
                if len(self._known) >= _MOST_NEIGHBOURS:
                    del self._known[next(iter(self._known))]
                self._known[name] = self._read(name)
            yield self._known[name]

    def _read(self, name: str) -> Claimed | None:
        try:
            claimed = claimed_paths(self._tree, self._ledger, ProjectName(name))
        except (Invalid, Refused, Obstructed):
            return None
        by_json, by_any = ({path for path in paths if self._concerns(path)} for paths in claimed[:2])
        return Claimed(by_json, by_any, {path: when for path, when in claimed.times.items() if path in by_any})

    def _concerns(self, path: str) -> bool:
        return path.rpartition("/")[2].removesuffix(names.METADATA_SUFFIX) in self._filenames


def others_claim(tree: Tree, ledger: Ledger, path: str, project: str) -> bool:
    """Whether another project than ``project`` claims ``path`` at this moment; see :meth:`Neighbours.claim`."""
    filename = path.rpartition("/")[2].removesuffix(names.METADATA_SUFFIX)
    return Neighbours(tree, ledger, project, {filename}).claim(path)


def possible_owners(path: str) -> Iterator[ProjectName]:
    """The projects that a file, sidecar or provenance object may be of, going by its path; the longest name last."""
    if path.startswith("web/integrity/"):
        yield ProjectName(path.split("/")[2])
        return
    parts = path.removesuffix(names.METADATA_SUFFIX).rpartition("/")[2].split("-")
    for count in range(1, len(parts) + 1):
        with contextlib.suppress(Refused):
            yield names.normalise("-".join(parts[:count]))


def tells_owner(path: str, name: str) -> bool:
    """Whether a file's name begins with that of the project, so that no row need say whose it is."""
    filename = path.rpartition("/")[2]
    begins, follows = filename[: len(name)], filename[len(name) : len(name) + 1]
    if follows == "-" and begins.lower().replace("_", "-").replace(".", "-") == name:  # nearly always
        return True
    return any(one == name for one in possible_owners(path))
