"""What upstream says of one project: its page and its document, fresh enough, and agreeing on the files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from heliostat.config import Config
from heliostat.errors import Missing, NotNow, Stale, Unavailable, UpstreamError
from heliostat.mirror.budget import SMALL, Share
from heliostat.model import Document, ProjectName, ProjectPage
from heliostat.state.rows import Row
from heliostat.store.tree import Placement
from heliostat.upstream.client import DocumentAnswer, PageAnswer, Upstream

log = logging.getLogger(__name__)
A = TypeVar("A")
B = TypeVar("B")

#: So many projects with files but without a document, and none with one: this upstream has no documents.
_NO_DOCUMENTS = 20
#: A page says at least so much of a file (bytes): from that it is known beforehand which ones are large.
_OF_A_FILE = 600


class Answers(msgspec.Struct, frozen=True):
    """A page and its document; ``document`` is None where the project has none."""

    page: ProjectPage
    serial: int | None
    page_etag: str | None
    body: bytes | None
    document: Document | None
    document_etag: str | None
    #: Why less than announced was accepted; None when nothing was wrong.
    stuck: str | None = None
    #: A large document, set aside under ``partial/``; ``body`` is None then.
    staged: Placement | None = None
    #: Its digest, see :func:`heliostat.store.incoming.document_digest`.
    staged_digest: bytes | None = None
    #: The document is the one shown already; ``body`` is None then.
    unchanged: bool = False
    #: Upstream has documents, but not this one, although the page has files: ours stays if there is one.
    keep_document: bool = False
    #: Bytes of both, as upstream sent them.
    size: int = 0
    #: Names of files on the page that upstream does not list any more.
    retained: frozenset[str] = frozenset()
    #: Upstream's own document, where ``document`` is another; None where that is not known, or did not change.
    original: bytes | None = None
    #: Whether it is another one than upstream's.
    amended: bool = False
    #: Upstream's own one is kept on disk.
    original_kept: bool = False
    #: Not upstream's word, but what our own tree said before.
    own: bool = False
    #: Upstream removed the project, and it is shown all the same.
    gone: bool = False


class Documents:
    """Whether this upstream has JSON documents at all; None while that is not known."""

    def __init__(self, known: bool | None) -> None:
        self.available = known
        self._without = 0
        #: Projects published without a document while it was not known yet whether there are any.
        self.doubtful: list[ProjectName] = []

    def seen(self) -> None:
        self.available = True

    def missing(self, name: ProjectName) -> None:
        """A project with files has no document, also when asked again."""
        self._without += 1
        self.doubtful.append(name)
        if self.available is None and self._without >= _NO_DOCUMENTS:
            log.warning("upstream has no JSON documents (/pypi/NAME/json); going on with its Simple pages alone")
            self.available = False


class MetadataReader:
    """Reads pages and documents of projects.  Raises UpstreamError, Refused."""

    def __init__(
        self,
        upstream: Upstream,
        config: Config,
        documents: Documents,
        *,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        """``wait`` is called when a project begins to wait for the turn of the large ones."""
        self._upstream, self._config, self._documents, self._wait = upstream, config, documents, wait

    def page_url(self, name: ProjectName) -> str:
        """Where upstream has the project's page."""
        return f"{self._upstream.base}/simple/{name}/"

    def checked_url(self, url: str) -> str:
        """``url`` if it may be requested from upstream; raises Refused."""
        return str(self._upstream.check_url(url))

    async def read(self, row: Row, share: Share) -> Answers | None:
        """The project's page and document with at least the serial that is wanted; None if both are unchanged.

        Until ``share`` is released, what was read counts as held.

        Raises PageMissing when the page answers 404, one of BEHIND when upstream stays behind for ``stale_tries``
        tries, unless it has done so ``stuck_after`` times and for ``stuck_seconds``: then what there is is accepted,
        and says so.
        """
        answers: Answers | None = None
        large = row.files * _OF_A_FILE > SMALL
        while True:
            if large and not share.large:
                self._wait()
                await share.become_large()
            try:
                answers = await self._read(row, None if large else SMALL)
                break
            except NotNow:
                large = True
        share.holds(answers.size if answers else 0)
        return answers

    async def answers(self, row: Row) -> bool:
        """Whether upstream has any answer about the project, be it that its page is the same, or too large."""
        try:
            await self._upstream.page(row.name, etag=row.page_etag, most=SMALL)
        except Unavailable:
            return False
        except (UpstreamError, NotNow):
            return True
        return True

    async def _read(self, row: Row, most: int | None) -> Answers | None:
        quiet = row.published and row.owed_serial is None and row.state in ("current", "quarantined") and not row.stuck
        if quiet and row.why in ("sweep", "poll") and row.page_etag:
            answers = await self._conditional(row, most)
            if answers is None:
                return None
        else:
            answers = await self._fresh(row, most)
        if row.published and row.files > 0 and not answers.page.files and not answers.page.quarantined:
            log.info("%s: lost all its files at once; looking again before it is believed", row.name)
            await asyncio.sleep(self._config.mirror.shrink_seconds)
            answers = await self._fresh(row, most)
        return answers

    async def _fresh(self, row: Row, most: int | None) -> Answers:
        tries = 1 if row.stuck else self._config.upstream.stale_tries
        for attempt in range(tries):
            try:
                page, document = await _together(
                    self._page(row, row.wanted_serial, most), self._document(row, row.wanted_serial, most)
                )
                return self._agreed(row, page, document, final=attempt + 1 == tries)
            except BEHIND as error:
                if attempt + 1 < tries:
                    await self._upstream.back_off(attempt, None)
                    continue
                if not (row.stuck or self._behind_for_good(row)):
                    raise
                return await self._as_it_is(row, error, most)
        raise AssertionError("unreachable")

    def _behind_for_good(self, row: Row) -> bool:
        """Whether this try is the one after which no more is waited for: enough of them, over enough time."""
        before, now = row.behind_tries if row.attempts else 0, time.time()
        since = row.behind_since if before and row.behind_since is not None else now
        mirror = self._config.mirror
        return before + 1 >= mirror.stuck_after and now - since >= mirror.stuck_seconds

    async def _as_it_is(self, row: Row, error: UpstreamError, most: int | None) -> Answers:
        """What upstream has; a page older than the one shown is not accepted even so."""
        shown = row.page_serial if row.published else None
        oldest = min(shown or 0, row.wanted_serial)
        page, document = await _together(self._page(row, oldest, most), self._document(row, 0, most))
        if page.stand_in or (document is not None and document.stand_in):
            raise error  # the first source will have it
        log.warning("%s: accepted as it is, since upstream stays behind: %s", row.name, error)
        return self._answers(page, document, stuck=str(error))

    async def _page(self, row: Row, wanted: int, most: int | None) -> PageAnswer:
        answer = await self._upstream.page(row.name, most=most)
        assert answer is not None
        if answer.serial is not None and answer.serial < wanted:
            raise Stale(self.page_url(row.name), wanted, answer.serial)
        return answer

    async def _document(self, row: Row, wanted: int, most: int | None) -> DocumentAnswer | None:
        if self._documents.available is False:
            return None
        try:
            answer = await self._upstream.document(row.name, most=most)
        except Missing:
            return None
        assert answer is not None
        self._documents.seen()
        if answer.serial is not None and answer.serial < wanted:
            raise Stale(f"{self._upstream.base}/pypi/{row.name}/json", wanted, answer.serial)
        return answer

    def _agreed(self, row: Row, page: PageAnswer, document: DocumentAnswer | None, *, final: bool) -> Answers:
        """Both must name the same files, unless their serials say that they always will differ."""
        if document is None:
            if page.page.files and not page.page.quarantined and self._documents.available is not False:
                if self._documents.available or row.stuck or not final:
                    raise _DocumentMissing(f"{self._upstream.base}/pypi/{row.name}/json", "404, but the page has files")
                self._documents.missing(row.name)
            return self._answers(page, None)
        on_page = {file.filename for file in page.page.files}
        in_document = {entry.filename for entry in document.document.files}
        if on_page != in_document and (page.serial is None or page.serial != document.serial):
            raise _Disagree(
                self.page_url(row.name),
                f"page (serial {page.serial}) and document (serial {document.serial}) list different files",
            )
        return self._answers(page, document)

    async def _conditional(self, row: Row, most: int | None) -> Answers | None:
        page, document = await _together(
            self._upstream.page(row.name, etag=row.page_etag, most=most),
            self._document_unless(row.name, row.document_etag, most),
        )
        if page is None and document is None:
            return None
        return await self._fresh(row, most)

    async def _document_unless(self, name: ProjectName, etag: str | None, most: int | None) -> bool | None:
        """None if the document is unchanged (or there is none now and was none before)."""
        if self._documents.available is False:
            return None
        try:
            answer = await self._upstream.document(name, etag=etag, most=most)
        except Missing:
            return None if etag is None else True
        return None if answer is None else True

    def _answers(self, page: PageAnswer, document: DocumentAnswer | None, stuck: str | None = None) -> Answers:
        if document is None:
            keep = bool(page.page.files) and not page.page.quarantined and self._documents.available is not False
            return Answers(
                page.page, page.serial, page.etag, None, None, None, stuck, keep_document=keep, size=page.size
            )
        return Answers(
            page.page, page.serial, page.etag, document.body, document.document, document.etag, stuck,
            size=page.size + len(document.body),
        )  # fmt: skip


class _Disagree(UpstreamError):
    """Page and document list different files."""


class _DocumentMissing(UpstreamError):
    """A project with files has no document, where others have one."""


#: How upstream can be behind what it announced.
BEHIND = (Stale, _Disagree, _DocumentMissing)


async def _together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Both at once; a failure of the first cancels the other, and comes out as itself."""
    other = asyncio.create_task(second)
    try:
        return await first, await other
    finally:
        if not other.done():
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
        elif not other.cancelled():
            other.exception()  # seen, so that the loop does not report it as never retrieved
        del other  # it holds its error, whose frames would hold it, with all that was read, until garbage is collected
