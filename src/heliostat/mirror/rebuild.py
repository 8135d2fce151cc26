"""``heliostat rebuild``: pages, document links and ledger made anew from what is on disk, without the network.

The JSON page says everything; where it is missing or damaged the HTML page or the document is read instead.  A file
that a page lists and that is not there makes its project owed, and so does a document that must be there; nothing is
ever removed here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import msgspec

from heliostat import names
from heliostat.errors import Invalid, Obstructed, Refused
from heliostat.mirror.entries import mark_changing, note_repaired
from heliostat.mirror.inventory import Inventory, take_inventory
from heliostat.mirror.owners import possible_owners, tells_owner
from heliostat.mirror.places import DAMAGED
from heliostat.mirror.removals import PAGES
from heliostat.mirror.report import Counters
from heliostat.mirror.wanted import digits_of, wanted_files
from heliostat.model import CoreMetadata, DistFile, Document, DocumentFile, ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.links import file_link, local_page_url, package_of
from heliostat.pages.render import project_html, project_json
from heliostat.pages.root_list import RootListParser
from heliostat.policy.denials import release_of
from heliostat.policy.removal import MARK
from heliostat.state.ledger import Ledger
from heliostat.state.rows import PathRow
from heliostat.store.tree import JSON_PAGE, Publication, Shown, Tree

log = logging.getLogger(__name__)

_BATCH = 256
#: Bytes of the root list that are looked at in one go.
_PIECE = 1 << 20


def rebuild_tree(
    tree: Tree, ledger: Ledger, counters: Counters, stopped: Callable[[], bool], in_scope: Callable[[str], bool]
) -> int:
    """Rebuild everything; how many projects were found.  Belongs to the keeper's thread.

    A rebuild that was interrupted begins again at the next start.  Where the ledger was lost, nobody knows whether a
    project outside the configured scope was asked for by name; it is kept, as if it had been.
    """
    kept = ledger.begin_rebuild()
    ledger.paths.forget_claims(without_project=False)
    checkpoint, assumed = _checkpoint(tree), 0
    head = max(int(ledger.get("upstream_serial") or 0), checkpoint or 0)
    documents = ledger.get("documents")
    if documents is None:
        documents = bool(tree.disk.names("web/json"))
    found = sorted(set(tree.disk.names("web/simple")) | set(tree.disk.names("web/json")))
    counters.projects_total = len(found)
    count = 0
    for start in range(0, len(found), _BATCH):
        if stopped():
            return count
        rows, publications = [], []
        restored: list[str] = []
        claims: list[PathRow] = []
        for entry in found[start : start + _BATCH]:
            rebuilt = _rebuild_project(tree, entry, head, bool(documents))
            counters.projects_done += 1
            if rebuilt is not None:
                row, publication, claimed = rebuilt
                claims += claimed
                name = publication.name
                outside = kept.lost and not in_scope(name)
                assumed += outside
                more = {
                    "quarantined_releases": kept.quarantined_releases.get(name),
                    "named": outside or name in kept.named,
                }
                rows.append(row | more)
                publications.append(publication)
                if kept.lost and row["state"] == "retained":
                    restored.append(name)
        mark_changing(ledger, publications)
        show_pages(tree, publications)
        with ledger.transaction():
            ledger.insert_rebuilt(rows)
            ledger.paths.add(claims)
            for project in restored:  # perhaps against upstream's will, which only the ledger knew
                ledger.denials.retain(project, "", time.time())
            note_repaired(tree, ledger, [publication.name for publication in publications])
        count += len(rows)
    with ledger.transaction():
        ledger.paths.forget_claims(without_project=True)
    _adopt_withheld(tree, ledger)
    _adopt_originals(tree, ledger)
    adopt_spellings(tree, ledger)
    ledger.end_rebuild(checkpoint)
    if assumed:
        log.warning(
            "kept as if asked for by name, since outside the configured scope: %d of %d projects", assumed, count
        )
    return count


def adopt_spellings(tree: Tree, ledger: Ledger) -> None:
    """How names are displayed is in documents, and for projects without one in the root list that is there."""
    body = tree.disk.read(f"web/simple/{JSON_PAGE}")
    if body is None:
        return
    parser = RootListParser("web/simple/")
    try:
        for start in range(0, len(body), _PIECE):
            listed = parser.feed(body[start : start + _PIECE])
            ledger.spell([(item.display, names.normalise(item.display)) for item in listed])
        parser.close()
    except (Invalid, Refused) as error:
        log.warning("the root list cannot be read: %s", error)


def _adopt_withheld(tree: Tree, ledger: Ledger) -> None:
    """Bytes out of reach that the ledger does not know belong to the projects that their names begin with.

    But for those of a project in quarantine they are kept for as long as what is removed now would be.
    """
    known = {row.path for row in ledger.paths.of_kind("withheld", limit=-1)}
    removed, now = set(tree.disk.names("withheld/simple")), time.time()
    found = []
    for kept in _files_below(tree, "withheld"):
        path = "web" + kept.removeprefix("withheld")
        if path in known or kept.startswith(f"{DAMAGED}/"):
            continue
        if path.startswith(PAGES):
            found.append(PathRow(path, path.split("/")[2], "withheld", "keep", at=now))
            continue
        possible = list(possible_owners(path))
        rows = [row for name in possible if (row := ledger.row(name)) is not None and row.published]
        version = release_of(path.rpartition("/")[2].removesuffix(names.METADATA_SUFFIX))
        if rows and rows[-1].state == "quarantined":
            found.append(PathRow(path, rows[-1].name, "withheld", "withhold", version=version))
        elif rows:
            found.append(PathRow(path, rows[-1].name, "withheld", "keep", version=version, at=now))
        elif possible:
            name = next((name for name in possible if name in removed), possible[0])
            found.append(PathRow(path, name, "withheld", "keep", version=version, at=now))
        else:
            log.warning("%s: belongs to no project of this mirror; it may be removed", kept)
    with ledger.transaction():
        ledger.paths.add(found)


def _adopt_originals(tree: Tree, ledger: Ledger) -> None:
    """Upstream's own documents, of projects whose published ones differ."""
    found = []
    for entry in tree.disk.names("upstream"):
        with contextlib.suppress(Refused):
            name = names.normalise(entry.removesuffix(".json.gz"))
            if names.original_path(name) == f"upstream/{entry}" and ledger.row(name) is not None:
                found.append(PathRow(f"upstream/{entry}", name, "original"))
    with ledger.transaction():
        ledger.paths.add(found)


