"""Pages, documents and the root list: one request each, its answer bounded, checked and parsed."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from heliostat.config import UpstreamConfig
from heliostat.errors import Invalid, Missing, NotNow, PageMissing, TooLarge, UpstreamError
from heliostat.model import Document, Listed, ProjectName, ProjectPage
from heliostat.pages.document import parse_document
from heliostat.pages.parse_json import parse_project
from heliostat.pages.root_list import RootListParser
from heliostat.upstream.gate import Permit, Permits
from heliostat.upstream.response import Response
from heliostat.upstream.session import Session, header_lines
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import redacted

T = TypeVar("T")

#: Bodies above this (bytes) are parsed in a thread, so that the loop goes on.
_IN_THREAD = 256 << 10
_SIMPLE = "application/vnd.pypi.simple.v1+json"
_JSON_TYPES = frozenset({_SIMPLE, "application/json", "application/vnd.pypi.simple.latest+json"})
#: What plain file servers say about a name ending in ``.v1_json``.
_UNTYPED = frozenset({"application/octet-stream", "text/plain", "binary/octet-stream"})
_SERIAL = re.compile(r"[0-9]{1,18}", re.ASCII)


class PageAnswer(msgspec.Struct, frozen=True):
    """A project's Simple page; ``serial`` is the lower one of header and body, None when neither says."""

    page: ProjectPage
    serial: int | None
    etag: str | None
    #: Bytes of it as upstream sent it, unpacked.
    size: int
    #: From a source that stands in for the first one, and may be behind it.
    stand_in: bool = False


class DocumentAnswer(msgspec.Struct, frozen=True):
    """A project's JSON document; ``body`` is what upstream sent, unpacked; ``serial`` as for a page."""

    body: bytes
    document: Document
    serial: int | None
    etag: str | None
    stand_in: bool = False


