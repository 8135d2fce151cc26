"""Complete lists of an upstream's projects, collected in the ledger and compared with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

from heliostat.errors import Invalid, Missing, Unavailable
from heliostat.model import Listed
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.client import Upstream
from heliostat.upstream.retry import worth_retrying

log = logging.getLogger(__name__)
T = TypeVar("T")


class ListReader:
    """Collects a list, then compares it.  A list that breaks off is begun again, as often as any request is tried.

    Raises UpstreamError, StateError, StoreError.
    """

    def __init__(self, upstream: Upstream, ledger: Ledger, keeper: Keeper, scope: Scope, *, tries: int) -> None:
        self._upstream, self._ledger, self._keeper, self._scope, self._tries = upstream, ledger, keeper, scope, tries
        #: A list came: what fails now has not been tried again by anybody.
        self._opened = False
        #: Whether the entries of the last list that was collected say how new they are.
        self.tells_serials = True

    async def collect_root(self, etag: str | None, cursor: int) -> tuple[int, str | None] | None:
        """The root list's serial and ETag; None when it is still the one with ``etag``.

        A list that states no serial is taken to be as new as its newest entry, or as what was seen before.
        """

        async def once() -> tuple[int, str | None] | None:
            async with self._upstream.root_list(etag) as answer:
                if answer is None:
                    return None
                highest = await self._collect(answer)
                return (max(highest, cursor) if answer.serial is None else answer.serial), answer.etag

        return await self._retried(once)

    async def collect_names(self) -> int:
        """``list_packages_with_serial``, which also has what is in quarantine; the highest serial in it."""

        async def once() -> int:
            self._opened = True
            async with self._upstream.serials_by_xmlrpc() as lists:
                return await self._collect(lists)

        return await self._retried(once)

    async def hear(self) -> None:
        """Return when upstream has answered something that only an index says; no list is read for it."""
        if self._scope.everything:
            async with self._upstream.root_list():
                return
        for name in sorted(self._scope.names)[:1]:
            with contextlib.suppress(Missing):
                await self._upstream.page(name)

    async def compare(self, serial: int, now: float, *, restart: bool, jump: bool, etag: str | None) -> bool:
        """Compare what was collected, see :meth:`heliostat.state.root_list.RootList.finish`.

        Whether anything changed.
        """
        finish = self._ledger.root_list.finish
        difference = await self._keeper(finish, serial, now, everything=restart, jump=jump)
        await self._keeper(self._ledger.put, root_etag=etag, reconciled=now)
        log.info(
            "list of serial %d: %d projects, %d new, %d changed, %d absent",
            serial, difference.listed, difference.new, difference.changed, difference.absent,
        )  # fmt: skip
        return bool(difference.new or difference.changed or difference.absent)

    async def _collect(self, lists: AsyncIterable[list[Listed]]) -> int:
        """Take the entries that come; the highest serial among them."""
        self._opened = True
        await self._keeper(self._ledger.root_list.begin)
        highest = 0
        async for batch in lists:
            highest = max(highest, max((item.serial or 0 for item in batch), default=0))
            await self._keeper(self._ledger.root_list.add, batch, self._scope.__contains__)
        self.tells_serials = highest > 0
        return highest

    async def _retried(self, once: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            self._opened = False
            try:
                return await once()
            except (Invalid, Unavailable) as error:
                tries += 1
                if not self._opened or not worth_retrying(error, tries, self._tries):
                    raise
                failure = error
            await self._upstream.back_off(tries - 1, failure)
