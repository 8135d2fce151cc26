"""What changed upstream since the cursor, by feed or by list, folded into the ledger.

``auto`` reads the change feed, or another heliostat's static one, for ordinary polls, and the root list for the first
run, when far behind, for a full reconcile, or when there is no feed; each falls back to the other with one line in the
log.  A mirror of named projects never reads a list of the whole index.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from heliostat.config import Config
from heliostat.errors import (
    FeedUnsupported,
    Invalid,
    Unavailable,
    UpstreamChanged,
    UpstreamError,
)
from heliostat.mirror.detours import Detours
from heliostat.mirror.feed_kind import FeedKind
from heliostat.mirror.following import FeedFollower, lost, position_of
from heliostat.mirror.lists import ListReader
from heliostat.mirror.upstream_identity import Behind, Identity, all_resting
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.client import Upstream

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
    #: Nothing told what changed: the feed cannot be had, and it is too early to do without once more.
    missed: bool = False

    def needs_two_looks(self, scope: Scope) -> bool:
        """Whether a removal whose event was missed can only show itself by 404s: no list is read that would tell."""
        return not self.missed and not self.by_list and not (self.by_feed and scope.everything)


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
        detours: Detours | None = None,
        eager: bool = False,
    ) -> None:
        """``between``: projects are under way.  What says nothing of what changed is not made owed all over again.

        ``detours`` are those of this process; ``eager``: whoever asks for this poll wants to know, at whatever price.
        """
        self._config, self._scope, self._upstream = config, scope, upstream
        self._ledger, self._keeper = ledger, keeper
        self._lists = ListReader(upstream, ledger, keeper, scope, tries=config.upstream.retries)
        #: This process has read the feed from a little before its cursor on already.
        self.overlapped = overlapped
        self._between, self._eager = between, eager
        self._detours = detours or Detours(config)
        self._follower = FeedFollower(upstream, ledger, keeper, scope)
        self._identity = Identity(upstream, ledger, keeper)
        self._feed = FeedKind(
            config.upstream, upstream, ledger, keeper, self._identity, again=config.mirror.reconcile_hours * 3600
        )

    async def read(self, *, full: bool, now: float) -> Seen:
        """Make owed what changed.  ``full`` compares everything, and confirms another upstream.

        Where there are several sources, one that is behind is left for the next one.
        """
        sources = self._upstream.sources
        sources.look_again()
        while True:
            try:
                return await self._read_once(full=full, now=now)
            except Behind as behind:
                self._feed.forget()
                if not sources.is_behind(sources.last, str(behind)):
                    if self._scope.everything and self._config.upstream.changes == "auto" and sources.only_hope():
                        return await self._list_of_first(now)
                    raise all_resting(sources) from None

    async def _list_of_first(self, now: float) -> Seen:
        """The first source's feed fails, and the others are behind: perhaps it has a list, as new as any."""
        facts = await self._keeper(self._ledger.facts)
        seen = await self._by_list(facts, now=now, restart=False, full=False, jump=False, first=True)
        await self._identity.remember(seen.serial)
        return seen

    async def _read_once(self, *, full: bool, now: float) -> Seen:
        facts = await self._keeper(self._ledger.facts)
        self._feed.begin(facts)
        restart = self._identity.confirm(facts, full=full)
        if restart:
            await self._lists.hear()  # nothing is forgotten for one that says nothing
        if full:
            restart = await self._feed.look_for(facts) or restart
        elif self._feed.may_be_back(facts, now):
            await self._feed.look_for(facts)
            if self._upstream.stand_in is None:
                await self._keeper(self._ledger.put, feed_asked=now)
        if restart:
            await self._keeper(self._identity.restart)
            facts = await self._keeper(self._ledger.facts)
        try:
            seen = await self._read(facts, full=full, restart=restart, now=now)
        except UpstreamChanged:
            await self._keeper(self._ledger.put, went_back=1)
            raise
        await self._identity.remember(seen.serial)
        return seen

    async def _read(self, facts: dict[str, Any], *, full: bool, restart: bool, now: float) -> Seen:
        if self._scope.everything:
            if self._list_first(facts, full=full, now=now):
                return await self._complete(facts, now=now, restart=restart, full=full)
            read = partial(self._by_feed, facts, now=now)
            if (seen := await self._if_there_is_a_feed(read, facts, now, "reading the root list instead")) is not None:
                return seen
            jump = not self._feed.leads(facts)
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
        jump = restart or not facts.get("cursor") or not await self._feed.is_near(facts)
        seen = await self._by_either(facts, now=now, restart=restart, full=full, jump=jump)
        if not jump and not seen.by_feed:
            try:
                rows = await self._by_feed(facts, now=now)
                seen = Seen(serial=rows.serial, by_list=True, by_feed=True, idle=seen.idle and rows.idle)
            except (FeedUnsupported, Unavailable, Invalid) as error:
                text = "the change feed cannot be had (%s); its rows are left for the next time"
                self._detours.failed("feed", text, error)
        return seen

    async def _by_either(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool) -> Seen:
        """A complete list, in whatever way; ordinary polls may make do with the feed where there is none for now."""
        if self._config.upstream.changes == "feed":
            return await self._by_names(facts, now=now, restart=restart, full=full, jump=jump)
        by_feed = not jump and not full
        if by_feed and not self._is_due("list"):
            return await self._by_feed(facts, now=now)
        try:
            seen = await self._by_list(facts, now=now, restart=restart, full=full, jump=jump)
        except UpstreamError as error:
            if self._config.upstream.changes == "list" or facts.get("feed") == "unsupported":
                raise
            text = "the root list cannot be had (%s); reading the change feed instead"
            self._detours.failed("list", text, error)
            failure = error
        else:
            self._detours.well("list", "the root list can be had again")
            return seen
        try:
            if by_feed:
                return await self._by_feed(facts, now=now)
            return await self._by_names(facts, now=now, restart=restart, full=full, jump=jump)
        except FeedUnsupported:
            raise failure from None

    def _is_due(self, what: str) -> bool:
        return self._eager or self._detours.is_due(what)

    # -- the change feed ----------------------------------------------------------------------------------------

    async def _if_there_is_a_feed(
        self,
        read: Callable[[], Awaitable[Seen]],
        facts: dict[str, Any],
        now: float,
        otherwise: str,
        *,
        full: bool = False,
        possible: bool = True,
    ) -> Seen | None:
        """What ``read`` found, or another feed that was found to be there; None where there is none for now.

        Then what is done ``otherwise`` is to be done, unless that is not ``possible`` now, or too early again.
        """
        try:
            return await read()
        except FeedUnsupported as error:
            if await self._feed.find_other(facts, error):
                return await self._by_feed(facts, now=now)
        except (Unavailable, Invalid) as error:
            if self._config.upstream.changes in ("feed", "static"):
                raise
            text = "the change feed cannot be had (%s); %s, less and less often"
            self._detours.failed("feed", text, error, otherwise)
            if not possible or not (full or self._is_due("feed")):
                return Seen(idle=True, missed=True)
        return None

    async def _by_feed(self, facts: dict[str, Any], *, now: float) -> Seen:
        seen = await self._read_feed(facts, now=now)
        if seen.by_feed:
            self._detours.well("feed", "the change feed can be had again")
            self._detours.well("far")
        return seen

    async def _read_feed(self, facts: dict[str, Any], *, now: float) -> Seen:
        facts = await self._keeper(self._ledger.facts)
        if self._feed.static:
            return await self._by_static(facts, now=now)
        cursor = int(facts.get("cursor") or 0)
        read = int(facts.get("rows") or cursor)
        head = await self._feed.last_serial()
        self._identity.check(head, read)
        if head == read:
            return Seen(serial=head, by_feed=True, idle=True)
        if head - read > self._config.upstream.far_behind and self._config.upstream.changes == "auto":
            if self._scope.everything:
                text = "%d serials behind upstream: reading the root list instead of the feed"
                self._detours.failed("far", text, head - read, level=logging.INFO)
                if not self._is_due("far"):  # the list that was read is as old, or cannot be had
                    return Seen(serial=head, idle=True, missed=True)
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
        answer = self._feed.static_head or await self._upstream.changes_head(position.etag if position else None)
        if answer is None:
            return Seen(serial=cursor, by_feed=True, idle=True)
        head, same = answer.head, False
        if self._upstream.several:
            await self._identity.heard(head.serial)
        if position is None or position.mirror != head.mirror or self._upstream.several:
            self._identity.check(head.serial, cursor)
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

    # -- the root list ------------------------------------------------------------------------------------------

    async def _by_list(
        self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool, first: bool = False
    ) -> Seen:
        """Compare with the root list; with ``jump`` the feed's rows before it are not read any more.

        ``first``: only the first source's counts.
        """
        cursor = int(facts.get("cursor") or 0)
        etag = None if full or restart or not cursor else facts.get("root_etag")
        collected = await self._lists.collect_root(str(etag) if etag else None, cursor)
        if first and self._upstream.sources.last.number > 0:
            raise all_resting(self._upstream.sources)
        if collected is None:
            if not 0 <= now - float(facts.get("reconciled") or 0) < self._config.mirror.heartbeat:
                await self._keeper(self._ledger.put, reconciled=now)
            return Seen(serial=cursor, by_list=True, idle=True)
        serial, found_etag = collected
        if self._between and not self._lists.tells_serials:
            return Seen(serial=cursor, by_list=True, idle=True)
        if self._upstream.several:
            await self._identity.heard(serial)
        if serial < cursor and not restart and not self._feed.leads(facts):
            if not full or self._identity.is_behind(serial):
                self._identity.check(serial, cursor)
            await self._keeper(self._identity.restart)
            restart = True
        changed = await self._lists.compare(serial, now, restart=restart, jump=jump or restart, etag=found_etag)
        return Seen(serial=serial, by_list=True, idle=not (changed or full or restart) and serial == cursor)

    async def _by_names(self, facts: dict[str, Any], *, now: float, restart: bool, full: bool, jump: bool) -> Seen:
        """The same by XML-RPC, where the root list is not to be read or not there.  Knows what is in quarantine too."""
        cursor = int(facts.get("cursor") or 0)
        head = await self._feed.last_serial()
        if not (restart or full):
            self._identity.check(head, cursor)
        highest = await self._lists.collect_names()
        # The list may be older than the head, but not older than its own newest entry: the feed goes on from there.
        changed = await self._lists.compare(min(head, highest), now, restart=restart, jump=jump, etag=None)
        return Seen(serial=head, by_list=True, idle=not (changed or full or restart) and head == cursor)

    # -- named projects -----------------------------------------------------------------------------------------

    async def _named(self, facts: dict[str, Any], *, full: bool, restart: bool, now: float) -> Seen:
        """An allow-list: its names are followed by the feed where there is one, else each is asked after."""
        if self._config.upstream.changes != "list" and facts.get("feed") != "unsupported":
            read = partial(self._named_by_feed, facts, full=full, restart=restart, now=now)
            seen = await self._if_there_is_a_feed(
                read, facts, now, "asking after each project instead", full=full, possible=not self._between
            )
            if seen is not None:
                return seen
        if self._between:
            return Seen(idle=True)
        await self._want_all(now, why="changed" if full else "poll")
        return Seen()

    async def _named_by_feed(self, facts: dict[str, Any], *, full: bool, restart: bool, now: float) -> Seen:
        begin = restart or not facts.get("cursor")
        if begin or full:
            head = await self._feed.last_serial()
            await self._want_all(now, why="changed" if full else "new")
        if begin and self._feed.static_head is not None:
            await self._follower.begin(self._feed.static_head.head, self._feed.static_head.head.number)
        if begin:
            await self._keeper(self._ledger.put, cursor=head)
            return Seen(serial=head)
        return await self._by_feed(facts, now=now)

    async def _want_all(self, now: float, *, why: str) -> None:
        def want() -> None:
            with self._ledger.transaction():
                for name in sorted(self._scope.names):
                    self._ledger.intake.want(name, name, now, named=False, why=why)

        await self._keeper(want)
