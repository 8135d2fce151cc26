"""What a project has in the tree, as far as what can still be read tells: it goes, whatever became of its pages.

Who only looks whether a path is somebody's needs to know all, and asks :mod:`heliostat.mirror.owners`.
"""

from __future__ import annotations

import contextlib
import logging

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.owners import held_paths
from heliostat.mirror.wanted import digits_of, held_files
from heliostat.model import ProjectName
from heliostat.pages import parse_html, parse_json
from heliostat.pages.document import parse_document
from heliostat.pages.links import local_document_url, local_page_url
from heliostat.state.ledger import Ledger
from heliostat.store.tree import HTML_PAGES, JSON_PAGE, Tree

log = logging.getLogger(__name__)


def traces_of(tree: Tree, ledger: Ledger, name: ProjectName) -> set[str]:
    """Paths below ``web/`` that a project puts in place: by the pages that can be read, and the ledger's rows.

    And by its document.  What nothing tells is left unreferenced.
    """
    return {row.path for row in ledger.paths.of_project(name, "extra")} | paths_told(tree, name)


def paths_told(tree: Tree, name: ProjectName) -> set[str]:
    """The same without the ledger."""
    found = set[str]()
    seen = set[bytes]()
    for entry in (JSON_PAGE, *HTML_PAGES):
        body = tree.disk.read(f"{names.page_directory(name)}/{entry}")
        if body is None or body in seen:
            continue
        seen.add(body)
        parse = parse_json if entry == JSON_PAGE else parse_html
        try:
            page = parse.parse_project(body, url=local_page_url(name), name=name)
        except (Invalid, Refused) as error:
            log.warning("cannot read our own page of %s, looking at its others: %s", name, error)
            continue
        found |= held_paths(name, held_files(page))
    return found | _described(tree, name)


def _described(tree: Tree, name: ProjectName) -> set[str]:
    """Files and sidecars that lie where the document's digests say."""
    body = tree.disk.read(names.document_path(name))
    try:
        document = parse_document(body, url=local_document_url(name), name=name) if body is not None else None
    except (Invalid, Refused):
        return set()
    found = set()
    for entry in document.files if document is not None else ():
        for digits in {digits_of(entry), names.content_digits(entry.url), *entry.hashes.values()}:
            with contextlib.suppress(Refused):
                path = names.package_path(digits or "", entry.filename)
                found |= {one for one in (path, names.sidecar_path(path)) if tree.disk.stat(one) is not None}
    return found
