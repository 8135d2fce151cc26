"""What upstream says of projects now, as this mirror is to show it, and when it says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from heliostat.errors import Missing, UpstreamError
from heliostat.mirror.verify.denied import Denied
from heliostat.mirror.verify.differences import facts
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.judgement import Found, Upstream, UpstreamDocument
from heliostat.mirror.verify.reading import Stopping
from heliostat.model import ProjectName

if TYPE_CHECKING:
    from heliostat.upstream.client import Upstream as Source

#: So many projects in a row that upstream gave no answer for end the run.
_FAILURES = 20


class Asker:
    """Asks ``source`` for pages and documents."""

    def __init__(self, source: Source, ground: Ground, stop: asyncio.Event) -> None:
        self._source, self._ground, self._stop = source, ground, stop
        self._failures = 0
        self._denied = Denied(ground)
        #: Why it could not be asked, the first time.
        self.unreachable: str | None = None

    async def ask_all(self, founds: Iterable[Found]) -> list[Upstream | None]:
        """See :meth:`ask`, side by side."""
        return list(await asyncio.gather(*map(self.ask, founds)))

    async def ask(self, found: Found) -> Upstream | None:
        """What upstream says; None when it does not answer.  Raises Stopping when it does not any more."""
        name = found.name
        if self._denied.has_project(name):
            return None
        if self._stop.is_set():
            raise Stopping
        try:
            answer = await self._source.page(ProjectName(name))
            document = await self._document(found) if self._ground.documents else None
        except Missing:
            self._failures = 0
            return Upstream(None, None)
        except UpstreamError as error:
            self.unreachable = self.unreachable or str(error)
            self._failures += 1
            if self._failures >= _FAILURES:
                raise Stopping from error
            return None
        self._failures = 0
        assert answer is not None
        return Upstream(self._denied.without(answer.page), answer.serial, document)

    async def _document(self, found: Found) -> UpstreamDocument | None:
        """Upstream's document, unless it is surely the one that was published here."""
        name, row = ProjectName(found.name), found.row
        known = row is not None and row.document_digest is not None
        try:
            answer = await self._source.document(name, etag=row.document_etag if row is not None and known else None)
        except Missing:
            return None  # upstream need not have one; ours stays
        if answer is None:
            return None
        return UpstreamDocument(answer.serial, None if self._denied.has_releases(name) else facts(answer.document))
