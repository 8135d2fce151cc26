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
from heliostat.errors import Invalid, Occupied, Refused
from heliostat.mirror.wanted import Held, held_files, nanoseconds, provenance_path
from heliostat.model import ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.links import local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.state.ledger import Ledger
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Tree, is_of


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


def others_claim(tree: Tree, ledger: Ledger, path: str, project: str) -> bool:
    """Whether another project than ``project`` claims ``path``; one whose page cannot be read may do so."""
    for name in owners(ledger, path) - {project}:
        try:
            if path in claimed_paths(tree, ledger, ProjectName(name)).by_any:
                return True
        except (Invalid, Refused):
            return True
    return False


def others_give_time(tree: Tree, ledger: Ledger, path: str, project: str) -> bool:
    """Whether a file has the time that another project than ``project`` gives it, or may have any."""
    entry = tree.disk.stat(path)
    for name in owners(ledger, path) - {project}:
        try:
            claimed = claimed_paths(tree, ledger, ProjectName(name))
        except (Invalid, Refused):
            return True
        if path in claimed.by_any and entry is not None and is_of(entry, claimed.times.get(path)):
            return True
    return False


def refuse_if_shared(tree: Tree, ledger: Ledger, path: str, project: str) -> None:
    """Raises Occupied for a path whose bytes ``project`` may not replace, since another one has them too."""
    if others_claim(tree, ledger, path, project):
        raise Occupied(path)


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
