"""Bytes whose page is gone go last: each doomed path is unlinked, or withheld, after one more look at who claims it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.wanted import Held, held_files, provenance_path
from heliostat.model import ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.document import parse_document
from heliostat.pages.links import local_document_url, local_page_url
from heliostat.pages.parse_json import parse_project
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Tree

log = logging.getLogger(__name__)

#: Stands for a project that claims a path and could not be found: its bytes are never removed by a pass.
SOMEBODY = "*"


class Reaper:
    """Carries out doomed rows; belongs to the keeper's thread."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self._tree, self._ledger = tree, ledger

    def reap_leftovers(self) -> int:
        """Carry out the rows that an earlier process left; how many."""
        rows = self._ledger.paths.of_kind("doomed", limit=-1)
        self.reap(rows)
        return len(rows)

    def reap(self, rows: Iterable[PathRow]) -> None:
        """Unlink or withhold each path that no page claims, and only once that is durable clear its row."""
        rows = list(rows)
        if not rows:
            return
        log.debug("removing %d unreferenced files", len(rows))
        claims: dict[str, Claimed | None] = {}
        withheld: list[PathRow] = []
        released: list[PathRow] = []
        finished: list[PathRow] = []
        for row in rows:
            claimants = {row.project, *self._ledger.paths.claimants(row.path)}
            for name in claimants - claims.keys():
                claims[name] = self._claims(name)
            by = [claims[name] for name in claimants]
            if None in by:
                continue  # a page that cannot be read may claim it: stays doomed until that page is whole again
            if row.fate != "restored" and any(one and row.path in one.by_any for one in by):
                if any(one and row.path in one.by_json for one in by):
                    finished.append(row)
                continue  # claimed by an HTML page alone, it stays doomed until that page is replaced
            finished.append(row)
            if row.fate == "restored":
                self._tree.discard(names.withheld_path(row.path))
            elif row.fate == "withhold":
                if self._tree.withhold(row.path):
                    withheld.append(PathRow(row.path, row.project, "withheld", row.fate, row.serial, row.version))
            else:
                self._tree.discard(row.path)
                self._tree.discard(names.withheld_path(row.path))
                released.append(PathRow(row.path, row.project, "withheld"))
        self._tree.disk.sync()
        with self._ledger.transaction():
            self._ledger.paths.clear(finished)
            self._ledger.paths.clear(PathRow(row.path, row.project, "shared") for row in finished)
            self._ledger.paths.clear(released)
            self._ledger.paths.add(withheld)

    def _claims(self, name: str) -> Claimed | None:
        if name == SOMEBODY:
            return None
        try:
            return claimed_paths(self._tree, ProjectName(name))
        except (Invalid, Refused) as error:
            log.warning("cannot read our own page of %s: %s; 'heliostat rebuild' mends it", name, error)
            return None


class Claimed(NamedTuple):
    """Paths below ``web/`` that a project puts in place now."""

    #: By its JSON page and its document, which the next pass starts from.
    by_json: set[str]
    #: By any form of its page: a power cut may have left a new one beside an old one.
    by_any: set[str]


def claimed_paths(tree: Tree, name: ProjectName) -> Claimed:
    """What the project's pages and its document claim.  Raises Invalid or Refused when one cannot be read."""
    directory, url = names.page_directory(name), local_page_url(name)
    body = tree.disk.read(f"{directory}/{JSON_PAGE}")
    html = {tree.disk.read(f"{directory}/{entry}") for entry in HTML_PAGES}
    pages: list[ProjectPage | None] = [parse_project(body, url=url, name=name) if body is not None else None]
    pages += [parse_html.parse_project(body, url=url, name=name) for body in html if body is not None]
    raw = tree.disk.read(names.document_path(name))
    document = parse_document(raw, url=local_document_url(name)) if raw is not None else None
    by_each = [held_paths(name, held_files(page, document)) for page in pages]
    return Claimed(by_each[0], set().union(*by_each))


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


def shared_with(tree: Tree, ledger: Ledger, path: str) -> list[PathRow]:
    """Rows for the projects that have ``path`` already, found by the names that its file name can begin with.

    The ledger has no row a file, so the owner is looked for where it must be on any index whose file names begin
    with their project's name; one that cannot be found is recorded as :data:`SOMEBODY`.
    """
    owners = []
    for name in possible_owners(path):
        row = ledger.row(name)
        if row is not None and row.published and path in claimed_paths(tree, name).by_any:
            owners.append(PathRow(path, name, "shared"))
    return owners or [PathRow(path, SOMEBODY, "shared")]


def possible_owners(path: str) -> Iterator[ProjectName]:
    """The projects that a file, sidecar or provenance object may be of, going by its path; the longest name last."""
    if path.startswith("web/integrity/"):
        yield ProjectName(path.split("/")[2])
        return
    parts = path.removesuffix(names.METADATA_SUFFIX).rpartition("/")[2].split("-")
    for count in range(1, len(parts) + 1):
        with contextlib.suppress(Refused):
            yield names.normalise("-".join(parts[:count]))
