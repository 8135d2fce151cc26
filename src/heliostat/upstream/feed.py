"""The XML-RPC change feed over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from heliostat.errors import FeedUnsupported, Missing
from heliostat.model import Event, Listed
from heliostat.upstream import xmlrpc
from heliostat.upstream.gate import Permit, Permits
from heliostat.upstream.response import Response
from heliostat.upstream.session import Session, header_lines
from heliostat.upstream.traffic import Kind
from heliostat.upstream.urls import redacted

_HEADERS = header_lines({"Content-Type": "text/xml", "Accept": "text/xml", "Accept-Encoding": "gzip"})
#: The body of a call without rows.
_MOST_SCALAR = 1 << 20
#: What servers without XML-RPC say to a POST, beside 404; and 200.
_ABSENT = (200, 400, 403, 405, 406, 411, 413, 415, 501)


class Feed:
    """Calls at one address; each is one try and takes one metadata permit.

    All raise FeedUnsupported where there is no such feed (any more), RateLimited, Unavailable, or Invalid.
    """

    def __init__(self, session: Session, gate: Permits, base: str) -> None:
        self._session, self._gate = session, gate
        self._url = f"{base}/pypi"
        self._shown = redacted(self._url)

    async def last_serial(self) -> int:
        """The highest serial of the whole journal."""
        parser = xmlrpc.SerialParser(self._shown)
        async with self._call(_MOST_SCALAR, "changelog_last_serial") as pieces:
            async for piece in pieces:
                parser.feed(piece)
            return parser.serial()

    async def changelog(self, since: int) -> list[Event]:
        """One answer's rows above ``since``, in ascending order; the server decides how many it gives at a time."""
        parser = xmlrpc.ChangelogParser(self._shown)
        async with self._call(xmlrpc.MOST_FEED, "changelog_since_serial", since) as pieces:
            async for piece in pieces:
                parser.feed(piece)
            rows = [event for event in parser.events() if event.serial > since]
        rows.sort(key=lambda event: event.serial)
        return rows

    @asynccontextmanager
    async def projects(self, limit: int) -> AsyncIterator[AsyncIterator[list[Listed]]]:
        """All projects with their serials, as they come, of a body of at most ``limit`` bytes."""
        parser = xmlrpc.ProjectsParser(self._shown)

        async def lists(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[Listed]]:
            async for piece in pieces:
                parser.feed(piece)
                if listed := parser.take():
                    yield listed
            parser.close()

        async with self._call(limit, "list_packages_with_serial") as pieces:
            yield lists(pieces)

    @asynccontextmanager
    async def _call(self, limit: int, method: str, *parameters: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's body; what is wrong with it must be raised within the block, so that pace learns of it."""
        session = self._session
        async with self._gate.permit() as permit:
            response = await self._post(permit, xmlrpc.request(method, *parameters))
            try:
                with session.counting(Kind.CHANGELOG, permit):
                    self._check(response)
                    yield session.read(response, permit, self._url, limit)
            finally:
                response.close()

    async def _post(self, permit: Permit, call: bytes) -> Response:
        total = self._session.metadata_timeout
        try:
            return await self._session.send(
                permit, self._url, _HEADERS, kind=Kind.CHANGELOG, accept=_ABSENT, total=total, call=call
            )
        except Missing as error:
            raise FeedUnsupported(self._shown, f"no XML-RPC here ({error.reason})") from None

    def _check(self, response: Response) -> None:
        if response.status != 200:
            raise FeedUnsupported(self._shown, f"no XML-RPC here (status {response.status})")
        if not response.content_type.endswith("/xml"):
            raise FeedUnsupported(self._shown, f"no XML-RPC here (answers with {response.content_type[:60]!a})")
