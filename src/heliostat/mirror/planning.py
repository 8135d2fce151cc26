"""``--dry-run``: what a pass would do, found out on a copy of the ledger; takes no lock and writes nothing.

Changes are read and projects are looked at as in a real pass; only their files are not fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

from heliostat import __version__
from heliostat.config import Config
from heliostat.errors import Obstructed, PageMissing, Refused, UpstreamError
from heliostat.mirror.amend import amend
from heliostat.mirror.budget import PageBudget
from heliostat.mirror.changes import ChangeReader, Seen
from heliostat.mirror.crew import first_of
from heliostat.mirror.denials import leaving_denied, refuse_denied, take_denials
from heliostat.mirror.inventory import take_inventory
from heliostat.mirror.metadata import Documents, MetadataReader
from heliostat.mirror.onepass import Asked
from heliostat.mirror.places import DATABASE, scope_of, state_directory
from heliostat.mirror.reachability import Reachability
from heliostat.mirror.removals import Removal, Removals, hold, split_by_guard
from heliostat.mirror.report import Counters, Owed, Plan
from heliostat.mirror.rescope import held_by_scope, leaving, take_limits, take_scope
from heliostat.mirror.rows import owed_of
from heliostat.mirror.rules import Rules, rules_of
from heliostat.mirror.unannounced import DAY, reconsider
from heliostat.mirror.upstream_identity import Identity
from heliostat.mirror.wanted import Wanted, held_files, provenance_path, wanted_files
from heliostat.model import ProjectName, ProjectPage
from heliostat.names import normalise, sidecar_path
from heliostat.state.database import explained, fault_of, is_quiet, open_readonly
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Row, Tombstone
from heliostat.store.disk import Disk
from heliostat.store.threads import Keeper, in_thread
from heliostat.store.tree import Tree
from heliostat.upstream.client import Upstream

#: Projects of one state that are owed already and listed at most.
_LISTED = 1000


async def plan_pass(
    config: Config,
    *,
    names: Sequence[str] = (),
    full: bool = False,
    allow_removals: int = 0,
    counters: Counters,
    stop: asyncio.Event,
    version: str = __version__,
) -> Plan:
    """The plan of a pass; upstream's faults are told in it.  Raises UpstreamChanged, StateError, StoreError."""
    with _shadow(config) as path:
        keeper = Keeper("heliostat-plan", partial(fault_of, path))
        try:
            ledger = await keeper(Ledger, path)
            try:
                async with Upstream(config.upstream, version=version, counters=counters) as upstream:
                    asked = Asked(tuple(names), full=full, allow_removals=allow_removals)
                    return await _Planner(config, upstream, ledger, keeper, counters).plan(asked, stop)
            finally:
                await keeper(ledger.close)
        finally:
            keeper.close()


@contextlib.contextmanager
def _shadow(config: Config) -> Iterator[str]:
    """A copy of the ledger in a temporary folder, or the path for a new one there."""
    source = f"{state_directory(config)}/{DATABASE}"
    with tempfile.TemporaryDirectory(prefix="heliostat-plan-") as folder:
        path = f"{folder}/{DATABASE}"
        while _is_there(source):
            quiet = is_quiet(source)
            with explained(source), contextlib.closing(open_readonly(source)) as connection:
                connection.execute("VACUUM INTO ?", (path,))
            if not quiet or is_quiet(source):
                break
            os.unlink(path)  # a mirror started meanwhile, and may have changed what was being read
        yield path


