"""Bytes whose page is gone go last: each doomed path is unlinked, or withheld, after one more look at who claims it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from heliostat import names
from heliostat.errors import Invalid, Obstructed, Refused
from heliostat.mirror.entries import entries_of_bytes
from heliostat.mirror.owners import Claimed, claimed_paths, owners
from heliostat.model import ProjectName
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.beats import got_on
from heliostat.store.obstacles import obstacle
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Tree

log = logging.getLogger(__name__)


class Reaper:
    """Carries out doomed rows; belongs to the keeper's thread."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self._tree, self._ledger = tree, ledger

    def reap_leftovers(self) -> int:
        """Carry out the rows that an earlier process left; how many."""
        rows = self._ledger.paths.of_kind("doomed", limit=-1)
        for name in {ProjectName(row.project) for row in rows}:
            self._finish_document(name, [row.path for row in rows if row.project == name and row.fate != "restored"])
        if rows:
            self._tree.disk.sync()
            self.reap(rows)
        return len(rows)

    def _finish_document(self, name: ProjectName, paths: Iterable[str]) -> None:
        """A kill may have come between a project's pages and its document, which then still names what is to go."""
        document = self._tree.disk.stat(names.document_path(name))
        body = self._tree.disk.read(names.document_path(name)) if document is not None and document.is_file else None
        claimed = self._claims(name) if body is not None else None
        if body is None or claimed is None:
            return
        if not any(_mentions(body, path) for path in paths if path not in claimed.by_any):
            return
        pages = (f"{names.page_directory(name)}/{page}" for page in (JSON_PAGE, *HTML_PAGES))
        if any(self._tree.disk.stat(page) for page in pages):
            self._tree.remove_document(name)
        else:
            self._tree.withdraw(name)

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
        gone: list[PathRow] = []
        kept: list[PathRow] = []
        for row in rows:
            got_on()
            if row.fate == "restored":
                self._tree.discard(names.withheld_path(row.path))
                finished.append(row)
                continue
            by = self._claimants(row, claims)
            if by is None:
                continue  # a page that cannot be read may claim it: stays doomed until that page is whole again
            if by:
                if not any(row.path in one.by_json for one in by):
                    continue  # claimed by an HTML page alone, it stays doomed until that page is replaced
                self._tree.set_time(row.path, *(one.times.get(row.path) for one in by))
                kept.append(row)
            elif (link := self._tree.link_above(row.path)) is not None:
                if link != row.path.rpartition("/")[0]:
                    log.warning("%s stays: %s is a symbolic link, and what lies behind is not ours", row.path, link)
                    continue
                self._tree.discard(link)
                gone.append(row)
            elif obstacle(self._tree.disk, row.path) is not None:
                log.warning("%s: what lies there, or on the way there, is not ours, and stays", row.path)
                gone.append(row)
            elif row.fate in ("withhold", "keep"):
                if self._tree.withhold(row.path):
                    since = None if row.fate == "withhold" else row.at or time.time()
                    kept_row = PathRow(row.path, row.project, "withheld", row.fate, row.serial, row.version, since)
                    withheld.append(kept_row)
                gone.append(row)
            else:
                self._tree.discard(row.path)
                gone.append(row)
            if row.fate == "unlink":
                self._tree.discard(names.withheld_path(row.path))
                released.append(PathRow(row.path, row.project, "withheld"))
            finished.append(row)
        self._tree.disk.sync()
        with self._ledger.transaction():
            self._ledger.paths.clear(finished)
            self._ledger.paths.clear(released)
            self._ledger.paths.add(withheld)
            self._ledger.paths.wake((row.path for row in gone), time.time())
            self._ledger.changelog.write(entries_of_bytes(gone, kept), time.time())

    def _claimants(self, row: PathRow, claims: dict[str, Claimed | None]) -> list[Claimed] | None:
        """What the projects claim that claim the row's path; None if a page that may do so cannot be read."""
        found: list[Claimed] = []
        for name in sorted({row.project, *owners(self._ledger, row.path)}):
            if name not in claims:
                claims[name] = self._claims(name)
            one = claims[name]
            if one is None:
                return None
            if row.path in one.by_any:
                found.append(one)
        return found

    def _claims(self, name: str) -> Claimed | None:
        try:
            return claimed_paths(self._tree, self._ledger, ProjectName(name))
        except (Invalid, Refused, Obstructed) as error:
            log.warning("cannot read our own page of %s: %s; 'heliostat rebuild' mends it", name, error)
            return None


def _mentions(document: bytes, path: str) -> bool:
    """Whether a document names the file at ``path`` (``web/packages/aa/bb/REST/...``), by its URL or its digest."""
    digits = path.split("/")[2:5]
    return "/".join(digits).encode() in document or "".join(digits).encode() in document