def _files_below(tree: Tree, directory: str) -> Iterator[str]:
    for entry in sorted(tree.disk.names(directory)):
        path = f"{directory}/{entry}"
        found = tree.disk.stat(path)
        if found is not None and found.is_directory:
            yield from _files_below(tree, path)
        else:
            yield path


def show_pages(tree: Tree, publications: list[Publication]) -> None:
    """Write pages that differ; the old ones stay until the new ones are durable."""
    staged = tree.stage_pages(publications)
    tree.disk.sync()
    tree.place_documents([], publications)
    tree.show(staged)
    tree.disk.sync()


def _rebuild_project(
    tree: Tree, entry: str, head: int, documents: bool
) -> tuple[dict[str, object], Publication, list[PathRow]] | None:
    """The ledger's row, what is to be written, and rows of what it claims; None for what is no project.

    ``head``: what upstream is known to have reached, 0 if nothing says so; a page that claims more is not believed.
    ``documents``: projects with files have one.
    """
    try:
        name = names.normalise(entry)
    except Refused:
        return None
    if name != entry:
        return None
    try:
        inventory = take_inventory(tree, name, published=True)
    except Obstructed as error:
        log.warning("%s: left out: %s", name, error)
        return None
    page = (
        inventory.page or _page_from_html(name, inventory.shown) or _page_from_document(tree, name, inventory.document)
    )
    if page is None:
        return None
    missing = [path for file in page.files for path in _paths(file) if tree.disk.stat(path) is None]
    owed = f"{len(missing)} files are missing, for example {missing[0]}" if missing else None
    if _lacks_document(inventory, page, documents):
        owed = owed or "its JSON document is missing"
    if inventory.page is None:
        owed = owed or "rebuilt from less than its JSON page; what that said is to be read again"
    serial = min(page.serial, head) if page.serial and head else page.serial
    now = time.time()
    row = {
        "name": name,
        "display": inventory.document.display_name if inventory.document and inventory.document.display_name else name,
        "wanted_serial": serial or 0,
        "accepted_serial": 0 if owed else serial or 0,
        "owed_serial": serial if owed else None,
        "page_serial": page.serial,
        "published": 1,
        "hidden": page.quarantined,
        "due_at": now if owed else None,
        "why": "retry" if owed else None,
        "state": "pending" if owed else _state(page),
        "error": owed,
        "files": len(page.files),
        "bytes": sum(file.size or 0 for file in page.files),
        "checked_at": now,
    }
    return row, _publication(name, page, inventory), claims_of(tree, name, page, inventory.document)


