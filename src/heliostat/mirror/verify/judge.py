"""One project's pages: can they be read, do they agree with each other, and with what else is known."""

from __future__ import annotations

import contextlib
import os
import re

import msgspec

from heliostat.errors import Invalid, Refused
from heliostat.mirror.verify.claims import Claims
from heliostat.mirror.verify.differences import between_forms, facts, with_document, with_upstream
from heliostat.mirror.verify.findings import Kind, finding
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judgement import Found, Judgement, Upstream, UpstreamDocument
from heliostat.mirror.verify.reading import Odd
from heliostat.model import Document, ProjectName, ProjectPage
from heliostat.pages import parse_html
from heliostat.pages.document import parse_document
from heliostat.pages.links import LOCAL, local_document_url, local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.pages.render import project_html, project_json
from heliostat.policy.removal import MARK, is_retained
from heliostat.store.incoming import document_digest

_JSON, _HTML, _V1_HTML = b"index.v1_json", b"index.html", b"index.v1_html"
#: A link in either form of a page, and nothing that an uploader can write; a page is two directories below the top.
_ABOVE_JSON = re.compile(rb'"url"\s*:\s*"(?:\.\./){3}')
_ABOVE_HTML = re.compile(rb"""<a href=["'](?:\.\./){3}""")
_OURS, _UP = f"{LOCAL}packages/", "../../"


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
        self._json_body = b""
        self._claims = Claims(ground, found, self._result.findings)
        #: That of the project's document, if it could be read.
        self._digest = b""

    def judge(self, upstream: Upstream | None) -> Judgement:
        found, result, row = self._found, self._result, self._found.row
        page, html = self._json_page(), None
        published = row is None or row.published
        self._obstacles()
        if not found.simple:
            if row is not None and row.published and not row.owed:
                self._say("page", self._folder + _JSON, "the ledger says that it is served, but there is no page")
            elif self._ground.books is None and max(found.root_json, found.root_html) >= 0:
                self._say("page", self._folder + _JSON, "the root index names it, but there is no page")
        else:
            html = self._html_page(page)
            if page is None and html is None and self._is_nobodys():
                return self._stray()
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
                link = b"pypi/%s/json" % self._key
                there = self._reader.stamp(link) is not None
                self._say("unreferenced", link if there else b"pypi/" + self._key, "a link without a page")
        if shown is not None and document is not None:
            different, doubtful = with_document(shown, document, stuck=row is not None and (row.stuck or row.owed))
            self._claims.doubtful.update(doubtful)
            for what in different:
                self._say("disagreement", b"json/" + self._key, what)
        if shown is not None:
            result.serial = shown.serial
            self._claims.page(shown)
            if html is not None and page is not None and html is not page:
                self._claims.page(html, "maybe")
        if document is not None:
            self._claims.document(shown, document)
        if page is not None and published:
            self._compare_ledger(page)
            self._compare_root(page)
        elif page is not None and row is not None and not row.owed and row.state in ("gone", "excluded"):
            self._say("ledger", self._folder + _JSON, f"the ledger says that the project is {row.state}")
        if upstream is not None:
            self._compare_upstream(page, upstream)
            if page is not None and document is not None and upstream.document is not None:
                self._compare_upstreams_document(page, document, upstream.document)
        result.claims = self._claims.lines
        return result

    def _obstacles(self) -> None:
        """What a project that is blocked waits for, as far as it is no file, or is where a directory belongs."""
        row, books = self._found.row, self._ground.books
        if row is None or row.state != "blocked" or books is None:
            return
        for path in books.waiting(self._found.name):
            found = self._reader.obstacle(path.removeprefix("web/").encode())
            if found is not None:
                self._say("obstacle", *found)

    def _is_nobodys(self) -> bool:
        """Whether there is a ledger, and it has nothing to say of the project, but that it is not to be there."""
        row = self._found.row
        return self._ground.books is not None and (
            row is None or (not row.published and not row.owed and row.state in ("gone", "excluded"))
        )

    def _stray(self) -> Judgement:
        """A folder without a page that could be read, of a project that nobody knows: no page of ours was lost."""
        findings = self._result.findings
        del findings[:]
        self._say("unreferenced", self._folder.rstrip(b"/"), "no page that can be read, of no project of this mirror")
        for path in (b"json/" + self._key, b"pypi/" + self._key):
            if self._reader.stamp(path) is not None:
                self._say("unreferenced", path, "of no project of this mirror")
        return self._result

    # -- pages ----------------------------------------------------------------------------------------------------

    def _json_page(self) -> ProjectPage | None:
        if not self._found.simple:
            return None
        path = self._folder + _JSON
        body = self._read("page", path, self._ground.max_page)
        if body is None:
            return None
        if _leads_out(body, _ABOVE_JSON):
            self._say("page", path, "a link leads above the directory that is served")
        try:
            page = parse_project(body, url=local_page_url(self.name), name=self.name)
        except (Invalid, Refused) as error:
            self._say("page", path, _reason(error))
            return None
        self._json_body = body
        return page

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
        if _leads_out(body, _ABOVE_HTML):
            self._say("html", path, "a link leads above the directory that is served")
        try:
            shown = parse_html.parse_project(body, url=local_page_url(self.name), name=self.name)
        except (Invalid, Refused) as error:
            self._say("html", path, _reason(error))
            return None
        if page is not None:
            different = list(between_forms(page, shown))
            if not different and self._is_ours(page):
                different = ["says the same as the JSON page, but is not what is written from it"]
            for what in different:
                self._say("html", path, what)
        return shown

    def _is_ours(self, page: ProjectPage) -> bool:
        """Whether the pages are ours to the byte, and not as another mirror writes them."""
        row = self._found.row
        if row is not None and row.published and not row.owed:  # one that was adopted is owed at first
            return True
        return self._json_body == project_json(relative(page))

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
        folder = b"pypi/%s/" % self._key
        with contextlib.suppress(OSError):  # whether the link is there is looked at with the document
            for entry in sorted(os.listdir(self._reader.root + folder)) if self._found.link else ():
                if entry != b"json":
                    self._say("unreferenced", folder + entry, "not a link of ours")

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
                document = parse_document(body, url=local_document_url(self.name), name=self.name)
            except (Invalid, Refused) as error:
                if found.simple or found.row is not None:  # otherwise it is not to be there at all
                    self._say("document", path, _reason(error))
            else:
                self._digest = document_digest(body)
                row = found.row
                published = row.document_digest if row is not None and not row.owed else None
                if published is not None and self._digest != published:
                    self._say("document", path, "not the one that was published, as the ledger tells")
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
            if page is not None and not is_retained(page):
                self._say("behind", path, "upstream has no such project any more")
            return
        if page is None:
            self._say("behind", path, "upstream has a page, and there is none to compare")
            return
        if upstream.serial is not None and page.serial is not None and page.serial > upstream.serial:
            return  # upstream answered from an old copy
        for what in with_upstream(page, theirs, upstream.serial):
            self._say("behind", path, what)
        ours = {} if page.quarantined else {file.filename: file for file in page.files}
        for file in theirs.files:
            own = ours.get(file.filename)
            if own is None or (theirs.quarantined and own.yanked == MARK):
                continue
            if (package := package_of(own.url)) is not None:
                self._claims.add("file", package, file.size, file.hashes)

    def _compare_upstreams_document(self, page: ProjectPage, document: Document, theirs: UpstreamDocument) -> None:
        ours, row = document.serial, self._found.row
        if ours is not None and theirs.serial is not None and ours > theirs.serial:
            return  # upstream answered from an old copy
        path = b"json/" + self._key
        if ours != theirs.serial:
            self._say("behind", path, f"serial {ours}, where upstream's document has {theirs.serial}")
        elif row is not None and row.document_digest == self._digest:
            return  # it is the one that upstream had; what changes without a serial is for the sweep to find
        elif page.status_reason == MARK or any(file.yanked == MARK for file in page.files):
            return  # files that upstream removed are described too
        elif theirs.facts is not None and theirs.facts != facts(document):
            self._say("behind", path, "says something else of its files than upstream's document")

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


def _leads_out(body: bytes, link: re.Pattern[bytes]) -> bool:
    """Whether a project's page has a link that a browser takes for right at the top of a site, and only there."""
    return b"../../../" in body and link.search(body) is not None


def _reason(error: Invalid | Refused) -> str:
    return error.reason if isinstance(error, Invalid) else str(error)