def _is_there(path: str) -> bool:
    """False only when it is certain that there is nothing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


class _Planner:
    """Does what a pass does, on the copy of the ledger, where what goes or is held is recorded as a pass would."""

    def __init__(self, config: Config, upstream: Upstream, ledger: Ledger, keeper: Keeper, counters: Counters) -> None:
        self._config, self._upstream, self._ledger, self._keeper = config, upstream, ledger, keeper
        self._counters = counters
        self._rules = Rules(scope_of(config))
        self._scope = self._rules.scope
        self._tree = Tree(Disk(config.mirror.directory))
        self._plan = Plan(upstream=upstream.base)
        self._looked_at: set[str] = set()
        self._budget = PageBudget()
        #: Removals that were approved and are not planned yet.
        self._allowed = 0

    async def plan(self, asked: Asked, stop: asyncio.Event) -> Plan:
        self._allowed = asked.allow_removals
        try:
            await self._go_through(asked, stop)
        except UpstreamError as error:
            self._plan.unreachable = str(error)
        self._plan.upstream = self._upstream.base
        self._plan.interrupted = stop.is_set()
        await self._keeper(self._list_what_waits, rest=not (self._plan.unreachable or stop.is_set()))
        self._measure_free_space()
        for listed in (self._plan.adds, self._plan.updates, self._plan.removals, self._plan.held):
            listed.sort()
        return self._plan

    async def _go_through(self, asked: Asked, stop: asyncio.Event) -> None:
        """The pass, in its order."""
        now = time.time()
        excluded: list[Removal] = []
        seen = Seen()
        self._rules = await self._keeper(rules_of, self._config, self._ledger)
        self._scope = self._rules.scope
        if asked.names:
            facts = await self._keeper(self._ledger.facts)
            Identity(self._upstream, self._ledger, self._keeper).confirm(facts, full=False)
            for raw in asked.names:
                refuse_denied(self._rules, normalise(raw), raw)
                await self._keeper(self._ledger.intake.want, raw, normalise(raw), now, named=True, why="named")
        else:
            await self._keeper(take_denials, self._ledger, self._config, self._rules, now)
            await self._keeper(take_scope, self._ledger, self._scope, now, self._tree)
            await self._keeper(take_limits, self._ledger, self._config, now)
            excluded = await self._keeper(leaving, self._ledger, self._scope)
            excluded += await self._keeper(leaving_denied, self._ledger, self._rules)
            reader = ChangeReader(
                self._config, self._scope, self._upstream, self._ledger, self._keeper, overlapped=False
            )
            seen = await reader.read(full=asked.full, now=now)
            await self._keeper(reconsider, self._ledger, full=asked.full, approve=bool(asked.allow_removals), now=now)
        await self._keeper(self._ledger.schedule.hasten, now)
        if seen.needs_two_looks(self._scope):
            await self._keeper(self._ledger.schedule.call_witness, now)
        await self._keeper(self._remove, excluded)
        removals = Removals(
            pass_number=-1,
            confirm_seconds=self._config.mirror.confirm_seconds,
            two_looks=seen.needs_two_looks(self._scope),
            followed=self._scope.names,
        )
        await self._look_at_all(asked, removals, Reachability(answered=seen.serial is not None), now, stop)
        await self._keeper(self._remove, removals.confirmed)

    def _remove(self, confirmed: list[Removal]) -> None:
        recent = self._ledger.removals_since(time.time() - DAY)
        published = self._ledger.published_count()
        go, held, approved = split_by_guard(confirmed, recent=recent, published=published, allowed=self._allowed)
        self._allowed -= len(approved)
        self._ledger.record(hold(held, self._ledger))
        for removal in go:
            row, stones = removal.row, []
            if row.published:
                self._plan.removals.append(row.name)
                stones = [
                    Tombstone(time.time(), row.name, None, row.wanted_serial, removal.reason, row.name in approved)
                ]
            self._ledger.forget(row.name, state=removal.state, serial=row.wanted_serial, tombstones=stones)

    def _list_what_waits(self, *, rest: bool) -> None:
        """What is held after all, and (``rest``) what is owed already and would not be looked at."""
        self._plan.held = [row.name for row in self._ledger.by_state("held", -1)]
        if self._plan.held:
            self._plan.held_by_scope = held_by_scope(self._ledger, self._rules)
        for state in ("blocked", "failing", "pending") if rest else ():
            rows = self._ledger.by_state(state, _LISTED)
            self._plan.problems += [owed_of(row) for row in rows if row.name not in self._looked_at]

    async def _look_at_all(
        self, asked: Asked, removals: Removals, reachability: Reachability, now: float, stop: asyncio.Event
    ) -> None:
        self._counters.phase = "planning"
        only = {normalise(raw) for raw in asked.names}
        known = None if asked.full else await self._keeper(self._ledger.get, "documents")
        metadata = MetadataReader(self._upstream, self._config, Documents(None if known is None else bool(known)))
        queue: asyncio.Queue[Row | None] = asyncio.Queue(maxsize=64)
        workers = self._config.mirror.projects_at_once

        async def feed() -> None:
            async for row in self._due(now, only):
                if stop.is_set():
                    break
                self._counters.projects_total += 1
                await queue.put(row)
            for _ in range(workers):
                await queue.put(None)

        async def work() -> None:
            while (row := await queue.get()) is not None:
                if not stop.is_set():
                    self._looked_at.add(row.name)
                    await self._look_at(row, metadata, removals, reachability)
                    self._counters.projects_done += 1

        try:
            async with asyncio.TaskGroup() as crew:
                crew.create_task(feed())
                for _ in range(workers):
                    crew.create_task(work())
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        if not stop.is_set():
            reachability.check()

    async def _due(self, now: float, only: set[ProjectName]) -> AsyncIterator[Row]:
        after = (-1.0, "")
        while rows := await self._keeper(self._ledger.due, now, after, 256):
            for row in rows:
                if not only or row.name in only:
                    yield row
            after = (rows[-1].due_at or 0.0, rows[-1].name)

    async def _look_at(
        self, row: Row, metadata: MetadataReader, removals: Removals, reachability: Reachability
    ) -> None:
        share = self._budget.share()
        try:
            answers = await metadata.read(row, share)
            removals.another_answered(row.name)
            reachability.answered()
            if answers is None:
                return
            inventory = await in_thread(take_inventory, self._tree, row.name, row.published)
            extra = await self._keeper(self._ledger.paths.of_project, row.name, "extra")
            if self._rules.amend(row.name):
                answers = await in_thread(
                    partial(amend, kept=(), withheld=()), self._tree, self._rules, row.name, answers, inventory
                )
            held = held_files(inventory.page, (one.path for one in extra))
            wanted = wanted_files(
                answers.page, answers.document, held, allow_unhashed=self._config.upstream.allow_unhashed
            )
            for want in wanted:
                self._upstream.file_url(want.file.url)
            count = size = 0
            if self._config.mirror.files:
                count, size = await in_thread(self._missing, wanted)
                count += await in_thread(self._missing_provenance, answers.page)
        except PageMissing as error:
            if row.published and row.state == "retained" and self._rules.retains(row.name):
                return
            failed = removals.judge(row, error, time.time(), time.time())
            if failed is not None:
                self._problem(row, failed.state, failed.error)
            elif row.published and self._rules.retains(row.name):
                removals.settled({row.name})
                self._plan.updates.append(row.name)
            elif row.name in removals.unknown:
                self._problem(row, "failing", "upstream has no such project")
            return
        except Refused as error:
            self._problem(row, "blocked", str(error))
            return
        except Obstructed as error:
            self._problem(row, "failing", str(error))
            return
        except UpstreamError as error:
            self._problem(row, "failing", str(error))
            reachability.failed(error, before=row.attempts > 0)
            return
        finally:
            share.release()
        self._plan.files += count
        self._plan.bytes += size
        (self._plan.updates if row.published else self._plan.adds).append(row.name)

    def _missing(self, wanted: Sequence[Wanted]) -> tuple[int, int]:
        """Files and bytes that would be fetched; a sidecar counts as a file, of unknown size."""
        count = size = 0
        for want in wanted:
            there = self._tree.disk.stat(want.path) if want.path else None
            if there is None or (want.size is not None and there.size != want.size):
                count += 1
                size += want.size or 0
            if want.has_sidecar and not (want.path and self._tree.disk.stat(sidecar_path(want.path))):
                count += 1
        return count, size

    def _missing_provenance(self, page: ProjectPage) -> int:
        if not self._config.mirror.provenance or page.quarantined:
            return 0
        linked = [provenance_path(page.name, file.provenance, file.filename) for file in page.files if file.provenance]
        return sum(self._tree.disk.stat(path) is None for path in linked)

    def _problem(self, row: Row, state: str, reason: str) -> None:
        self._plan.problems.append(Owed(row.name, state, reason, row.attempts, row.wanted_serial, None))

    def _measure_free_space(self) -> None:
        """Where the mirror is, or will be."""
        place = os.path.abspath(self._config.mirror.directory)
        while not os.path.exists(place):
            self._plan.missing_directory = self._config.mirror.directory
            place = os.path.dirname(place)
        self._plan.free_bytes, _, self._plan.free_inodes = Disk(place).free()