def claims_of(tree: Tree, name: ProjectName, page: ProjectPage, document: Document | None) -> list[PathRow]:
    """Rows for files whose names do not tell their project, and for those that only the document lists.

    What the document says of these proves nothing; its files are where bytes lie that have the digests it gives.
    """
    paths = [path for file in page.files if (path := package_of(file.url))]
    claims = [PathRow(path, name, "claimed") for path in paths if not tells_owner(path, name)]
    listed = {file.filename for file in page.files}
    for entry in document.files if document and not page.quarantined else ():
        if entry.filename not in listed and (path := _place_of(tree, entry)) is not None:
            claims.append(PathRow(path, name, "extra"))
            beside = names.sidecar_path(path)
            if entry.core_metadata and _matches(tree, beside, entry.core_metadata):
                claims.append(PathRow(beside, name, "extra"))
    return claims


def _place_of(tree: Tree, entry: DocumentFile) -> str | None:
    """Where the bytes of a file are that a document lists."""
    for digits in dict.fromkeys((digits_of(entry), names.content_digits(entry.url), entry.hashes.get("sha256"))):
        with contextlib.suppress(Refused):
            path = names.package_path(digits or "", entry.filename)
            if _matches(tree, path, entry.hashes):
                return path
    return None


def _matches(tree: Tree, path: str, hashes: CoreMetadata) -> bool:
    """Whether bytes with all these digests lie at ``path``, or any where it is only said that there are some."""
    found = tree.disk.stat(path)
    if found is None or found.is_directory:
        return False
    return hashes is True or (isinstance(hashes, dict) and tree.file_digests(path, tuple(hashes)) == hashes != {})


def _state(page: ProjectPage) -> str:
    if page.status == "archived" and page.status_reason == MARK:
        return "retained"
    return "quarantined" if page.quarantined else "current"


def _lacks_document(inventory: Inventory, page: ProjectPage, documents: bool) -> bool:
    """Whether one was there, or must have been: a link leads to it, or the page has files."""
    shown = inventory.shown
    if shown is None or shown.document is not None:
        return False
    return shown.link_right or (documents and bool(page.files) and not page.quarantined)


def _page_from_html(name: ProjectName, shown: Shown | None) -> ProjectPage | None:
    if shown is None or shown.html_page is None:
        return None
    try:
        return parse_html.parse_project(shown.html_page, url=local_page_url(name), name=name)
    except (Invalid, Refused) as error:
        log.warning("%s: the HTML page cannot be read either: %s", name, error)
        return None


def _page_from_document(tree: Tree, name: ProjectName, document: Document | None) -> ProjectPage | None:
    """A page of those files of the document whose bytes are there: another project's may lie at their places."""
    if document is None:
        return None
    try:
        wanted = wanted_files(ProjectPage(name=name), document, {}, allow_unhashed=False)
    except Refused as error:
        log.warning("%s: no page, and its document cannot be used: %s", name, error)
        return None
    files: list[DistFile] = []
    for want in wanted:
        if want.path is not None and _matches(tree, want.path, want.digests):
            sidecar = want.file.core_metadata
            if sidecar and not _matches(tree, names.sidecar_path(want.path), sidecar):
                sidecar = None
            files.append(msgspec.structs.replace(want.file, url=file_link(want.path), core_metadata=sidecar))
    return ProjectPage(name=name, files=tuple(files), versions=document.versions, serial=document.serial)


def _paths(file: DistFile) -> list[str]:
    path = package_of(file.url)
    if path is None:
        return []
    paths = [path]
    if file.core_metadata:
        paths.append(names.sidecar_path(path))
    return paths


def _publication(name: ProjectName, page: ProjectPage, inventory: Inventory) -> Publication:
    """What differs from what the page's model gives."""
    relative = []
    for file in page.files:
        if path := package_of(file.url):
            relative.append(msgspec.structs.replace(file, url=file_link(path)))
        elif file.url.startswith(("https://", "http://")):  # a mirror without files links to upstream's
            relative.append(file)
    page = msgspec.structs.replace(page, files=tuple(relative))
    shown = inventory.shown
    assert shown is not None
    json_page, html_page = project_json(page), project_html(page)
    return Publication(
        name=name,
        json_page=json_page if shown.json_page != json_page else None,
        html_page=html_page if shown.html_page != html_page or not shown.html_is_one else None,
        link_missing=shown.document is not None and not shown.link_right,
    )


def _checkpoint(tree: Tree) -> int | None:
    text = (tree.disk.read("status") or b"").strip()
    return int(text) if text.isdigit() and len(text) < 19 else None
