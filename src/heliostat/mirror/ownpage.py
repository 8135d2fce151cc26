"""What our own tree says of a project, in place of upstream: for what is decided here, and needs nobody else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from heliostat import names
from heliostat.errors import Invalid
from heliostat.mirror.amend import document_without, kept_file, original_of, own_document
from heliostat.mirror.inventory import take_inventory
from heliostat.mirror.metadata import Answers
from heliostat.mirror.removals import kept_pages
from heliostat.model import DistFile, Document, ProjectPage
from heliostat.pages.links import local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.policy.denials import Versions
from heliostat.policy.removal import MARK
from heliostat.state.rows import KeptFile, Row
from heliostat.store.tree import Tree

log = logging.getLogger(__name__)


def own_answers(
    tree: Tree, row: Row, *, retained: frozenset[str] = frozenset(), returning: Sequence[KeptFile] = ()
) -> Answers:
    """Page and document as they are shown now, as if upstream had said so.

    Without the paths that are ``retained``, which upstream did not say; with the files that are ``returning``.
    Where upstream's own document is kept, it is that one.  Raises Invalid when our page cannot be read.
    """
    inventory = take_inventory(tree, row.name, published=True)
    if inventory.page is None:
        raise Invalid(local_page_url(row.name), "our own page cannot be read; 'heliostat rebuild' makes it anew")
    body = inventory.shown.document if inventory.shown else None
    original = original_of(tree, row.name)
    document = inventory.document
    if original is not None:
        body, document = original, own_document(original, row.name)
    elif document is None:
        body = None
    page = _without(inventory.page, retained)
    there = {file.filename for file in page.files}
    back = [one for one in map(kept_file, returning) if one.file.filename not in there]
    versions = page.versions
    if versions is not None:
        versions = tuple(dict.fromkeys([*versions, *(one.version for one in back if one.version)]))
    page = msgspec.structs.replace(page, files=(*page.files, *(one.file for one in back)), versions=versions)
    return _answers(row, page, body, document)


def put_aside_answers(tree: Tree, row: Row) -> Answers | None:
    """The same from what was kept of a removed project; None when nothing usable is.

    Files whose bytes were lost meanwhile are left out: nobody may have them any more.
    """
    shown, described = (tree.disk.read(names.withheld_path(path)) for path in kept_pages(row.name))
    if shown is None:
        return None
    page = parse_project(shown, url=local_page_url(row.name), name=row.name)
    if page.status == "archived" and page.status_reason == MARK:
        page = msgspec.structs.replace(page, status="active", status_reason=None)
    left = _with_bytes(tree, page)
    lost = {file.filename for file in page.files} - {file.filename for file in left}
    if lost:
        log.warning("%s: %d of its files were lost, for example %s", row.name, len(lost), min(lost))
        if not left:
            return None
        described = document_without(described, lost, Versions(())) if described is not None else None
    page = msgspec.structs.replace(page, files=left)
    document = own_document(described, row.name) if described is not None else None
    return _answers(row, page, described, document)


def _with_bytes(tree: Tree, page: ProjectPage) -> tuple[DistFile, ...]:
    """Those files of a page that are in place or out of reach, without sidecars that are neither."""

    def is_there(path: str) -> bool:
        return tree.has_file(path) or tree.has_file(names.withheld_path(path))

    left = []
    for file in page.files:
        path = package_of(file.url)
        if path is not None and not is_there(path):
            continue
        if path is not None and file.core_metadata and not is_there(names.sidecar_path(path)):
            file = msgspec.structs.replace(file, core_metadata=None)  # noqa: PLW2901
        left.append(file)
    return tuple(left)


def _answers(row: Row, page: ProjectPage, body: bytes | None, document: Document | None) -> Answers:
    return Answers(
        page, page.serial, row.page_etag, body, document, row.document_etag,
        row.error if row.stuck else None, own=True,
    )  # fmt: skip


def _without(page: ProjectPage, retained: frozenset[str]) -> ProjectPage:
    files = tuple(file for file in page.files if package_of(file.url) not in retained)
    return msgspec.structs.replace(page, files=files) if len(files) < len(page.files) else page
