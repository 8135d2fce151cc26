"""Bytes whose page is gone go last: each doomed path is unlinked, or withheld, after one more look at who claims it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.wanted import Held, held_files, provenance_path
from heliostat.model import ProjectName
from heliostat.pages.document import parse_document
from heliostat.pages.links import local_page_url
from heliostat.pages.parse_json import parse_project
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.tree import JSON_PAGE, Tree

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
        """Unlink or withhold each path that no page claims, then clear its row."""
        rows = list(rows)
        if not rows:
            return
        log.debug("removing %d unreferenced files", len(rows))
        claims: dict[str, set[str] | None] = {}
        withheld: list[PathRow] = []
        released: list[PathRow] = []
        finished: list[PathRow] = []
        for row in rows:
            claimants = {row.project, *self._ledger.paths.claimants(row.path)}
            for name in claimants - claims.keys():
                claims[name] = self._claims(name)
            if any(claims[name] is None for name in claimants):
                continue  # a page that cannot be read may claim it: stays doomed until that page is whole again
            finished.append(row)
            if any(row.path in (claims[name] or ()) for name in claimants):
                continue
            if row.fate in ("withhold", "withhold-release"):
                if self._tree.withhold(row.path):
                    withheld.append(PathRow(row.path, row.project, "withheld", row.fate, row.serial))
            else:
                self._tree.discard(row.path)
                if self._tree.discard(names.withheld_path(row.path)):
                    released.append(PathRow(row.path, row.project, "withheld"))
        with self._ledger.transaction():
            self._ledger.paths.clear(finished)
            self._ledger.paths.clear(PathRow(row.path, row.project, "shared") for row in finished)
            self._ledger.paths.clear(released)
            self._ledger.paths.add(withheld)

    def _claims(self, name: str) -> set[str] | None:
        if name == SOMEBODY:
            return None
        try:
            return claimed_paths(self._tree, ProjectName(name))
        except (Invalid, Refused) as error:
            log.warning("cannot read our own page of %s: %s; 'heliostat rebuild' mends it", name, error)
            return None


def claimed_paths(tree: Tree, name: ProjectName) -> set[str]:
    """Every path below ``web/`` that the project's page or document puts in place now.

    Raises Invalid or Refused when our own page cannot be read.
    """
    body = tree.disk.read(f"{names.page_directory(name)}/{JSON_PAGE}")
    if body is None:
        return set()
    raw = tree.disk.read(names.document_path(name))
    return held_paths(
        name,
        held_files(
            parse_project(body, url=local_page_url(name), name=name),
            parse_document(raw, url=names.document_path(name)) if raw is not None else None,
        ),
    )


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
    parts = path.removesuffix(names.METADATA_SUFFIX).rpartition("/")[2].split("-")
    owners = []
    for count in range(1, len(parts) + 1):
        try:
            name = names.normalise("-".join(parts[:count]))
        except Refused:
            continue
        row = ledger.row(name)
        if row is not None and row.published and path in claimed_paths(tree, name):
            owners.append(PathRow(path, name, "shared"))
    return owners or [PathRow(path, SOMEBODY, "shared")]
