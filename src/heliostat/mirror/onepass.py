"""One pass: what changed, the projects owed, removals, the root index, the checkpoint.

Upstream's faults that concern one project stay with its row; what concerns the whole pass comes out as an error, and
everything handed over by then is in the tree.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from heliostat.config import Config
from heliostat.errors import StoreError
from heliostat.mirror.budget import PageBudget
from heliostat.mirror.changes import ChangeReader, Seen
from heliostat.mirror.crew import Slots, run_crew, unless_stopped
from heliostat.mirror.denials import leaving_denied, refuse_denied, take_denials
from heliostat.mirror.detours import Detours
from heliostat.mirror.keeping import expire
from heliostat.mirror.places import scope_of
from heliostat.mirror.reachability import Reachability
from heliostat.mirror.removals import Removal, Removals, begun, carry_out, hold, split_by_guard
from heliostat.mirror.report import Counters
from heliostat.mirror.rescope import leaving, take_files, take_limits, take_scope
from heliostat.mirror.root import write_last_modified, write_root, write_status
from heliostat.mirror.rules import Rules, rules_of
from heliostat.mirror.tally import Tally
from heliostat.mirror.unannounced import DAY, longest_wait, look_for_free_places, reconsider, sweep
from heliostat.mirror.upstream_identity import Identity
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Row
from heliostat.store.threads import Keeper
from heliostat.store.tree import Tree
from heliostat.store.writer import Writer
from heliostat.upstream.client import Upstream

if TYPE_CHECKING:
    from heliostat.mirror.metadata import Documents, MetadataReader
    from heliostat.mirror.project import ProjectSync
    from heliostat.mirror.publish import Publisher

log = logging.getLogger(__name__)

#: A download that nobody went on with for so long is abandoned (seconds).
_ABANDONED = 7 * DAY


class Asked(msgspec.Struct, frozen=True):
    """What a pass is asked to do; see :meth:`heliostat.mirror.run.Mirror.run`."""

    names: tuple[str, ...] = ()
    full: bool = False
    allow_removals: int = 0
    patient: bool = False


class Work(NamedTuple):
    """Who works on the projects owed."""

    sync: ProjectSync
    publisher: Publisher
    slots: Slots
    removals: Removals
    documents: Documents
    reachability: Reachability


class Pass:
    """One pass over a mirror; :meth:`go` runs once."""

    def __init__(
        self,
        config: Config,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        upstream: Upstream,
        *,
        asked: Asked,
        counters: Counters,
        tally: Tally,
        stop: asyncio.Event,
        overlapped: bool = False,
        detours: Detours | None = None,
        writer: Writer | None = None,
    ) -> None:
        self._config, self._tree, self._ledger, self._keeper = config, tree, ledger, keeper
        self._writer = writer or Writer(tree)
        self._upstream, self._asked, self._counters, self._tally, self._stop = upstream, asked, counters, tally, stop
        #: Without what the ledger denies, until the pass begins.
        self._rules = Rules(scope_of(config))
        self._scope = self._rules.scope
        #: Whether this process has read the change feed from a little before its cursor on already.
        self.overlapped = overlapped
        self._detours = detours or Detours(config)
        #: What is left under ``partial/`` to be resumed.
        self._unfinished: frozenset[str] = frozenset()
        #: Removals that were approved and not carried out yet.
        self._allowed = asked.allow_removals
        self._only: dict[ProjectName, str] = {normalise(raw): raw for raw in asked.names}
        self._started = 0.0
        #: What the poll found.
        self.seen = Seen()
        #: Whether upstream was asked what changed.
        self._polled = True

    async def go(self, started: float) -> int | None:
        """Run the pass; upstream's serial if anything told it.  Raises UpstreamError, StoreError, StateError."""
        self._started, now = started, time.time()
        facts = await self._keeper(self._ledger.facts)
        excluded: list[Removal] = []
        seen = self.seen
        await self._take_rules()
        if self._only:
            for name, raw in self._only.items():
                refuse_denied(self._rules, name, raw)
            Identity(self._upstream, self._ledger, self._keeper).confirm(facts, full=False)
            if facts.get("upstream") is None:
                await self._keeper(self._ledger.put, upstream=self._upstream.identity)
            await self._keeper(self._want_named, now)
        else:
            await self._keeper(take_denials, self._ledger, self._config, self._rules, now)
            await self._keeper(take_scope, self._ledger, self._scope, now, self._tree)
            await self._keeper(take_files, self._ledger, self._config.mirror.files, now)
            await self._keeper(take_limits, self._ledger, self._config, now)
            excluded = await self._keeper(leaving, self._ledger, self._scope)
            excluded += await self._keeper(leaving_denied, self._ledger, self._rules)
            self.seen = seen = await self._poll(now)
            await self._keeper(
                reconsider, self._ledger, full=self._asked.full, approve=bool(self._asked.allow_removals), now=now
            )
            await self._keeper(look_for_free_places, self._ledger, self._config.mirror, now)
            await self._keeper(sweep, self._ledger, self._config.mirror, facts, now)
        await self._keeper(self._ledger.schedule.trust_clock, now, longest_wait(self._config.mirror))
        if not self._asked.patient:
            await self._keeper(self._ledger.schedule.hasten, now)
        if seen.needs_two_looks(self._scope):
            await self._keeper(self._ledger.schedule.call_witness, now)
        await self._take_errands(now)
        if not self._stop.is_set():
            await self._remove(excluded)  # first: it makes room
        removals = self._removals(facts, seen)
        try:
            await self._mirror(removals, facts, seen, now)
        except StoreError:
            await self._remove(await self._confirmed(removals))  # room may be what is missing
            raise
        if not self._stop.is_set():
            await self._remove(await self._confirmed(removals))
        await self._keeper(self._drop_unknown, removals.unknown)
        if not self._only:
            await self._keeper(expire, self._tree, self._ledger, now - self._config.removal.withhold_days * DAY)
        if not self._stop.is_set():
            if self._root_is_due(facts, now):
                self._counters.phase = "writing the root index"
                await self._keeper(write_root, self._tree, self._ledger, packed=self._config.mirror.gzip_root)
            if not self._only:
                await self._finish_poll(facts, started, seen)
                await self._forget_abandoned()
        return seen.serial

    async def _take_rules(self) -> None:
        self._rules = await self._keeper(rules_of, self._config, self._ledger)
        self._scope = self._rules.scope

    def _reader(self, *, between: bool = False) -> ChangeReader:
        return ChangeReader(
            self._config, self._scope, self._upstream, self._ledger, self._keeper,
            overlapped=self.overlapped, between=between, detours=self._detours,
            eager=not (self._asked.patient or between),
        )  # fmt: skip

    async def _poll(self, now: float) -> Seen:
        """Ask upstream what changed, and make it owed."""
        reader = self._reader()
        seen = await unless_stopped(reader.read(full=self._asked.full, now=now), self._stop)
        self.overlapped = reader.overlapped
        return seen or Seen()

    async def _take_errands(self, now: float) -> None:
        """Nobody asks a single pass for anything while it runs."""

    async def _confirmed(self, removals: Removals) -> list[Removal]:
        """The removals to be carried out at the end."""
        return removals.confirmed

    def _root_is_due(self, facts: dict[str, Any], now: float) -> bool:
        """A daemon rewrites the root at its own pace; a single pass, and a removal, at once."""
        written = float(facts.get("root_written") or 0)
        age = now - written
        return bool(
            not self._asked.patient or self._tally.removed or age < 0 or age >= self._config.mirror.root_interval
        )

    def _want_named(self, now: float) -> None:
        with self._ledger.transaction():
            for name, raw in self._only.items():
                self._ledger.intake.want(raw, name, now, named=name not in self._scope, why="named")

    def _want_again(self, names: list[ProjectName]) -> None:
        """Projects published without a document, before another one showed that this upstream has documents."""
        with self._ledger.transaction():
            for name in names:
                self._ledger.intake.reopen(name, time.time(), "its document is missing upstream")

    def _drop_unknown(self, names: list[str]) -> None:
        self._tally.unknown += [self._only.get(ProjectName(name), name) for name in names]
        rows = [self._ledger.row(name) for name in names if begun(self._tree, self._ledger, name)]
        left = [Removal(row, "unknown upstream") for row in rows if row is not None]
        carry_out(self._tree, self._ledger, left, keeps=self._rules.keeps)
        for name in names:
            self._ledger.drop_unknown(name)

    def _removals(self, facts: dict[str, Any], seen: Seen) -> Removals:
        return Removals(
            pass_number=int(facts.get("pass") or 0) + 1,
            confirm_seconds=self._config.mirror.confirm_seconds,
            two_looks=seen.needs_two_looks(self._scope),
            followed=self._scope.names,
        )

    async def _mirror(self, removals: Removals, facts: dict[str, Any], seen: Seen, now: float) -> None:
        """Bring every project owed up to date; what is confirmed to be gone is left in ``removals``."""
        self._counters.projects_total = len(self._only) or await self._keeper(self._ledger.count_due, now)
        if not self._counters.projects_total or self._stop.is_set():
            return
        from heliostat.mirror.metadata import Documents

        known = None if self._asked.full else facts.get("documents")
        documents = Documents(None if known is None else bool(known))
        await self._keeper(self._ledger.put, **{"pass": removals.pass_number})
        self._counters.phase = "mirroring"
        head = seen.serial if seen.serial is not None else facts.get("upstream_serial")
        heard = seen.serial is not None or not self._polled
        await self._crew(documents, removals, now, heard=heard, head=head)
        await self._settle(documents, facts)

    async def _settle(self, documents: Documents, facts: dict[str, Any]) -> None:
        """Keep in mind whether upstream has documents; who was published without one for lack of knowing is owed."""
        told = documents.available if self._upstream.stand_in is None else documents.available or None
        if told is not None and facts.get("documents") != int(told):
            await self._keeper(self._ledger.put, documents=int(told))
        if documents.available and documents.doubtful:
            doubtful, documents.doubtful = documents.doubtful, []
            await self._keeper(self._want_again, doubtful)

    async def _crew(
        self, documents: Documents, removals: Removals, now: float, *, heard: bool, head: int | None
    ) -> None:
        # All that only a pass with something to do needs; most polls have nothing to do.
        from heliostat.mirror.download import Downloader
        from heliostat.mirror.files import FileCollector
        from heliostat.mirror.project import ProjectSync
        from heliostat.mirror.project_provenance import ProjectProvenance
        from heliostat.mirror.provenance import ProvenanceFetcher
        from heliostat.mirror.publish import Publisher
        from heliostat.store.room import Room
        from heliostat.store.staging import Stager

        mirror, limits = self._config.mirror, self._config.upstream
        tree, ledger, keeper, counters, tally = self._tree, self._ledger, self._keeper, self._counters, self._tally
        room, traffic = Room(tree.disk, mirror.min_free), self._upstream.traffic
        publisher = Publisher(
            tree, ledger, keeper,
            projects=mirror.batch_projects, seconds=mirror.batch_seconds, room=room, tally=tally,
            durations=traffic.batches, writer=self._writer, expected=counters.projects_total,
        )  # fmt: skip
        budget = PageBudget()
        stager, slots = Stager(tree.disk), Slots(mirror.projects_at_once, budget)
        reachability = Reachability(answered=heard)
        downloader = Downloader(
            self._upstream, tree.disk, stager,
            tries=limits.retries, max_file=limits.max_file, max_sidecar=limits.max_sidecar,
            room=room,
        )  # fmt: skip
        sync = ProjectSync(
            self._config, tree, ledger, keeper, publisher,
            reader=self._metadata(documents, slots),
            budget=budget,
            files=FileCollector(
                keeper, publisher, downloader, slots, counters=counters, tally=tally, traffic=traffic
            ),
            provenance=ProjectProvenance(
                tree,
                ProvenanceFetcher(self._upstream, tree.disk, stager, counters, tally)
                if mirror.provenance and mirror.files
                else None,
            ),
            removals=removals, reachability=reachability, counters=counters, tally=tally, traffic=traffic, head=head,
            rules=self._rules, tree_began_empty=await self._began_empty(),
        )  # fmt: skip
        try:
            # stop, store faults and an upstream that is down end the crew; what it handed over is committed
            await self._work(Work(sync, publisher, slots, removals, documents, reachability), now)
            if (met := sync.take_met()) and not self._stop.is_set():
                await run_crew(self._owed_of(met), sync.sync, publisher, slots=slots, stop=self._stop)
            if not self._stop.is_set():
                reachability.check()
        finally:
            self._unfinished = frozenset(downloader.unfinished)
            try:
                await stager.close()
            finally:
                await keeper(self._writer.rest)
            await keeper(tree.clean_partial, downloads=False)

    async def _began_empty(self) -> bool:
        """Whether nobody but us ever put anything into the tree, as far as is known."""
        return bool(await self._keeper(self._ledger.get, "tree_began_empty"))

    def _metadata(self, documents: Documents, slots: Slots) -> MetadataReader:
        """Who says what projects consist of."""
        from heliostat.mirror.metadata import MetadataReader

        return MetadataReader(self._upstream, self._config, documents, wait=lambda: slots.lend(empty_handed=True))

    async def _work(self, work: Work, now: float) -> None:
        """Deal with all that is owed."""
        await run_crew(self._owed(now), work.sync.sync, work.publisher, slots=work.slots, stop=self._stop)

    async def _owed(self, now: float) -> AsyncIterator[Row]:
        """The todo list, a page at a time; what becomes due meanwhile belongs to the next pass."""
        if self._only:
            async for row in self._owed_of(self._only):
                yield row
            return
        after = (-1.0, "")
        while rows := await self._keeper(self._ledger.due, now, after, 256):
            for row in rows:
                yield row
            last = rows[-1]
            assert last.due_at is not None
            after = (last.due_at, last.name)

    async def _owed_of(self, names: Iterable[ProjectName]) -> AsyncIterator[Row]:
        """Those of the projects that are owed."""
        for name in sorted(names):
            row = await self._keeper(self._ledger.row, name)
            if row is not None and row.due_at is not None:
                yield row

    async def _remove(self, confirmed: list[Removal]) -> None:
        if not confirmed:
            return
        self._counters.phase = "removing"
        recent = await self._keeper(self._ledger.removals_since, time.time() - DAY)
        published = await self._keeper(self._ledger.published_count)
        go, held, approved = split_by_guard(confirmed, recent=recent, published=published, allowed=self._allowed)
        self._allowed -= len(approved)
        if news := await self._keeper(hold, held, self._ledger):
            await self._keeper(self._ledger.record, news)
        self._tally.files_removed += await self._keeper(
            carry_out, self._tree, self._ledger, go, approved=approved, keeps=self._rules.keeps
        )
        self._tally.removed += sum(1 for removal in go if removal.row.published)
        if held:
            waiting = (await self._keeper(self._ledger.owed_by_state)).get("held", len(held))
            log.log(
                logging.ERROR if self._detours.is_news("held", waiting) else logging.DEBUG,
                "%d removals of %d projects are implausible and wait: look at 'heliostat status', then approve with "
                "'heliostat mirror --once --allow-removals %d'",
                len(held), published, waiting,
            )  # fmt: skip

    async def _forget_abandoned(self) -> None:
        """Downloads that nobody went on with are wanted no more; while projects fail, only after a week."""
        states = await self._keeper(self._ledger.owed_by_state)
        failing = states.get("pending", 0) + states.get("failing", 0)
        age = _ABANDONED if failing else 0.0
        await self._keeper(self._tree.clean_partial, self._unfinished, downloads=True, age=age)

    async def _finish_poll(self, facts: dict[str, Any], started: float, seen: Seen) -> None:
        """Checkpoint, status and last-modified; nothing is written when nothing moved, but for the heartbeat."""
        checkpoint = await self._keeper(self._ledger.checkpoint)
        await self._keeper(write_status, self._tree, checkpoint)
        if self._config.mirrors:
            from heliostat.mirror.sites.listing import write_listing

            sites, url = self._config.mirrors, self._config.upstream.url[0]
            await self._keeper(write_listing, self._tree.disk, sites, url)
        if not self._polled or seen.missed:
            return
        last = float(facts.get("last_poll") or 0)
        if not seen.idle or started - last >= self._config.mirror.heartbeat or started < last:
            await self._keeper(write_last_modified, self._tree, started)
            await self._keeper(self._ledger.put, last_poll=started)
