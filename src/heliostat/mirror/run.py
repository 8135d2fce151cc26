"""A mirror, opened under its lock, and one pass of it: changes, owed projects, removals, root index, checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from heliostat import __version__
from heliostat.config import Config, without_credentials
from heliostat.errors import StateError, StoreError, Unavailable, UpstreamChanged, UpstreamError
from heliostat.mirror import denials, opening
from heliostat.mirror.changes import Seen
from heliostat.mirror.closing import close_books
from heliostat.mirror.detours import Detours
from heliostat.mirror.lock import hold_lock
from heliostat.mirror.onepass import Asked, Pass
from heliostat.mirror.places import DATABASE, LOCK, scope_of, state_directory
from heliostat.mirror.report import Counters, Deletion, Summary
from heliostat.mirror.rows import tell_of
from heliostat.mirror.rules import rules_of
from heliostat.mirror.tally import Tally
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.policy.denials import parse_entry
from heliostat.state.database import explained, fault_of
from heliostat.state.ledger import Ledger
from heliostat.store.disk import Disk, Operations
from heliostat.store.memory import trim
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Tree
from heliostat.store.writer import Writer
from heliostat.upstream.client import Sources, Upstream
from heliostat.upstream.traffic import Traffic

if TYPE_CHECKING:
    from heliostat.mirror.adopt.files import Check
    from heliostat.mirror.adopt.layouts import Tool
    from heliostat.mirror.adopt.report import Record, Result
    from heliostat.mirror.deletion import Deleter
    from heliostat.mirror.sites.site import Standing
    from heliostat.mirror.verify.findings import Finding
    from heliostat.mirror.verify.repair import Sync
    from heliostat.mirror.verify.result import Repaired

if TYPE_CHECKING:
    from heliostat.mirror.live import Errand, Live
    from heliostat.mirror.livepass import LivePass
    from heliostat.upstream.pace import PaceFigures

log = logging.getLogger(__name__)

T = TypeVar("T")


class Mirror:
    """A mirror whose lock this process holds; made by :meth:`open`."""

    def __init__(
        self, config: Config, disk: Operations, ledger: Ledger, keeper: Keeper, version: str, lock: int | None
    ) -> None:
        self._config, self._version = config, version
        self._ledger, self._keeper = ledger, keeper
        self._tree = Tree(disk)
        self._writer = Writer(self._tree, lock)
        self._overlapped = False
        #: What goes wrong from pass to pass.
        self._detours = Detours(config)
        #: Which sources rest is known from pass to pass.
        self._sources = Sources(config.upstream)
        #: What the last poll found; None before the first one.
        self._seen: Seen | None = None
        self._pace: Callable[[], PaceFigures] | None = None
        #: What this process asked of upstream so far.
        self.traffic = Traffic()
        self._done, self._running = Tally(), Tally()

    @property
    def sources(self) -> Sources:
        """Upstream's sources, and which of them rest."""
        return self._sources

    def done(self) -> Tally:
        """What this process did so far, the pass that runs included."""
        return self._done.plus(self._running)

    def reconfigure(self, config: Config) -> None:
        """From the next pass on ``config`` counts; directory and state stay what they are."""
        if config.upstream != self._config.upstream:
            before = self._sources
            self._sources, self._overlapped = Sources(config.upstream), False
            self._sources.take_over(before)
            self._detours = Detours(config)
        self._detours.configure(config)
        self._config, self._seen = config, None

    @property
    def figures(self) -> PaceFigures | None:
        """Limits, requests in flight, and waits as they are now; None while no pass runs."""
        return self._pace() if self._pace is not None else None

    async def next_due(self) -> float | None:
        """When the first project that is owed is to be tried, seconds since the epoch; None when nothing is owed.

        Raises StateError, StoreError.
        """
        return await self._keeper(self._ledger.first_due)

    async def list_sites(self, found: Mapping[str, Standing], now: float) -> None:
        """Write ``mirrors.json`` with what the sites said at ``now``, by URL.  Raises StoreError."""
        from heliostat.mirror.sites.listing import write_listing

        config = self._config
        await self._keeper(write_listing, self._tree.disk, config.mirrors, config.upstream.url[0], found, now)

    async def report(self, errand: Errand) -> Summary:
        """What became of the projects of an errand; a summary of these alone."""
        summary = Summary(upstream=without_credentials(self._config.upstream.url[0]), started=errand.began)

        def tell() -> None:
            ledger = self._ledger
            summary.cursor, summary.checkpoint = ledger.cursor, ledger.checkpoint()
            summary.projects = ledger.published_count()
            for name, before in errand.before.items():
                tell_of(summary, before, ledger.row(name))

        await self._keeper(tell)
        summary.unknown, summary.seconds = errand.unknown, time.time() - errand.began
        if (ended_by := errand.ended_by) is not None:
            summary.unreachable, summary.store_error = ended_by.unreachable, ended_by.store_error
            summary.interrupted = ended_by.interrupted
        return summary

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        config: Config,
        *,
        version: str = __version__,
        disk: Operations | None = None,
        salvage: bool = False,
        adopting: bool = False,
        stop: asyncio.Event | None = None,
        counters: Counters | None = None,
    ) -> AsyncIterator[Mirror]:
        """Take the lock, open store and ledger, finish what an earlier process left.

        Rebuilds the ledger from the tree when the database is gone over a tree that is not empty; ``counters`` show how
        far that is, and ``stop`` ends it, and the next start begins it anew.  With ``salvage`` a database that cannot
        be used is moved aside first.  With ``adopting`` a tree without a ledger is left as it is, for :meth:`adopt`.
        Raises MirrorLocked, StoreError, StateError.
        """
        directory, state = config.mirror.directory, state_directory(config)
        opening.check_directory(directory)
        opening.make_state_directory(state)
        with hold_lock(f"{state}/{LOCK}") as lock:
            disk = disk or Disk(directory)
            path = f"{state}/{DATABASE}"
            keeper = Keeper("heliostat-keeper", partial(fault_of, path))
            try:
                tree = Tree(disk)
                ledger = await keeper(opening.open_ledger, path, salvage=salvage)
                mirror = cls(config, disk, ledger, keeper, version, lock)
                try:
                    with explained(path):
                        if not salvage and not adopting:
                            await keeper(opening.refuse_missing_tree, tree, ledger)
                            await keeper(opening.refuse_half_adopted, ledger)
                        if adopting:
                            yield mirror
                            return
                        await keeper(tree.prepare)
                        await keeper(tree.clean_partial, downloads=False)
                        await keeper(opening.agree_on_denied, tree, ledger)
                        if await keeper(ledger.get, "rebuilding"):
                            await mirror._rebuild_if_populated(stop or asyncio.Event(), counters or Counters())
                        await keeper(opening.reap_leftovers, tree, ledger)
                        yield mirror
                finally:
                    await keeper(ledger.close)
            finally:
                keeper.close()

    async def run(
        self,
        *,
        names: Sequence[str] = (),
        full: bool = False,
        allow_removals: int = 0,
        counters: Counters,
        stop: asyncio.Event,
        patient: bool = False,
        live: Live | None = None,
    ) -> Summary:
        """One pass.  With ``names`` only those are synchronised, and scope, cursor and checkpoint stay as they are.

        ``patient`` leaves projects that wait for their next try alone; otherwise everything owed is tried now.
        ``live``, of a daemon, has it go on polling for as long as it works; ``stop`` is that pass's own then.
        Upstream's and the store's faults are told in the summary; raises UpstreamChanged, StateError.
        """
        wanted = Asked(tuple(names), full=full, allow_removals=allow_removals, patient=patient)
        upstream = Upstream(
            self._config.upstream,
            version=self._version,
            counters=counters,
            sources=self._sources,
            traffic=self.traffic,
        )
        summary = Summary(upstream=upstream.base, started=time.time())
        tally = Tally()
        self._done, self._running = self.done(), tally
        counters.phase = "asking upstream"
        try:
            async with upstream:
                self._pace = upstream.figures
                kind = Pass if live is None else partial(_live_pass(), live=live, last=self._seen)
                one = kind(
                    self._config, self._tree, self._ledger, self._keeper, upstream,
                    asked=wanted, counters=counters, tally=tally, stop=stop, overlapped=self._overlapped,
                    detours=self._detours, writer=self._writer,
                )  # fmt: skip
                summary.upstream_serial = await one.go(summary.started)
                self._overlapped = one.overlapped
                summary.missed = one.seen.missed
                if not names and not stop.is_set():
                    self._seen = one.seen
        except UpstreamError as error:
            self._detours.in_vain()
            summary.unreachable = str(error)
            if live is not None and isinstance(error, Unavailable):
                live.retry_after = error.retry_after
        except StoreError as error:
            summary.store_error = str(error)
        except UpstreamChanged as error:
            await self._note_trouble(str(error))
            raise
        finally:
            self._pace = None
        summary.upstream = upstream.base
        summary.store_error = summary.store_error or tally.no_room
        await self._note_trouble(summary.unreachable or summary.store_error)
        summary.interrupted = stop.is_set()
        await close_books(
            self._config, self._tree, self._ledger, self._keeper, summary, counters, tally, checkpoint=not names
        )
        if not summary.held:
            self._detours.forget("held")
        return summary

    async def with_ledger(self, work: Callable[[Ledger], T]) -> T:
        """The result of ``work``, which gets the ledger for itself meanwhile: it is to be short.

        Raises StateError, StoreError.
        """
        return await self._keeper(work, self._ledger)

    async def give_back_memory(self) -> None:
        """What a pass left behind that only another pass might use goes back to the system; a few milliseconds.

        Otherwise the resident size of a process that runs for years grows, ever more slowly, for many thousands of
        changes: by the pages of the ledger that any of them touched, and by the gaps between them once those are gone.
        Raises StateError, StoreError.
        """
        await self.with_ledger(Ledger.forget_pages)
        await in_thread(trim)

    async def _note_trouble(self, trouble: str | None) -> None:
        """Remember what stopped the last pass, for ``status``; nothing is written while it stays the same."""

        def note() -> None:
            if self._ledger.get("trouble") != trouble:
                self._ledger.put(trouble=trouble, trouble_since=time.time() if trouble else None)

        with contextlib.suppress(StoreError, StateError):  # the disk may be what is full
            await self._keeper(note)

    async def rebuild(self, *, counters: Counters, stop: asyncio.Event) -> Summary:
        """Make pages, links and ledger from what is on disk, without the network."""
        summary = Summary(upstream=without_credentials(self._config.upstream.url[0]), started=time.time())
        counters.phase = "rebuilding"
        try:
            await self._rebuild(counters, stop)
        except StoreError as error:
            summary.store_error = str(error)
        summary.interrupted = stop.is_set()
        await close_books(
            self._config, self._tree, self._ledger, self._keeper, summary, counters, Tally(), checkpoint=True
        )
        return summary

    async def adopt(
        self, tool: Tool | None, check: Check, *, counters: Counters, stop: asyncio.Event
    ) -> tuple[Result, Record]:
        """Take over another tool's tree, without the network; goes on where an earlier try was interrupted.

        Only of a mirror that was opened for ``adopting``.  Raises ConfigError, StoreError, StateError.
        """
        from heliostat.mirror.adopt.run import adopt_tree

        return await adopt_tree(
            self._config, self._tree, self._ledger, self._keeper, tool, check, counters=counters, stopped=stop.is_set
        )

    async def take_in(self, *, counters: Counters, stop: asyncio.Event) -> tuple[Result, Record]:
        """Give wheels and sdists that lie about in the directory the places at which the next pass looks for them.

        Raises ConfigError when there are none, StoreError.
        """
        from heliostat.mirror.adopt.loose import LooseFiles

        started, in_scope = time.time(), scope_of(self._config).__contains__
        disk = self._tree.disk
        counters.phase = "adopting"
        files = LooseFiles(
            disk.root, disk, in_scope=in_scope, counters=counters, stopped=stop.is_set, announce=self._announce
        )
        result, record = await self._keeper(files.run)
        result.seconds = time.time() - started
        counters.phase = "done"
        return result, record

    def _announce(self, places: Mapping[ProjectName, list[str]]) -> None:
        """A pass looks at these projects, and removes those of the places that their pages do not name."""
        with self._ledger.transaction():
            for name, paths in places.items():
                self._ledger.paths.announce(name, paths)
                if self._ledger.row(name) is None:
                    self._ledger.intake.want(name, name, time.time(), named=False, why="new")

    async def repair(
        self,
        findings: Callable[[], Iterable[Finding]],
        *,
        counters: Counters,
        stop: asyncio.Event,
        fix: bool = True,
        delete: bool = False,
        allow_removals: int = 0,
        unreadable: int = 0,
        unreferenced: int = 0,
        sync: Sync | None = None,
    ) -> Repaired:
        """Put right what a verify found; ``findings`` gives that each time anew, in the order of projects.

        ``fix`` fetches and rewrites, ``delete`` removes what no page names, as long as that is a plausible share or at
        most ``allow_removals`` files, and no project's page is ``unreadable``; ``unreferenced`` is how many files
        these are together with those of other calls, if that is more.  ``sync`` synchronises projects; without it that
        is a pass of its own, which nothing else may run beside.
        What upstream and store refuse is told in the result; raises StateError, UpstreamChanged.
        """
        import tempfile

        from heliostat.mirror.verify.ground import mirror_ground
        from heliostat.mirror.verify.reading import Budget
        from heliostat.mirror.verify.repair import Repair

        async def pass_of(names: list[str]) -> Summary:
            return await self.run(names=names, counters=counters, stop=stop)

        ground = await self._keeper(mirror_ground, self._config, Budget())
        rules = await self._keeper(rules_of, self._config, self._ledger)
        with tempfile.TemporaryDirectory(prefix="heliostat-repair-") as scratch:
            repair = Repair(
                self._tree, self._ledger, self._keeper, ground, sync or pass_of, scratch,
                packed=self._config.mirror.gzip_root, stop=stop, denied=rules.denials.projects,
            )  # fmt: skip
            return await repair.run(
                findings, fix=fix, delete=delete, allow=allow_removals, unreadable=unreadable, counters=counters,
                unreferenced=unreferenced,
            )  # fmt: skip

    async def refuse_denied(self, names: Sequence[str]) -> None:
        """Raises Refused for a project that is on the deny-list, or no name at all."""
        rules = await self._keeper(rules_of, self._config, self._ledger)
        for name in names:
            denials.refuse_denied(rules, normalise(name), name)

    async def delete(
        self, entries: Sequence[str], *, reason: str, purge: bool, counters: Counters, stop: asyncio.Event
    ) -> Deletion:
        """Remove projects (``NAME``) and releases (``NAME==VERSION``), and keep them out; no pass may run meanwhile.

        ``purge``: nothing of it is kept.  What the store refuses is told in the result; raises Refused, StateError.
        """
        wanted = [parse_entry(text) for text in entries]
        return await self._deleter(counters, stop).delete(wanted, reason=reason, purge=purge)

    async def restore(self, entries: Sequence[str], *, counters: Counters, stop: asyncio.Event) -> Deletion:
        """Bring back what was deleted, or what upstream removed and is still kept; see :meth:`delete`."""
        return await self._deleter(counters, stop).restore([parse_entry(text) for text in entries])

    def _deleter(self, counters: Counters, stop: asyncio.Event) -> Deleter:
        from heliostat.mirror.deletion import Deleter

        async def sync(names: list[str]) -> Summary:
            return await self.run(names=names, counters=counters, stop=stop)

        upstream = Upstream(
            self._config.upstream, version=self._version, counters=counters, sources=self._sources,
            traffic=self.traffic,
        )  # fmt: skip
        return Deleter(
            self._config, self._tree, self._ledger, self._keeper,
            upstream=upstream, sync=sync, counters=counters, stop=stop,
        )  # fmt: skip

    async def _rebuild(self, counters: Counters, stop: asyncio.Event) -> None:
        from heliostat.mirror.rebuild import rebuild_tree
        from heliostat.mirror.root import write_root

        in_scope = (await self._keeper(rules_of, self._config, self._ledger)).scope.__contains__
        await self._keeper(rebuild_tree, self._tree, self._ledger, counters, stop.is_set, in_scope)
        if not stop.is_set():
            packed = self._config.mirror.gzip_root
            await self._keeper(write_root, self._tree, self._ledger, force=True, packed=packed)

    async def _rebuild_if_populated(self, stop: asyncio.Event, counters: Counters) -> None:
        """A new ledger, or one whose rebuild was cut short, over a tree that is not empty."""
        if await self._keeper(opening.is_populated, self._tree):
            log.warning("the ledger is missing over a tree that is not empty: rebuilding it from the pages")
            counters.phase = "rebuilding"
            await self._rebuild(counters, stop)
        else:
            await self._keeper(opening.begin_ledger, self._tree, self._ledger)


def _live_pass() -> type[LivePass]:
    """Only a daemon needs it."""
    from heliostat.mirror.livepass import LivePass

    return LivePass
