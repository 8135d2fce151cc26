"""One project's pages: can they be read, do they agree, with each other and with what else is known; what they claim.

A claim is a line: path, kind, size, algorithm, digest, project, separated by tabs; paths lie below the web root.
Kinds: ``file``, ``sidecar``, ``proof`` (a provenance object; the digest is that of the file it must be about), and
``maybe`` for what may be there and need not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

import msgspec

from heliostat import names
from heliostat.errors import Invalid, Refused
from heliostat.mirror.verify.findings import Finding, Kind, finding
from heliostat.mirror.verify.ground import Ground, Known
from heliostat.mirror.verify.reading import Odd, Stamp
from heliostat.mirror.wanted import digits_of, provenance_path, strongest
from heliostat.model import CoreMetadata, DistFile, Document, DocumentFile, ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.document import parse_document
from heliostat.pages.links import LOCAL, local_document_url, local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.pages.render import project_html
from heliostat.policy.removal import MARK

_JSON, _HTML, _V1_HTML = b"index.v1_json", b"index.html", b"index.v1_html"
_OURS, _UP = f"{LOCAL}packages/", "../../"
#: Differences of one project that are listed one by one.
_MOST = 20


class Found(msgspec.Struct, gc=False):
    """Where a name was met."""

    name: str
    simple: bool = False
    document: bool = False
    link: bool = False
    #: What the root pages show: -1 not at all, -2 that nobody looked; ``root_json`` 0 for an entry without serial.
    root_json: int = -2
    root_html: int = -2
    row: Known | None = None


class Upstream(msgspec.Struct, frozen=True):
    """What upstream says of a project now; ``page`` is None for a project that it does not have."""

    page: ProjectPage | None
    serial: int | None


class Judgement(msgspec.Struct):
    """What was found of one project."""

    findings: list[Finding] = []
    claims: list[bytes] = []
    #: The pages in all forms could be read, so that nothing else can be claimed.
    readable: bool = True
    serial: int | None = None
    #: The states of the files that were read, to tell whether they changed meanwhile.
    stamps: list[Stamp] = []


class Judge:
    """Judges projects of one tree; any thread."""

    def __init__(self, ground: Ground, root_time: float | None) -> None:
        """``root_time``: when the JSON root page was written; None where it is not to be compared."""
        self._ground, self._root_time = ground, root_time

    def judge(self, found: Found, upstream: Upstream | None = None) -> Judgement:
        """Look at everything that there is of a project.  Raises Stopping, StateError."""
        return _Case(self._ground, found, self._root_time).judge(upstream)


class _Case:
    def __init__(self, ground: Ground, found: Found, root_time: float | None) -> None:
        self._ground, self._found, self._root_time = ground, found, root_time
        self._reader = ground.reader
        self.name = ProjectName(found.name)
        self._key = found.name.encode()
        self._folder = b"simple/%s/" % self._key
        self._result = Judgement(findings=[], claims=[], stamps=[])
        #: Files of which page and document say different things: who is right, only upstream can tell.
        self._doubtful: set[str] = set()

    def judge(self, upstream: Upstream | None) -> Judgement:
        found, result, row = self._found, self._result, self._found.row
        page, html = self._json_page(), None
        published = row is None or row.published
        if not found.simple:
            if row is not None and row.published and not row.owed:
                self._say("page", self._folder + _JSON, "the ledger says that it is served, but there is no page")
            elif self._ground.books is None and max(found.root_json, found.root_html) >= 0:
                self._say("page", self._folder + _JSON, "the root index names it, but there is no page")
        else:
            html = self._html_page(page)
            self._folder_entries()
        expected = found.simple or (row is not None and row.published)
        document = self._document(page, html) if expected or self._ground.books is None else None
        shown = page or html
        if shown is None and expected and document is None:
            result.readable = False
        if not found.simple and (found.document or found.link) and not (row is not None and row.published):
            if found.document:
                self._say("unreferenced", b"json/" + self._key, "a document without a page")
            if found.link:
                self._say("unreferenced", b"pypi/%s/json" % self._key, "a link without a page")
        if shown is not None and document is not None:
            self._agree(shown, document)
        if shown is not None:
            result.serial = shown.serial
            self._claim_page(shown)
            if html is not None and page is not None and html is not page:
                self._claim_page(html, "maybe")
        if document is not None:
            self._claim_document(shown, document)
        if page is not None and published:
            self._compare_ledger(page)
            self._compare_root(page)
        elif page is not None and row is not None and not row.owed and row.state in ("gone", "excluded"):
            self._say("ledger", self._folder + _JSON, f"the ledger says that the project is {row.state}")
        if upstream is not None:
            self._compare_upstream(page, upstream)
        return result

    # -- pages ----------------------------------------------------------------------------------------------------

    def _json_page(self) -> ProjectPage | None:
        if not self._found.simple:
            return None
        path = self._folder + _JSON
        body = self._read("page", path, self._ground.max_page)
        if body is None:
            return None
        try:
            return parse_project(body, url=local_page_url(self.name), name=self.name)
        except (Invalid, Refused) as error:
            self._say("page", path, _reason(error))
            return None

    def _html_page(self, page: ProjectPage | None) -> ProjectPage | None:
        """The HTML page, which is ``page`` itself where it is exactly its equal."""
        path = self._folder + _HTML
        body = self._read("html", path, self._ground.max_page)
        first, second = (
            self._result.stamps[-1] if body is not None else None,
            self._reader.stamp(self._folder + _V1_HTML),
        )
        if second is None:
            self._say("html", self._folder + _V1_HTML, "not there")
        elif first is not None and first.inode != second.inode:
            self._say("html", self._folder + _V1_HTML, "another file than index.html")
        if body is None:
            return None
        if page is not None and body == project_html(relative(page)):
            return page
        try:
            shown = parse_html.parse_project(body, url=local_page_url(self.name), name=self.name)
        except (Invalid, Refused) as error:
            self._say("html", path, _reason(error))
            return None
        if page is not None:
            self._compare_forms(page, shown, path)
        return shown

    def _compare_forms(self, page: ProjectPage, html: ProjectPage, path: bytes) -> None:
        different = []
        if page.serial != html.serial:
            different.append(f"serial {html.serial}, where the JSON page has {page.serial}")
        if (page.status, page.status_reason) != (html.status, html.status_reason):
            different.append(f"status {html.status}, where the JSON page has {page.status}")
        ours, theirs = {f.filename: _form(f) for f in page.files}, {f.filename: _form(f) for f in html.files}
        different += _different(ours, theirs, "the JSON page")
        for what in different[:_MOST]:
            self._say("html", path, what)

    def _folder_entries(self) -> None:
        for folder in (self._folder, b"pypi/%s/" % self._key):
            if problem := self._reader.folder_problem(folder):
                self._say("unreadable", folder, problem)
        try:
            entries = os.listdir(self._reader.root + self._folder)
        except OSError as error:
            self._say("unreadable", self._folder.rstrip(b"/"), f"cannot be listed: {error.strerror}")
            return
        for entry in sorted(entries):
            if entry not in (_JSON, _HTML, _V1_HTML):
                self._say("unreferenced", self._folder + entry, "not a page of ours")

    # -- the document -----------------------------------------------------------------------------------------------

    def _document(self, page: ProjectPage | None, html: ProjectPage | None) -> Document | None:
        found, shown = self._found, page or html
        path, link = b"json/" + self._key, b"pypi/%s/json" % self._key
        if not found.document:
            if found.simple and self._must_have_document(shown):
                self._say("document", path, "not there")
            return None
        document = None
        body = self._read("document", path, self._ground.max_document)
        if body is not None:
            try:
                document = parse_document(body, url=local_document_url(self.name))
            except (Invalid, Refused) as error:
                if found.simple or found.row is not None:  # otherwise it is not to be there at all
                    self._say("document", path, _reason(error))
        if found.simple:
            self._check_link(link)
        return document

    def _must_have_document(self, shown: ProjectPage | None) -> bool:
        row = self._found.row
        if self._found.link:
            return True
        if row is not None and (row.stuck or row.owed):
            return False
        return self._ground.documents and shown is not None and bool(shown.files) and not shown.quarantined

    def _check_link(self, path: bytes) -> None:
        try:
            target = self._reader.link(path)
        except Odd as odd:
            self._say(odd.kind, path, odd.problem)
            return
        if target is None:
            self._say("link", path, "not there")
        elif target != b"../../json/" + self._key:
            self._say("link", path, f"leads to {os.fsdecode(target)[:200]!a}")

    def _agree(self, page: ProjectPage, document: Document) -> None:
        """As upstream's do: with one serial both list the same files, and what both say of a file is the same."""
        path = b"json/" + self._key
        listed = {entry.filename: entry for entry in document.files}
        different: list[str] = []
        if page.serial is not None and page.serial == document.serial and not page.quarantined:
            on_page = {file.filename for file in page.files}
            for name in sorted(on_page.symmetric_difference(listed)):
                which = "the page alone" if name in on_page else "the document alone"
                different.append(f"{name!a}: in {which}, though both have serial {page.serial}")
            different += (f"version {one!a} is in only one of page and document" for one in _versions(page, document))
        for file in page.files:
            entry = listed.get(file.filename)
            if entry is None:
                continue
            for algorithm, digest in file.hashes.items():
                if entry.hashes.get(algorithm, digest) != digest:
                    self._doubtful.add(file.filename)
                    different.append(f"{file.filename!a}: another {algorithm} than on the page")
            if None not in (file.size, entry.size) and file.size != entry.size:
                self._doubtful.add(file.filename)
                different.append(f"{file.filename!a}: size {entry.size}, where the page has {file.size}")
            if page.serial == document.serial and bool(file.yanked) != bool(entry.yanked):
                different.append(f"{file.filename!a}: yanked in only one of page and document")
        for what in different[:_MOST]:
            self._say("disagreement", path, what)

    # -- what else is known -------------------------------------------------------------------------------------------

    def _compare_ledger(self, page: ProjectPage) -> None:
        row = self._found.row
        if self._ground.books is None or (
            row is not None and (row.owed or row.state not in ("current", "quarantined"))
        ):
            return
        path = self._folder + _JSON
        if row is None:
            self._say("ledger", path, "the ledger does not know this project; 'heliostat rebuild' would take it in")
            return
        if row.page_serial != page.serial:
            self._say("ledger", path, f"serial {page.serial}, where the ledger has {row.page_serial}")
        elif row.files != len(page.files) and not row.extra and not page.quarantined:
            self._say("ledger", path, f"{len(page.files)} files, where the ledger has {row.files}")

    def _compare_root(self, page: ProjectPage) -> None:
        found, row = self._found, self._found.row
        if self._root_time is None or found.root_json == -2 or (row is not None and row.root_due):
            return
        stamp = self._reader.stamp(self._folder + _JSON)
        if self._ground.books is None and stamp is not None and stamp.modified > self._root_time:
            return  # the root index is rewritten at intervals
        shown = {b"simple/" + _JSON: found.root_json, b"simple/" + _HTML: found.root_html}
        for path, entry in shown.items():
            if entry < 0 and not page.quarantined:
                self._say("root", path, "does not name the project")
            elif entry >= 0 and page.quarantined:
                self._say("root", path, "names the project, which is in quarantine")
        if found.root_json > 0 and page.serial is not None and found.root_json != page.serial and not page.quarantined:
            problem = f"serial {found.root_json} of the project, whose page has {page.serial}"
            self._say("root", b"simple/" + _JSON, problem)

    def _compare_upstream(self, page: ProjectPage | None, upstream: Upstream) -> None:
        path, theirs = self._folder + _JSON, upstream.page
        if theirs is None:
            if page is not None and not (page.status == "archived" and page.status_reason == MARK):
                self._say("behind", path, "upstream has no such project any more")
            return
        if page is None:
            self._say("behind", path, "upstream has a page, and there is none to compare")
            return
        if upstream.serial is not None and page.serial is not None and page.serial > upstream.serial:
            return  # upstream answered from an old copy
        different = []
        if upstream.serial != page.serial and upstream.serial is not None:
            different.append(f"serial {page.serial}, where upstream has {upstream.serial}")
        ours = {} if page.quarantined else {file.filename: _upstreams(file) for file in page.files}
        other = {} if theirs.quarantined else {file.filename: _upstreams(file) for file in theirs.files}
        retained = {file.filename for file in page.files if file.yanked == MARK} - other.keys()
        ours = {name: values for name, values in ours.items() if name not in retained}
        for name, values in other.items():  # an algorithm that one of them does not give proves nothing
            if name in ours:
                shared = ours[name][0].keys() & values[0].keys()
                ours[name] = ({key: ours[name][0][key] for key in shared}, *ours[name][1:])
                other[name] = ({key: values[0][key] for key in shared}, *values[1:])
        different += _different(other, ours, "upstream")
        for what in different[:_MOST]:
            self._say("behind", path, what)
        for file in theirs.files:
            if file.filename in ours and (package := self._place_on(page, file.filename)) is not None:
                self._claim("file", package, file.size, file.hashes)

    @staticmethod
    def _place_on(page: ProjectPage, filename: str) -> str | None:
        return next((package_of(file.url) for file in page.files if file.filename == filename), None)

    # -- claims -------------------------------------------------------------------------------------------------------

    def _claim_page(self, page: ProjectPage, kind: str = "file") -> None:
        if page.quarantined:
            return
        for file in page.files:
            path = package_of(file.url)
            if path is None:
                if file.url.startswith("file:"):
                    self._say("page", self._folder + _JSON, f"{file.filename!a}: its link leads to no file of ours")
                continue
            if file.filename in self._doubtful:
                self._claim(kind, path, None, {})
            else:
                self._claim(kind, path, file.size, file.hashes)
            if file.core_metadata:
                self._claim_sidecar(kind, path, file.core_metadata)
            if file.provenance:
                self._claim_proof(kind, file)

    def _claim_sidecar(self, kind: str, path: str, metadata: CoreMetadata) -> None:
        hashes = metadata if isinstance(metadata, dict) else {}
        self._claim("sidecar" if kind == "file" else "maybe", names.sidecar_path(path), None, hashes)

    def _claim_proof(self, kind: str, file: DistFile) -> None:
        try:
            path = provenance_path(self.name, file.provenance or "", file.filename)
        except Refused as error:
            self._say("page", self._folder + _JSON, str(error))
            return
        required = self._ground.provenance and kind == "file" and file.filename not in self._doubtful
        self._claim("proof" if required else "maybe", path, None, file.hashes if required else {})

    def _claim_document(self, page: ProjectPage | None, document: Document) -> None:
        """Files that only the document lists; the ledger knows where they are, without it they are looked for."""
        if page is not None and page.quarantined:
            return
        listed = {file.filename for file in page.files} if page is not None else set()
        others = [entry for entry in document.files if entry.filename not in listed]
        row = self._found.row
        if row is not None and page is not None:
            extras = self._ground.books.extras(self._found.name) if row.extra and self._ground.books else []
            by_place = {path: entry for entry in others for path in _places(entry)}
            for path in extras:
                entry = by_place.get(path.removesuffix(names.METADATA_SUFFIX))
                if path.endswith(names.METADATA_SUFFIX):
                    metadata = entry.core_metadata if entry else None
                    self._claim_sidecar("file", path.removesuffix(names.METADATA_SUFFIX), metadata)
                else:
                    self._claim("file", path, entry.size if entry else None, entry.hashes if entry else {})
            return
        elsewhere = page is not None and any(file.url.startswith("http") for file in page.files)
        for entry in others:
            if page is None and entry.version is not None:
                with contextlib.suppress(Refused):
                    self._claim("maybe", names.provenance_path(self.name, entry.version, entry.filename), None, {})
            for number, path in enumerate(_places(entry)):
                must = not number and page is not None and self._ground.files and not elsewhere
                kind = "file" if must and digits_of(entry) is not None else "maybe"
                self._claim(kind, path, entry.size, entry.hashes if kind == "file" else {})
                if entry.core_metadata:
                    self._claim_sidecar("maybe", path, entry.core_metadata)

    def _claim(self, kind: str, path: str, size: int | None, hashes: dict[str, str]) -> None:
        algorithm = strongest(hashes)
        self._result.claims.append(
            b"%s\t%s\t%s\t%s\t%s\t%s"
            % (
                path.removeprefix("web/").encode(),
                kind.encode(),
                b"" if size is None else b"%d" % size,
                (algorithm or "").encode(),
                hashes[algorithm].encode() if algorithm else b"",
                self._key,
            )
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self, kind: Kind, path: bytes, most: int) -> bytes | None:
        try:
            body, stamp = self._reader.small(path, most)
        except FileNotFoundError:
            self._say(kind, path, "not there")
            return None
        except Odd as odd:
            self._say(kind if odd.kind == "page" else odd.kind, path, odd.problem)
            return None
        self._result.stamps.append(stamp)
        return body

    def _say(self, kind: Kind, path: bytes, problem: str) -> None:
        self._result.findings.append(finding(kind, b"web/" + path, self._found.name, problem))


