"""What our own tree says of a project, in place of upstream: for what is decided here, and needs nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from heliostat import names
from heliostat.errors import Invalid
from heliostat.mirror.amend import kept_file, original_of, own_document
from heliostat.mirror.inventory import take_inventory
from heliostat.mirror.metadata import Answers
from heliostat.mirror.removals import kept_pages
from heliostat.model import Document, ProjectPage
from heliostat.pages.links import local_page_url
from heliostat.pages.parse_json import parse_project
from heliostat.policy.removal import MARK
from heliostat.state.rows import KeptFile, Row
from heliostat.store.tree import Tree


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
    """The same from what was kept of a removed project; None when nothing usable is."""
    shown, described = (tree.disk.read(names.withheld_path(path)) for path in kept_pages(row.name))
    if shown is None:
        return None
    page = parse_project(shown, url=local_page_url(row.name), name=row.name)
    if page.status == "archived" and page.status_reason == MARK:
        page = msgspec.structs.replace(page, status="active", status_reason=None)
    document = own_document(described, row.name) if described is not None else None
    return _answers(row, page, described, document)


def _answers(row: Row, page: ProjectPage, body: bytes | None, document: Document | None) -> Answers:
    return Answers(
        page, page.serial, row.page_etag, body, document, row.document_etag,
        row.error if row.stuck else None, own=True,
    )  # fmt: skip


def _without(page: ProjectPage, retained: frozenset[str]) -> ProjectPage:
    from heliostat.pages.links import package_of

    files = tuple(file for file in page.files if package_of(file.url) not in retained)
    return msgspec.structs.replace(page, files=files) if len(files) < len(page.files) else page
