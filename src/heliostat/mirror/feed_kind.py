"""Which change feed upstream has: by XML-RPC, another heliostat's static one, or none; and how far it goes."""

from __future__ import annotations

import logging
import time
from typing import Any

from heliostat.config import UpstreamConfig
from heliostat.errors import FeedUnsupported, UpstreamError
from heliostat.mirror.upstream_identity import Identity
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.changes import HeadAnswer
from heliostat.upstream.client import Upstream

log = logging.getLogger(__name__)


class FeedKind:
    """What is known of the feed during one poll; what stays so is kept in the ledger."""

    def __init__(
        self,
        config: UpstreamConfig,
        upstream: Upstream,
        ledger: Ledger,
        keeper: Keeper,
        identity: Identity,
        *,
        again: float,
    ) -> None:
        """A feed that was not there is looked for after ``again`` seconds."""
        self._config, self._upstream, self._ledger, self._keeper = config, upstream, ledger, keeper
        self._identity, self._again = identity, again
        self._head: int | None = None
        #: Another heliostat's static change feed is what tells of changes; its head, as soon as it was read.
        self.static = False
        self.static_head: HeadAnswer | None = None

    def begin(self, facts: dict[str, Any]) -> None:
        """Go by what the ledger knows."""
        self.static = self._config.changes == "static" or (
            self._config.changes == "auto" and facts.get("feed") == "static"
        )

    def forget(self) -> None:
        """Another source is asked from now on."""
        self._head = self.static_head = None

    def leads(self, facts: dict[str, Any]) -> bool:
        """Whether the cursor comes from a feed, which a list, cached for half an hour, may be behind."""
        return self.static or (self._config.changes == "auto" and facts.get("feed") != "unsupported")

    async def last_serial(self) -> int:
        """The feed's head, asked for once."""
        if self._head is None and self.static:
            self.static_head = await self._upstream.changes_head()
            assert self.static_head is not None
            self._head = self.static_head.head.serial
        if self._head is None:
            self._head = await self._upstream.last_serial()
            if self._upstream.several:
                await self._identity.heard(self._head)
        return self._head

    async def is_near(self, facts: dict[str, Any]) -> bool:
        """Whether a feed goes on from the cursor without too many rows, or may do so when it can be had again."""
        if self._config.changes == "list" or facts.get("feed") == "unsupported":
            return False
        try:
            head = await self.last_serial()
        except FeedUnsupported as error:
            return await self.find_other(facts, error)
        except UpstreamError:
            return True
        behind = head - int(facts.get("rows") or facts["cursor"])
        return self._config.changes == "feed" or behind <= self._config.far_behind

    async def find_other(self, facts: dict[str, Any], error: FeedUnsupported) -> bool:
        """There is no such feed; True when there is a static one instead, of another heliostat."""
        if self._config.changes in ("feed", "static"):
            raise error
        if not self.static and await self._finds_static():
            facts["feed"] = "static"
            if self._upstream.stand_in is None:
                log.info("upstream is another heliostat: following its change feed from now on")
                await self._keeper(self._ledger.put, feed="static")
            return True
        self.static, self.static_head, self._head = False, None, None
        facts["feed"] = "unsupported"
        if self._upstream.stand_in is not None:  # the first source may well have one
            log.debug("%s has no change feed (%s); reading its root list", self._upstream.base, error.reason)
            return False
        log.info("upstream has no change feed (%s); reading its root list from now on", error.reason)
        await self._keeper(self._ledger.put, feed="unsupported", feed_asked=time.time())
        return False

    async def _finds_static(self) -> bool:
        try:
            self.static_head = await self._upstream.changes_head()
        except UpstreamError as error:
            log.debug("no static change feed: %s", error)
            return False
        self.static = True
        return True

    async def look_for(self, facts: dict[str, Any]) -> bool:
        """Find out anew whether there is a feed; True when its head is below the cursor."""
        head, feed = None, None
        if self._config.changes != "list":
            try:
                head = await self.last_serial()
                feed = "static" if self.static else None
            except FeedUnsupported:
                feed = "static" if await self._has_static(facts) else "unsupported"
                head = self.static_head.head.serial if self.static_head is not None else None
            except UpstreamError as error:
                log.debug("the change feed cannot be had for now: %s", error)
        if facts.get("feed") != feed:
            facts["feed"] = feed
            if self._upstream.stand_in is None:
                await self._keeper(self._ledger.put, feed=feed)
        cursor = int(facts.get("cursor") or 0)
        if head is not None and self._identity.is_behind(head):
            self._identity.check(head, cursor)
        return head is not None and head < cursor

    async def _has_static(self, facts: dict[str, Any]) -> bool:
        if self._config.changes != "auto" or facts.get("feed") == "static":
            return False
        return await self._finds_static()

    def may_be_back(self, facts: dict[str, Any], now: float) -> bool:
        """A feed that was not there may have been away for a moment: it is asked for again at each full reconcile."""
        asked = float(facts.get("feed_asked") or 0)
        return facts.get("feed") == "unsupported" and abs(now - asked) > self._again