class Metadata:
    """One upstream's pages and documents; each call is one try and takes one metadata permit.

    All raise Missing for 404, and Unavailable, RateLimited or Invalid.
    """

    def __init__(
        self, session: Session, gate: Permits, base: str, config: UpstreamConfig, *, stand_in: bool = False
    ) -> None:
        """``stand_in``: the source is not the first of its index."""
        self._session, self._gate, self._base, self._config = session, gate, base, config
        self._stand_in = stand_in
        #: What the ETags of a source begin with that is not the first one: they are for itself only.
        self._mark = f"@{base} " if stand_in else ""
        #: Parsed, a hostile body can be many times its size: one large one at a time.
        self._parsing = asyncio.Lock()
        #: ``index.v1_json`` where a plain file server does not negotiate; learnt from its answers.
        self._index = ""

    async def page(self, name: ProjectName, etag: str | None, most: int | None = None) -> PageAnswer | None:
        """The Simple page in JSON; None when it is still the one with ``etag``.  Raises PageMissing for 404, and NotNow
        when it is longer than ``most`` bytes and could be accepted all the same.
        """
        url = f"{self._base}/simple/{name}/"
        try:
            try:
                return await self._page(url + self._index, name, etag, most)
            except _HtmlOnly as error:
                return await self._page(await self._explicit(url, error, Kind.PAGE), name, etag, most)
        except Missing as error:
            raise PageMissing(error.url, error.reason) from None

    async def _page(self, url: str, name: ProjectName, etag: str | None, most: int | None) -> PageAnswer | None:
        async with _Get(self._session, self._gate, Kind.PAGE, url, _SIMPLE, etag and self._own(etag)) as get:
            if get.unchanged:
                return None
            content = await get.json_body(self._config.max_page, most)
            page = await self._parsed(content, lambda: parse_project(content, url=get.shown, name=name))
            return PageAnswer(
                page, _lower(get.serial, page.serial), self._marked(get.etag), len(content), self._stand_in
            )

    async def document(self, name: ProjectName, etag: str | None, most: int | None = None) -> DocumentAnswer | None:
        """The JSON document; None when it is still the one with ``etag``.  Raises NotNow as :meth:`page` does."""
        url = f"{self._base}/pypi/{name}/json"
        own = etag and self._own(etag)
        async with _Get(self._session, self._gate, Kind.DOCUMENT, url, "application/json", own) as get:
            if get.unchanged:
                return None
            content = await get.json_body(self._config.max_document, most)
            document = await self._parsed(content, lambda: parse_document(content, url=get.shown, name=name))
            serial = _lower(get.serial, document.serial)
            return DocumentAnswer(content, document, serial, self._marked(get.etag), self._stand_in)

    async def root(self, etag: str | None) -> RootGet:
        """The root list, open: its permit and connection are held until it is closed."""
        url, etag = f"{self._base}/simple/", etag and self._own(etag)
        try:
            root = await RootGet.open(self._session, self._gate, url + self._index, etag, self._config.max_root)
        except _HtmlOnly as error:
            url = await self._explicit(url, error, Kind.ROOT_LIST)
            root = await RootGet.open(self._session, self._gate, url, etag, self._config.max_root)
        if root.answer is not None:
            root.answer.etag = self._marked(root.answer.etag)
        return root

    async def object(self, url: str, accept: str, limit: int, kind: Kind = Kind.SIDECAR) -> bytes:
        """Any small thing at a checked URL, of whatever type, as it is: nothing on the way is invited to pack it."""
        session = self._session
        async with self._gate.permit() as permit:
            headers, total = _accepting(accept, "identity"), session.metadata_timeout
            response = await session.send(permit, url, headers, kind=kind, accept=(200,), total=total)
            try:
                return await session.whole(response, permit, url, limit)
            except UpstreamError as error:
                session.traffic.broke(kind, error)
                raise
            finally:
                session.traffic.received[kind] += permit.received
                response.close()

    def _own(self, etag: str) -> str | None:
        """An ETag as this source gave it; None for another source's, which says nothing here."""
        if self._mark:
            return etag.removeprefix(self._mark) if etag.startswith(self._mark) else None
        return None if etag.startswith("@") else etag

    def _marked(self, etag: str | None) -> str | None:
        return self._mark + etag if etag and self._mark else etag

    async def _parsed(self, content: bytes, parse: Callable[[], T]) -> T:
        if len(content) <= _IN_THREAD:
            return parse()
        async with self._parsing:
            return await asyncio.to_thread(parse)

    async def _explicit(self, url: str, error: _HtmlOnly, kind: Kind) -> str:
        """The JSON page's own address below ``url``, if it is there: of a plain server over a tree like ours."""
        if self._index:
            raise error
        try:
            async with _Get(self._session, self._gate, kind, url + "index.v1_json", _SIMPLE, None) as get:
                get.check_type()
        except UpstreamError:
            raise error from None
        self._index = "index.v1_json"
        return url + self._index


@functools.cache
def _accepting(accept: str, packing: str) -> str:
    return header_lines({"Accept": accept, "Accept-Encoding": packing})


class _HtmlOnly(Invalid):
    """HTML, where JSON was asked for."""


def _lower(header: int | None, content: int | None) -> int | None:
    """The serial that counts.  They are equal at the origin; if a cache mixes them, the older one is the truth."""
    if header is None or content is None:
        return header if content is None else content
    return min(header, content)


