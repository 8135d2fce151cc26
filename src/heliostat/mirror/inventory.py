"""What our own tree holds of one project before it is changed."""

from __future__ import annotations

import logging
from collections.abc import Collection

import msgspec

from heliostat.errors import Invalid, Refused
from heliostat.mirror.traces import paths_told
from heliostat.model import DistFile, Document, ProjectName, ProjectPage
from heliostat.pages.document import parse_document
from heliostat.pages.links import local_document_url, local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.store.tree import Shown, Tree

log = logging.getLogger(__name__)


class Inventory(msgspec.Struct, frozen=True):
    """Bytes and meaning of what is shown now; all None for a project of which nothing is."""

    shown: Shown | None
    page: ProjectPage | None
    document: Document | None
    files: dict[str, DistFile] = {}
    #: Without a page, or where it says less than it should: paths that are the project's all the same.
    traces: frozenset[str] = frozenset()

    def sha256_of(self, filename: str) -> str | None:
        file = self._file(filename)
        return file.hashes.get("sha256") if file else None

    def sidecar_of(self, filename: str) -> dict[str, str] | None:
        """The hashes of the sidecar that our page states."""
        file = self._file(filename)
        return file.core_metadata if file and isinstance(file.core_metadata, dict) else None

    def _file(self, filename: str) -> DistFile | None:
        return self.files.get(filename)


def take_inventory(tree: Tree, name: ProjectName, published: bool) -> Inventory:
    """Read what is served for ``name``.  A page of ours that cannot be read counts as none, with a warning.

    Also of a project that is not recorded as ``published`` something may lie there: a kill comes before the record.
    Raises Obstructed when something else lies where pages, document or link belong.
    """
    if not tree.refuse_obstacles(name) and not published:
        return Inventory(None, None, None)
    shown = tree.shown(name)
    page = document = None
    try:
        if shown.json_page is not None:
            page = parse_project(shown.json_page, url=local_page_url(name), name=name)
    except (Invalid, Refused) as error:
        log.warning("cannot read our own page of %s, writing it anew: %s", name, error)
    try:
        if shown.document is not None:
            document = parse_document(shown.document, url=local_document_url(name), name=name)
    except (Invalid, Refused) as error:
        log.warning("cannot read our own document of %s, writing it anew: %s", name, error)
    if page is None:
        return Inventory(shown, None, document, traces=frozenset(paths_told(tree, name)))
    files = {file.filename: file for file in page.files}
    traces = frozenset(paths_told(tree, name)) if _says_less(page, files.keys(), shown, document) else frozenset[str]()
    return Inventory(shown, page, document, files, traces)


def _says_less(page: ProjectPage, listed: Collection[str], shown: Shown, document: Document | None) -> bool:
    """Whether our page leads away from the tree, or lists less than what lies beside it: it was damaged, perhaps.

    Counting is enough: what those say is read only then.
    """
    if any(package_of(file.url) is None and not file.url.startswith(("https://", "http://")) for file in page.files):
        return True
    if shown.html_page is not None and shown.html_page.count(b"<a href=") > len(page.files):
        return True
    return document is not None and any(entry.filename not in listed for entry in document.files)
