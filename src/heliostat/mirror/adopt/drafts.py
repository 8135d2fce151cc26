"""What the pages and the document of one project say, from wherever the old tool put them."""

from __future__ import annotations

import os
import stat

import msgspec

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.adopt.catalogue import JSON, PAGES, PYPI, SIMPLE, Catalogue
from heliostat.mirror.adopt.eye import Eye
from heliostat.mirror.adopt.layouts import is_temporary
from heliostat.mirror.adopt.report import Finding
from heliostat.model import DistFile, Document, ProjectName, ProjectPage
from heliostat.pages import parse_html, parse_json
from heliostat.pages.document import parse_document
from heliostat.pages.links import local_document_url, local_page_url
from heliostat.store.tree import HTML_PAGES, JSON_PAGE

#: Old pages that an option of bandersnatch keeps beside the current ones, which are links to the newest of them.
_VERSIONS = "versions"


class Entry(msgspec.Struct, frozen=True):
    """A file of a page, and the path at which the old tool keeps it; None where that cannot be a path."""

    file: DistFile
    path: str | None
    #: All that page and document say, ``blake2b_256`` too.
    hashes: dict[str, str]


class Draft(msgspec.Struct, kw_only=True):
    """One project as it was found."""

    name: ProjectName
    page: ProjectPage | None = None
    document: Document | None = None
    #: The document's bytes, where it does not lie at its place.
    body: bytes | None = None
    entries: list[Entry] = []
    #: The page is the JSON page at its place, with the HTML page beside it.
    in_place: bool = False
    #: Links where folders of ours belong.
    in_the_way: list[str] = []
    #: Files and folders of the old tool that go when our pages are there; folders after what is in them.
    leftovers: list[str] = []
    findings: list[Finding] = []


def read_draft(eye: Eye, catalogue: Catalogue, name: ProjectName) -> Draft:
    """Everything that is said of ``name``; without a page when nothing can be read.  Raises StoreError."""
    draft = Draft(name=name)
    own = f"{SIMPLE}/{name}"
    folders = [own, *catalogue.folders.get(name, ())]
    for folder in folders:
        found = draft.page is None and _read_page(eye, draft, folder)
        if found and folder == own:
            draft.in_place = found == JSON_PAGE and _is_plain(eye, own)
    _read_document(eye, catalogue, draft)
    if draft.page is None and draft.document is not None:
        draft.page = _page_of(name, draft.document)
    _collect(draft)
    for folder in (own, f"{PYPI}/{name}"):
        if eye.link(folder) is not None:
            draft.in_the_way.append(folder)
            draft.in_place = False
    _look_for_leftovers(eye, catalogue, draft)
    return draft


def _read_page(eye: Eye, draft: Draft, folder: str) -> str | None:
    """Take the page in ``folder``; which file it was."""
    pages = (JSON_PAGE, *HTML_PAGES)
    for number, page in enumerate(pages, 1):
        body = eye.read(f"{folder}/{page}")
        if body is None:
            _tell_obstacle(eye, draft, f"{folder}/{page}", "a page")
            continue
        parse = parse_json if page == JSON_PAGE else parse_html
        try:
            # Links count from where pages are served; the folders of a hashed index are no part of that.
            draft.page = parse.parse_project(body, url=local_page_url(draft.name), name=draft.name)
            for other in pages[number:]:
                _tell_obstacle(eye, draft, f"{folder}/{other}", "a page")
            return page
        except (Invalid, Refused) as error:
            draft.findings.append(Finding("page", f"{folder}/{page}", draft.name, f"cannot be read: {error}"))
    return None


def _tell_obstacle(eye: Eye, draft: Draft, path: str, what: str) -> None:
    if (found := eye.obstacle(path)) is not None:
        draft.findings.append(Finding("obstacle", path, draft.name, f"{found}, where {what} belongs"))


