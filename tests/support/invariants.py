"""What must hold of a mirror at every instant, also of one that was killed or lost its power: design, section 1.

Unlike the checker of complete mirrors this knows no upstream: it looks for pages that promise what is not there, and
for bytes that nobody accounts for.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import sqlite3
from collections.abc import Collection, Iterator

from heliostat import names
from heliostat.errors import HeliostatError
from heliostat.mirror.wanted import provenance_path
from heliostat.model import Document, ProjectName, ProjectPage
from heliostat.pages import document, parse_html, parse_json
from heliostat.pages.links import local_page_url, package_of
from heliostat.pages.root_list import RootListParser
from support.change_feed import Feed
from support.volume import Volume

_PAGES = ("index.html", "index.v1_html", "index.v1_json")
_ROOT_FILES = {*_PAGES, *(f"{page}.gz" for page in _PAGES)}


def broken_promises(volume: Volume, *, strict: bool, gone: Collection[str] = ()) -> list[str]:
    """What a reader of the tree would stumble over; empty when there is nothing.

    Pages are whole and name only files that are there with the right bytes, and the root list only projects that
    have a page.  Documents are whole.  ``strict``: what documents name is there too, and links lead to documents
    (after a power cut they may be one step ahead of the files).  ``gone``: projects that upstream has removed, whose
    pages may go at any moment and which the root list may name a while longer.
    """
    found: list[str] = []
    for name in sorted(volume.names("web/simple") - _ROOT_FILES):
        found += _project(volume, ProjectName(name))
    found += _root(volume, gone)
    for path in volume.below("web/json"):
        found += _document(volume, path, strict=strict)
    for path in volume.below("web/pypi"):
        name = path.split("/")[2]
        if volume.nodes[path].link != f"../../json/{name}":
            found.append(f"{path}: does not lead to the document")
        elif strict and volume.data(f"web/json/{name}") is None:
            found.append(f"{path}: leads nowhere")
    found += Feed(lambda path: volume.data(f"web/{path}"), volume.names("web/changes")).problems
    for path, what in (("status", str.isdecimal), ("web/last-modified", lambda text: len(text) == 17)):
        text = volume.data(path)
        if text is not None and not (text.endswith(b"\n") and what(text.decode()[:-1])):
            found.append(f"{path}: {text!r}")
    return found


def unaccounted(volume: Volume, ledger: sqlite3.Connection, *, gone: Collection[str] = ()) -> list[str]:
    """Where tree and ledger contradict each other.

    Bytes that no page claims must be known to the ledger (to be published, or to be removed), and what the ledger
    records as published must be there, as new as recorded or newer.
    """
    claimed: set[str] = set()
    serials: dict[str, int] = {}
    for name in volume.names("web/simple") - _ROOT_FILES:
        for page in _pages(volume, ProjectName(name)):
            claimed.update(path for path, *_ in _references(page))
            serials[name] = max(serials.get(name, 0), page.serial or 0)
    for path in volume.below("web/json"):
        claimed.update(_document_files(_parsed_document(volume.nodes[path].data)))
    known = {path for (path,) in ledger.execute("SELECT path FROM paths WHERE kind NOT IN ('claimed', 'waiting')")}
    known |= {path for (paths,) in ledger.execute("SELECT paths FROM incoming") for path in paths.split("\n")}
    bytes_there = {*volume.below("web/packages"), *volume.below("web/integrity")}
    found = [f"{path}: an orphan" for path in sorted(bytes_there - claimed - known)]
    found += [
        f"{path}: withheld, and forgotten"
        for path in sorted(volume.below("withheld"))
        if f"web/{path.removeprefix('withheld/')}" not in known
    ]
    feed = Feed(lambda path: volume.data(f"web/{path}"), volume.names("web/changes"))
    (last,) = ledger.execute("SELECT coalesce(max(number), 0) FROM changelog").fetchone()
    mine = ledger.execute("SELECT value FROM meta WHERE key = 'changes_id'").fetchone()
    if feed.head is not None and mine == (feed.head.mirror,) and feed.head.number > last:
        found.append(f"changes: tells of row {feed.head.number}, and the ledger of {last}")
    for name, serial in ledger.execute("SELECT name, page_serial FROM projects WHERE published = 1"):
        if name in gone:
            continue
        if volume.data(f"web/simple/{name}/index.v1_json") is None:
            found.append(f"{name}: recorded as published, and has no page")
        elif serial is not None and serials.get(name, 0) < serial:
            found.append(f"{name}: recorded with serial {serial}, and its page is of {serials.get(name)}")
    return found


def _project(volume: Volume, name: ProjectName) -> Iterator[str]:
    for entry in _PAGES:
        path = f"web/simple/{name}/{entry}"
        body = volume.data(path)
        if body is None:
            continue
        try:
            page = _parsed_page(body, name, entry == "index.v1_json")
        except HeliostatError as error:
            yield f"{path}: {error}"
            continue
        if entry != "index.v1_json" and not body.endswith(b"-->"):
            yield f"{path}: cut short"
        for target, size, algorithm, digest in _references(page):
            data = volume.data(target)
            if data is None:
                yield f"{path}: names {target}, which is not there"
            elif size is not None and len(data) != size:
                yield f"{path}: {target} has {len(data)} bytes instead of {size}"
            elif digest and _digest(algorithm, data) != digest:
                yield f"{path}: {target} has another {algorithm}"


def _root(volume: Volume, gone: Collection[str]) -> Iterator[str]:
    """Gzipped copies promise what pages do."""
    for entry in sorted(_ROOT_FILES):
        body = volume.data(f"web/simple/{entry}")
        if body is None:
            continue
        if entry.endswith(".gz"):
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError) as error:
                yield f"web/simple/{entry}: {error}"
                continue
        if "json" in entry:
            try:
                parser = RootListParser("file:///simple/")
                listed = parser.feed(body)
                parser.close()
            except HeliostatError as error:
                yield f"web/simple/{entry}: {error}"
            else:
                yield from _unknown(volume, entry, {names.normalise(one.display) for one in listed} - set(gone))
        else:
            if not body.endswith(b"</html>"):
                yield f"web/simple/{entry}: cut short"
            hrefs = {part.partition('/"')[0] for part in body.decode().split('<a href="')[1:]}
            yield from _unknown(volume, entry, hrefs - set(gone))


def _unknown(volume: Volume, entry: str, listed: Collection[str]) -> Iterator[str]:
    for name in sorted(listed):
        if volume.data(f"web/simple/{name}/index.v1_json") is None:
            yield f"web/simple/{entry}: names {name}, which has no JSON page"


def _document(volume: Volume, path: str, *, strict: bool) -> Iterator[str]:
    try:
        parsed = _parsed_document(volume.nodes[path].data)
    except HeliostatError as error:
        yield f"{path}: {error}"
        return
    if strict:
        for target in _document_files(parsed):
            if volume.data(target) is None:
                yield f"{path}: names {target}, which is not there"


def _pages(volume: Volume, name: ProjectName) -> Iterator[ProjectPage]:
    for entry in _PAGES:
        body = volume.data(f"web/simple/{name}/{entry}")
        if body is not None:
            yield _parsed_page(body, name, entry == "index.v1_json")


def _references(page: ProjectPage) -> Iterator[tuple[str, int | None, str, str]]:
    """(path, size, algorithm, digest) of all that a page says is there."""
    for file in page.files:
        path = package_of(file.url)
        if path is None:
            yield f"(no path for {file.url})", None, "", ""
            continue
        yield path, file.size, "sha256", file.hashes.get("sha256", "")
        if file.core_metadata:
            hashes = file.core_metadata if isinstance(file.core_metadata, dict) else {}
            yield names.sidecar_path(path), None, "sha256", hashes.get("sha256", "")
        if file.provenance:
            yield provenance_path(page.name, file.provenance, file.filename), None, "", ""


def _document_files(parsed: Document) -> Iterator[str]:
    for entry in parsed.files:
        digits = names.content_digits(entry.url)
        if digits is not None:
            path = names.package_path(digits, entry.filename)
            yield path
            if entry.core_metadata:
                yield names.sidecar_path(path)


@functools.lru_cache(maxsize=1024)
def _digest(algorithm: str, data: bytes) -> str:
    return hashlib.new(algorithm, data).hexdigest()


@functools.lru_cache(maxsize=4096)
def _parsed_page(body: bytes, name: ProjectName, is_json: bool) -> ProjectPage:
    parse = parse_json.parse_project if is_json else parse_html.parse_project
    return parse(body, url=local_page_url(name), name=name)


@functools.lru_cache(maxsize=4096)
def _parsed_document(body: bytes) -> Document:
    return document.parse_document(body, url="file:///json")
