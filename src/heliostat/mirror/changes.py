"""What changed upstream since the cursor, by feed or by list, folded into the ledger.

``auto`` reads the change feed, or another heliostat's static one, for ordinary polls, and the root list for the first
run, when far behind, for a full reconcile, or when there is no feed; each falls back to the other with one line in the
log.  A mirror of named projects never reads a list of the whole index.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from heliostat.config import Config
from heliostat.errors import (
    FeedUnsupported,
    HeliostatError,
    Invalid,
    Unavailable,
    UpstreamChanged,
    UpstreamError,
)
from heliostat.mirror.following import FeedFollower, lost, position_of
from heliostat.mirror.lists import ListReader
from heliostat.mirror.sightings import noted
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.changes import HeadAnswer
from heliostat.upstream.client import Sources, Upstream

log = logging.getLogger(__name__)

#: Serials that are read again when a feed is first read after a start: rows may appear behind larger ones.
_OVERLAP = 500


class Seen(msgspec.Struct):
    """What one poll found."""

    #: Upstream's head serial, where anything told it.
    serial: int | None = None
    #: A feed or a complete list was read, so that absence or a removal event can be a second sign.
    by_feed: bool = False
    by_list: bool = False
    #: Nothing changed upstream and the cursor did not move.
    idle: bool = False

    def needs_two_looks(self, scope: Scope) -> bool:
        """Whether a removal whose event was missed can only show itself by 404s: no list is read that would tell."""
        return not self.by_list and not (self.by_feed and scope.everything)


class _Behind(HeliostatError):
    """The source that answered has not come as far as others: changes are to be read from another one."""


class ChangeReader:
    """Reads changes into the ledger.  Raises UpstreamError, UpstreamChanged, StateError, StoreError."""

    def __init__(
        self,
        config: Config,
        scope: Scope,
        upstream: Upstream,
        ledger: Ledger,
        keeper: Keeper,
        *,
        overlapped: bool,
        between: bool = False,
    ) -> None:
        """``between``: projects are under way.  What says nothing of what changed is not made owed all over again."""
        self._config, self._scope, self._upstream = config, scope, upstream
        self._ledger, self._keeper = ledger, keeper
        self._lists = ListReader(upstream, ledger, keeper, scope, tries=config.upstream.retries)
        #: This process has read the feed from a little before its cursor on already.
        self.overlapped = overlapped
        self._between = between
        self._head: int | None = None
        self._follower = FeedFollower(upstream, ledger, keeper, scope)
        #: Another heliostat's static change feed is what tells of changes; its head, as soon as it was read.
        self._static = False
        self._static_head: HeadAnswer | None = None
        #: The cursor when the first source read it last, if others have taken it further since.
        self._vouched: int | None = None

    async def read(self, *, full: bool, now: float) -> Seen:
        """Make owed what changed.  ``full`` compares everything, and confirms another upstream.

        Where there are several sources, one that is behind is left for the next one.
        """
        sources = self._upstream.sources
        sources.look_again()
        while True:
            try:
                return await self._read_once(full=full, now=now)
            except _Behind as behind:
                self._head = self._static_head = None
                if not sources.is_behind(sources.last, str(behind)):
                    raise _all_resting(sources) from None

    async def _read_once(self, *, full: bool, now: float) -> Seen:
        facts = await self._keeper(self._ledger.facts)
        self._static = self._config.upstream.changes == "static" or (
            self._config.upstream.changes == "auto" and facts.get("feed") == "static"
        )
        restart = self.confirm_upstream(facts, full=full)
        if restart:
            await self._lists.hear()  # nothing is forgotten for one that says nothing
        if full:
            restart = await self._look_for_feed(facts) or restart
        elif self._feed_may_be_back(facts, now):
            await self._look_for_feed(facts)
            if self._upstream.stand_in is None:
                await self._keeper(self._ledger.put, feed_asked=now)
        if restart:
            await self._keeper(self._restart)
            facts = await self._keeper(self._ledger.facts)
        try:
            seen = await self._read(facts, full=full, restart=restart, now=now)
        except UpstreamChanged:
            await self._keeper(self._ledger.put, went_back=1)
            raise
        await self._remember(seen)
        return seen

    async def _read(self, facts: dict[str, Any], *, full: bool, restart: bool, now: float) -> Seen:
        if self._scope.everything:
            if self._list_first(facts, full=full, now=now):
                return await self._complete(facts, now=now, restart=restart, full=full)
            try:
                return await self._by_feed(facts, now=now)
            except FeedUnsupported as error:
                if await self._no_feed(facts, error):
                    return await self._by_feed(facts, now=now)
            except (Unavailable, Invalid) as error:
                if self._config.upstream.changes in ("feed", "static"):
                    raise
                log.warning("the change feed cannot be had (%s); reading the root list instead", error)
            jump = not self._feed_leads(facts)
            return await self._by_list(facts, now=now, restart=restart, full=full, jump=jump)
        return await self._named(facts, full=full, restart=restart, now=now)

    def _list_first(self, facts: dict[str, Any], *, full: bool, now: float) -> bool:
        if self._config.upstream.changes == "list" or full or not facts.get("cursor"):
            return True
        age = now - float(facts.get("reconciled") or 0)
        # A time in the future was written while the clock was ahead.
        return facts.get("feed") == "unsupported" or not 0 <= age <= self._config.mirror.reconcile_hours * 3600

    async def _complete(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool) -> Seen:
        """Compare everything; what a list does not tell is in the feed's rows, which are read afterwards."""
        jump = restart or not facts.get("cursor") or not await self._is_near(facts)
        seen = await self._by_either(facts, now=now, restart=restart, full=full, jump=jump)
        if not jump and not seen.by_feed:
            try:
                rows = await self._by_feed(facts, now=now)
                seen = Seen(serial=rows.serial, by_list=True, by_feed=True, idle=seen.idle and rows.idle)
            except (FeedUnsupported, Unavailable, Invalid) as error:
                log.warning("the change feed cannot be had (%s); its rows are left for the next time", error)
        return seen

    async def _by_either(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool) -> Seen:
        """A complete list, in whatever way; ordinary polls may make do with the feed where there is none for now."""
        if self._config.upstream.changes == "feed":
            return await self._by_names(facts, now=now, restart=restart, full=full, jump=jump)
        try:
            return await self._by_list(facts, now=now, restart=restart, full=full, jump=jump)
        except UpstreamError as error:
            if self._config.upstream.changes == "list" or facts.get("feed") == "unsupported":
                raise
            log.warning("the root list cannot be had (%s); reading the change feed instead", error)
            failure = error
        try:
            if not jump and not full:
                return await self._by_feed(facts, now=now)
            return await self._by_names(facts, now=now, restart=restart, full=full, jump=jump)
        except FeedUnsupported:
            raise failure from None

    # -- the change feed ----------------------------------------------------------------------------------------

    async def _by_feed(self, facts: dict[str, Any], *, now: float) -> Seen:
        facts = await self._keeper(self._ledger.facts)
        if self._static:
            return await self._by_static(facts, now=now)
        cursor = int(facts.get("cursor") or 0)
        read = int(facts.get("rows") or cursor)
        head = await self._last_serial()
        self._check_head(head, read)
        if head == read:
            return Seen(serial=head, by_feed=True, idle=True)
        if head - read > self._config.upstream.far_behind and self._config.upstream.changes == "auto":
            if self._scope.everything:
                log.info("%d serials behind upstream: reading the root list instead of the feed", head - read)
                return await self._by_list(facts, now=now, restart=False, full=False, jump=True)
            await self._want_all(now, why="poll")
            await self._keeper(self._ledger.put, cursor=head)
            return Seen(serial=head, by_feed=True)
        since = read if self.overlapped else max(0, read - _OVERLAP)
        self.overlapped = True
        reached = cursor
        async for events in self._upstream.events_since(since):
            if events:
                reached = max(reached, *(event.serial for event in events))
                await self._keeper(self._ledger.intake.fold_events, events, reached, now, self._scope.__contains__)
        if "rows" in facts:
            await self._keeper(self._ledger.put, rows=None)
        return Seen(serial=max(head, reached), by_feed=True)

    async def _by_static(self, facts: dict[str, Any], *, now: float) -> Seen:
        """The same for another heliostat's static feed; begun anew, from the root list, where it cannot be read on."""
        cursor, position = int(facts.get("cursor") or 0), position_of(facts)
        answer = self._static_head or await self._upstream.changes_head(position.etag if position else None)
        if answer is None:
            return Seen(serial=cursor, by_feed=True, idle=True)
        head, same = answer.head, False
        if self._upstream.several:
            await self._heard(head.serial)
        if position is None or position.mirror != head.mirror or self._upstream.several:
            self._check_head(head.serial, cursor)
        far = self._config.upstream.far_behind if self._config.upstream.changes == "auto" else None
        if why := lost(position, head, far):
            if position is not None:
                log.warning("%s: %s; reading the root list once", self._upstream.base, why)
            if self._scope.everything:
                seen = await self._by_list(facts, now=now, restart=False, full=False, jump=True)
                if head.listed + 1 < head.first:
                    log.info("%s: its root list is older than its change feed; reading that later", self._upstream.base)
                    return seen
                same = seen.idle
                position = await self._follower.begin(head, head.listed)
            else:
                await self._want_all(now, why="poll")
                position = await self._follower.begin(head, head.number)
        assert position is not None
        await self._follower.read(head, answer.etag, position, now)
        idle = same and head.number == position.place.number and head.serial <= cursor
        return Seen(serial=max(head.serial, cursor), by_feed=True, idle=idle)

    async def _last_serial(self) -> int:
        """The feed's head, asked for once."""
        if self._head is None and self._static:
            self._static_head = await self._upstream.changes_head()
            assert self._static_head is not None
            self._head = self._static_head.head.serial
        if self._head is None:
            self._head = await self._upstream.last_serial()
            if self._upstream.several:
                await self._heard(self._head)
        return self._head

    async def _is_near(self, facts: dict[str, Any]) -> bool:
        """Whether a feed goes on from the cursor without too many rows, or may do so when it can be had again."""
        if self._config.upstream.changes == "list" or facts.get("feed") == "unsupported":
            return False
        try:
            head = await self._last_serial()
        except FeedUnsupported as error:
            return await self._no_feed(facts, error)
        except UpstreamError:
            return True
        behind = head - int(facts.get("rows") or facts["cursor"])
        return self._config.upstream.changes == "feed" or behind <= self._config.upstream.far_behind

    async def _no_feed(self, facts: dict[str, Any], error: FeedUnsupported) -> bool:
        """There is no such feed; True when there is a static one instead, of another heliostat."""
        if self._config.upstream.changes in ("feed", "static"):
            raise error
        if not self._static and await self._finds_static():
            facts["feed"] = "static"
            if self._upstream.stand_in is None:
                log.info("upstream is another heliostat: following its change feed from now on")
                await self._keeper(self._ledger.put, feed="static")
            return True
        self._static, self._static_head, self._head = False, None, None
        facts["feed"] = "unsupported"
        if self._upstream.stand_in is not None:  # the first source may well have one
            log.debug("%s has no change feed (%s); reading its root list", self._upstream.base, error.reason)
            return False
        log.info("upstream has no change feed (%s); reading its root list from now on", error.reason)
        await self._keeper(self._ledger.put, feed="unsupported", feed_asked=time.time())
        return False

    async def _finds_static(self) -> bool:
        try:
            self._static_head = await self._upstream.changes_head()
        except UpstreamError as error:
            log.debug("no static change feed: %s", error)
            return False
        self._static = True
        return True

    # -- the root list ------------------------------------------------------------------------------------------

    async def _by_list(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool) -> Seen:
        """Compare with the root list; with ``jump`` the feed's rows before it are not read any more."""
        cursor = int(facts.get("cursor") or 0)
        etag = None if full or restart or not cursor else facts.get("root_etag")
        collected = await self._lists.collect_root(str(etag) if etag else None, cursor)
        if collected is None:
            if not 0 <= now - float(facts.get("reconciled") or 0) < self._config.mirror.heartbeat:
                await self._keeper(self._ledger.put, reconciled=now)
            return Seen(serial=cursor, by_list=True, idle=True)
        serial, found_etag = collected
        if self._between and not self._lists.tells_serials:
            return Seen(serial=cursor, by_list=True, idle=True)
        if self._upstream.several:
            await self._heard(serial)
        if serial < cursor and not restart and not self._feed_leads(facts):
            if not full or self._is_behind(serial):
                self._check_head(serial, cursor)
            await self._keeper(self._restart)
            restart = True
        await self._lists.compare(serial, now, restart=restart, jump=jump or restart, etag=found_etag)
        return Seen(serial=serial, by_list=True)

    async def _by_names(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool) -> Seen:
        """The same by XML-RPC, where the root list is not to be read or not there.  Knows what is in quarantine too."""
        cursor = int(facts.get("cursor") or 0)
        head = await self._last_serial()
        if not (restart or full):
            self._check_head(head, cursor)
        highest = await self._lists.collect_names()
        # The list may be older than the head, but not older than its own newest entry: the feed goes on from there.
        await self._lists.compare(min(head, highest), now, restart=restart, jump=jump, etag=None)
        return Seen(serial=head, by_list=True)

    def _feed_leads(self, facts: dict[str, Any]) -> bool:
        """Whether the cursor comes from a feed, which a list, cached for half an hour, may be behind."""
        return self._static or (self._config.upstream.changes == "auto" and facts.get("feed") != "unsupported")

    # -- named projects -----------------------------------------------------------------------------------------

    async def _named(self, facts: dict[str, Any], *, full: bool, restart: bool, now: float) -> Seen:
        """An allow-list: its names are followed by the feed where there is one, else each is asked after."""
        if self._config.upstream.changes != "list" and facts.get("feed") != "unsupported":
            try:
                begin = restart or not facts.get("cursor")
                if begin or full:
                    head = await self._last_serial()
                    await self._want_all(now, why="changed" if full else "new")
                if begin and self._static_head is not None:
                    await self._follower.begin(self._static_head.head, self._static_head.head.number)
                if begin:
                    await self._keeper(self._ledger.put, cursor=head)
                    return Seen(serial=head)
                return await self._by_feed(facts, now=now)
            except FeedUnsupported as error:
                if await self._no_feed(facts, error):
                    return await self._by_feed(facts, now=now)
            except (Unavailable, Invalid) as error:
                if self._config.upstream.changes in ("feed", "static"):
                    raise
                log.warning("the change feed cannot be had (%s); asking after each project instead", error)
        if self._between:
            return Seen(idle=True)
        await self._want_all(now, why="changed" if full else "poll")
        return Seen()

    async def _want_all(self, now: float, *, why: str) -> None:
        def want() -> None:
            with self._ledger.transaction():
                for name in sorted(self._scope.names):
                    self._ledger.intake.want(name, name, now, named=False, why=why)

        await self._keeper(want)

    # -- identity -----------------------------------------------------------------------------------------------

    def confirm_upstream(self, facts: dict[str, Any], *, full: bool) -> bool:
        """True when ``full`` confirms another upstream than the ledger's.  Raises UpstreamChanged without it."""
        known = facts.get("upstream")
        if known is None or known == self._upstream.identity:
            return bool(full and facts.get("went_back"))
        if not full:
            raise UpstreamChanged(
                f"this mirror follows {known}, but the configuration says {self._upstream.identity}; "
                "if they are the same index, confirm with 'heliostat mirror --once --full'"
            )
        return True

    async def _look_for_feed(self, facts: dict[str, Any]) -> bool:
        """Find out anew whether there is a feed; True when its head is below the cursor."""
        head, feed = None, None
        if self._config.upstream.changes != "list":
            try:
                head = await self._last_serial()
                feed = "static" if self._static else None
            except FeedUnsupported:
                feed = "static" if await self._has_static(facts) else "unsupported"
                head = self._static_head.head.serial if self._static_head is not None else None
            except UpstreamError as error:
                log.debug("the change feed cannot be had for now: %s", error)
        if facts.get("feed") != feed:
            facts["feed"] = feed
            if self._upstream.stand_in is None:
                await self._keeper(self._ledger.put, feed=feed)
        cursor = int(facts.get("cursor") or 0)
        if head is not None and self._is_behind(head):
            self._check_head(head, cursor)
        return head is not None and head < cursor

    async def _has_static(self, facts: dict[str, Any]) -> bool:
        if self._config.upstream.changes != "auto" or facts.get("feed") == "static":
            return False
        return await self._finds_static()

    def _feed_may_be_back(self, facts: dict[str, Any], now: float) -> bool:
        """A feed that was not there may have been away for a moment: it is asked for again at each full reconcile."""
        asked = float(facts.get("feed_asked") or 0)
        return facts.get("feed") == "unsupported" and abs(now - asked) > self._config.mirror.reconcile_hours * 3600

    def _restart(self) -> None:
        log.warning("another upstream, or one that went back, is confirmed: everything is owed again")
        self._ledger.restart()
        self._ledger.put(vouched=None)

    async def _heard(self, serial: int) -> None:
        """One of several sources told its serial: keep how far the first one came, before others go further."""
        facts, first = await self._keeper(self._ledger.facts), self._upstream.sources.last.number == 0
        cursor, vouched = int(facts.get("cursor") or 0), facts.get("vouched")
        if first and vouched is not None and serial >= cursor:
            vouched = None
        elif not first and vouched is None and serial > cursor:
            vouched = cursor
        if vouched != facts.get("vouched"):
            await self._keeper(self._ledger.put, vouched=vouched)
        self._vouched = vouched

    def _is_behind(self, serial: int) -> bool:
        """Whether a serial that is too low says no more than that its source is behind others.

        The first source can go back, and so be another index; but not behind what it said itself.
        """
        if not self._upstream.several:
            return False
        return self._upstream.sources.last.number > 0 or (self._vouched is not None and serial >= self._vouched)

    def _check_head(self, head: int, cursor: int) -> None:
        if head >= cursor:
            if self._upstream.several:
                self._upstream.sources.is_not_behind(self._upstream.sources.last)
            return
        if self._is_behind(head):
            raise _Behind(f"behind: its serial is {head}, where {cursor} was seen before")
        raise UpstreamChanged(
            f"upstream's serial went back: {head}, where {cursor} was seen before; if this is the same index, "
            "confirm with 'heliostat mirror --once --full'"
        )

    async def _remember(self, seen: Seen) -> None:
        """Keep upstream's name and head; nothing is written when nothing moved."""
        facts = await self._keeper(self._ledger.facts)
        if facts.get("upstream") != self._upstream.identity or facts.get("went_back"):
            await self._keeper(self._ledger.put, upstream=self._upstream.identity, went_back=None)
        if facts.get("source") != self._upstream.stand_in:
            await self._keeper(self._ledger.put, source=self._upstream.stand_in)
        if seen.serial is not None and facts.get("upstream_serial") != seen.serial:
            now = time.time()
            sightings = noted(facts.get("sightings"), seen.serial, now)
            await self._keeper(self._ledger.put, upstream_serial=seen.serial, upstream_seen=now, sightings=sightings)


def _all_resting(sources: Sources) -> Unavailable:
    """Why none of the sources is of use."""
    first, *others = sources.standings
    return Unavailable(first.base, "; ".join([first.reason, *(f"{one.base}: {one.reason}" for one in others)]))