def _is_plain(eye: Eye, folder: str) -> bool:
    """The pages in it need not be written anew for the first pass to begin with them."""
    first = eye.link(f"{folder}/{HTML_PAGES[0]}")
    return eye.is_file(f"{folder}/{JSON_PAGE}") and (
        first in PAGES if first is not None else eye.is_file(f"{folder}/{HTML_PAGES[0]}")
    )


def _read_document(eye: Eye, catalogue: Catalogue, draft: Draft) -> None:
    place = f"{JSON}/{draft.name}"
    for path in (place, f"{PYPI}/{draft.name}/json", *catalogue.documents.get(draft.name, ())):
        body = eye.read(path)
        if body is None:
            if path == place:  # what else leads there is told once
                _tell_obstacle(eye, draft, path, "a document")
            continue
        try:
            draft.document = parse_document(body, url=local_document_url(draft.name), name=draft.name)
        except (Invalid, Refused) as error:
            draft.findings.append(Finding("page", path, draft.name, f"cannot be read: {error}"))
            continue
        draft.body = body if path != place or not eye.is_file(place) else None
        return


def _page_of(name: ProjectName, document: Document) -> ProjectPage:
    """Where there is no page the document tells the files."""
    files = {entry.filename: entry for entry in document.files}
    shown = tuple(entry.as_on_page() for entry in files.values())
    return ProjectPage(name=name, files=shown, versions=document.versions, serial=document.serial)


def _collect(draft: Draft) -> None:
    """The files with their places, and with what only the document says of them."""
    described = {entry.filename: entry for entry in draft.document.files} if draft.document else {}
    for file in draft.page.files if draft.page else ():
        try:
            names.safe_filename(file.filename)
            path = names.old_package_path(file.url)
            if path is not None and os.path.basename(path) != file.filename:
                raise Refused("URL", file.url, f"leads to another file than {file.filename}")
        except Refused as error:
            draft.findings.append(Finding("name", f"{SIMPLE}/{draft.name}", draft.name, str(error)))
            continue
        entry = described.get(file.filename)
        hashes, known = dict(file.hashes), file
        if entry is not None and all(hashes.get(key, value) == value for key, value in entry.hashes.items()):
            hashes = {**entry.hashes, **hashes}
            size, when = entry.size if file.size is None else file.size, file.upload_time or entry.upload_time
            known = msgspec.structs.replace(file, size=size, upload_time=when)
        draft.entries.append(Entry(known, path, hashes))


def _look_for_leftovers(eye: Eye, catalogue: Catalogue, draft: Draft) -> None:
    """What goes: folders in other forms of the name, old versions of pages, temporaries; nothing behind links."""
    own, found = f"{SIMPLE}/{draft.name}", draft.leftovers
    for folder in (own, *catalogue.folders.get(draft.name, ())):
        if folder != own and eye.link(folder) is not None:
            found.append(folder)
            continue
        inside = sorted(eye.names(folder))
        found += [f"{folder}/{one}" for one in inside if is_temporary(one, PAGES) or (folder != own and one in PAGES)]
        versions = f"{folder}/{_VERSIONS}"
        if _VERSIONS in inside and eye.link(versions) is None and eye.lstat(f"{versions}/{JSON_PAGE}") is None:
            kept = sorted(eye.names(versions))
            if any(one.startswith("index_") for one in kept):
                found += [f"{versions}/{one}" for one in kept if one.startswith("index_") and one.isascii()]
                found.append(versions)
        if folder != own:
            found.append(folder)
    for path in catalogue.documents.get(draft.name, ()):
        if eye.lstat(path) is not None:
            found.append(path)
        if path.startswith(PYPI):
            found.append(path.removesuffix("/json"))
    draft.leftovers = [path for path in found if eye.linked(path) is None]


def mode_of(eye: Eye, path: str) -> int | None:
    """The permission bits of what is at ``path``; None for a link, or nothing."""
    found = eye.lstat(path)
    return None if found is None or stat.S_ISLNK(found.st_mode) else stat.S_IMODE(found.st_mode)