class _Get:
    """One GET of something small enough to be read whole: ``async with``."""

    def __init__(self, session: Session, gate: Permits, kind: Kind, url: str, accept: str, etag: str | None) -> None:
        self._session, self._kind, self._url, self._sent_etag = session, kind, url, etag
        self._headers = _accepting(accept, "gzip")
        if etag:
            self._headers += header_lines({"If-None-Match": etag})
        self._permit: Permit = gate.permit()
        self._response: Response | None = None

    @property
    def shown(self) -> str:
        """The URL, fit for a message."""
        return redacted(self._url)

    async def __aenter__(self) -> Self:
        await self._permit.__aenter__()
        try:
            self._response = await self._session.send(
                self._permit,
                self._url,
                self._headers,
                kind=self._kind,
                accept=(200, 304) if self._sent_etag else (200,),
                total=self._session.metadata_timeout,
            )
        except BaseException as error:
            await self._permit.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        traffic = self._session.traffic
        traffic.received[self._kind] += self._permit.received
        if isinstance(error, UpstreamError) and not isinstance(error, NotNow):
            traffic.broke(self._kind, error)
        self.response.close()
        await self._permit.__aexit__(kind, error, traceback)

    @property
    def response(self) -> Response:
        assert self._response is not None
        return self._response

    @property
    def unchanged(self) -> bool:
        return self.response.status == 304

    @property
    def etag(self) -> str | None:
        return self.response.headers.get("etag")

    @property
    def serial(self) -> int | None:
        """What the header says; 0 and nonsense count as nothing."""
        text = (self.response.headers.get("x-pypi-last-serial") or "").strip()
        return int(text) or None if _SERIAL.fullmatch(text) else None

    def check_type(self) -> None:
        """Raise Invalid unless the answer says that it is JSON."""
        kind = self.response.content_type
        if kind in _JSON_TYPES or (kind in _UNTYPED and self._url.endswith("json")):
            return
        if kind in ("text/html", "application/vnd.pypi.simple.v1+html"):
            raise _HtmlOnly(
                self.shown, "answers with HTML where JSON was asked for; this server may have HTML pages only"
            )
        raise Invalid(self.shown, f"answers with {kind[:60]!a} where JSON was asked for")

    def pieces(self, limit: int) -> AsyncIterator[bytes]:
        return self._session.read(self.response, self._permit, self._url, limit)

    async def body(self, limit: int) -> bytes:
        return await self._session.whole(self.response, self._permit, self._url, limit)

    async def json_body(self, limit: int, most: int | None) -> bytes:
        """Raises TooLarge above ``limit`` bytes, NotNow above ``most``."""
        self.check_type()
        if most is None or most >= limit:
            return await self.body(limit)
        try:
            return await self.body(most)
        except TooLarge as error:
            raise NotNow(error.url, f"larger than {most} bytes") from None


class RootAnswer:
    """The root list as it comes: iterate over it for lists of entries, then ask for :attr:`serial`.

    What was iterated over is provisional until the iteration has ended without an error.
    """

    def __init__(self, get: _Get, limit: int) -> None:
        self._get, self._limit = get, limit
        self.etag = get.etag
        #: ``meta._last-serial`` of this very body; known after the last entry.
        self.serial: int | None = None

    async def __aiter__(self) -> AsyncIterator[list[Listed]]:
        """Raises Unavailable or Invalid; then nothing of it counts, and it has to be asked for again."""
        parser = RootListParser(self._get.shown)
        async for piece in self._get.pieces(self._limit):
            if listed := parser.feed(piece):
                yield listed
        self.serial = parser.close()

    async def beginning(self, most: int) -> int | None:
        """The serial as the header, or the first ``most`` bytes, say it, instead of iterating; the rest is not read."""
        if self._get.serial is not None:
            return self._get.serial
        parser, read = RootListParser(self._get.shown), 0
        async for piece in self._get.pieces(self._limit):
            parser.feed(piece)
            read += len(piece)
            if parser.serial is not None or read >= most:
                return parser.serial
        return parser.close()


class RootGet:
    """A root list that was opened; :attr:`answer` is None when it is still the one that we have."""

    def __init__(self, get: _Get, limit: int) -> None:
        self._get = get
        self.answer = None if get.unchanged else RootAnswer(get, limit)

    @classmethod
    async def open(cls, session: Session, gate: Permits, url: str, etag: str | None, limit: int) -> Self:
        get = _Get(session, gate, Kind.ROOT_LIST, url, _SIMPLE, etag)
        await get.__aenter__()
        try:
            if not get.unchanged:
                get.check_type()
        except BaseException as error:
            await get.__aexit__(type(error), error, error.__traceback__)
            raise
        return cls(get, limit)

    async def close(self, error: BaseException | None) -> None:
        await self._get.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