def relative(page: ProjectPage) -> ProjectPage:
    """The page as it was rendered: its links relative."""
    files = []
    for file in page.files:
        url = file.url
        if url.startswith(_OURS):  # as it stands on the page
            url = _UP + url.removeprefix(LOCAL)
        files.append(msgspec.structs.replace(file, url=url))
    return msgspec.structs.replace(page, files=tuple(files))


def _places(entry: DocumentFile) -> list[str]:
    """Where the bytes of a file may lie that a document lists, the likeliest first."""
    found = []
    for digits in dict.fromkeys((digits_of(entry), names.content_digits(entry.url), entry.hashes.get("sha256"))):
        try:
            found.append(names.package_path(digits or "", entry.filename))
        except Refused:
            continue
    return found


def _versions(page: ProjectPage, document: Document) -> list[str]:
    """Versions that only one of them has; a release without files need not be on the page."""
    if page.versions is None or not document.versions:
        return []
    with_files = {entry.version for entry in document.files if entry.version is not None}
    return sorted(with_files.difference(page.versions) | set(page.versions).difference(document.versions))


def _form(file: DistFile) -> tuple[object, ...]:
    """What both forms of a page say of a file."""
    algorithm = strongest(file.hashes)
    metadata = file.core_metadata
    hashed = metadata.get(strongest(metadata) or "") if isinstance(metadata, dict) else bool(metadata)
    return (
        package_of(file.url) or file.url, algorithm and file.hashes[algorithm], file.requires_python, file.yanked,
        hashed or False, file.provenance,
    )  # fmt: skip


def _upstreams(file: DistFile) -> tuple[dict[str, str], object, object, object]:
    return file.hashes, file.size, file.requires_python, file.yanked


def _different(
    right: Mapping[str, tuple[object, ...]], shown: Mapping[str, tuple[object, ...]], whose: str
) -> Iterable[str]:
    """What is wrong with ``shown``, going by what ``whose`` page has."""
    for name in sorted(right.keys() | shown.keys()):
        if name not in shown:
            yield f"{name!a} is missing, which {whose} lists"
        elif name not in right:
            yield f"{name!a} is listed, which {whose} does not list"
        elif right[name] != shown[name]:
            yield f"{name!a} is described in another way than by {whose}"


def _reason(error: Invalid | Refused) -> str:
    return error.reason if isinstance(error, Invalid) else str(error)
