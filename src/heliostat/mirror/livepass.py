"""A pass of the daemon: while its crew is at work, upstream is polled on, and what is found comes in between.

A first sync takes days, and one dripping file may take hours.  Meanwhile new changes enter the ledger at every poll and
are published soon (see :mod:`heliostat.mirror.todo`), confirmed removals are carried out, and the root index, the
checkpoint and ``last-modified`` keep their pace.  A removal waits for the end of the pass as ever if all those that are
known to come would be implausible together, and for the next poll while a project in flight might want its bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from heliostat.errors import UpstreamError
from heliostat.mirror.changes import Seen
from heliostat.mirror.claims import turns
from heliostat.mirror.crew import run_crew, unless_stopped
from heliostat.mirror.live import Live
from heliostat.mirror.onepass import Pass, Work
from heliostat.mirror.removals import Removal, Removals, begun, carry_out, paths_of, plausible
from heliostat.mirror.report import Summary
from heliostat.mirror.root import write_root
from heliostat.mirror.segments import write_changes
from heliostat.mirror.todo import Todo
from heliostat.mirror.unannounced import DAY, sweep
from heliostat.model import ProjectName
from heliostat.state.rows import Row

log = logging.getLogger(__name__)


class LivePass(Pass):
    """One pass that takes in what happens while it runs; ``stop`` is its own, and set by it when a poll ends it."""

    def __init__(self, *arguments: Any, live: Live, last: Seen | None, **more: Any) -> None:
        """``last`` is what the last poll found, for a pass that begins without one."""
        super().__init__(*arguments, **more)
        self._live, self._last = live, last
        self._todo: Todo | None = None
        self._work_of: Work | None = None
        #: Removals that were to be expected of what was owed at the beginning; None while not counted.
        self._expected: int | None = None
        self._began = 0.0
        #: What was removed when the root index was looked at last, and what was done when listeners were told last.
        self._removed_before, self._told = 0, (0, 0, 0)

    async def _poll(self, now: float) -> Seen:
        if not self._live.poll and self._last is not None:
            self._polled = False
            return self._last
        seen = await super()._poll(now)
        if not self._stop.is_set():
            self._live.polled(seen, None)
        return seen

    # -- the crew, and polls beside it --------------------------------------------------------------------------

    async def _work(self, work: Work, now: float) -> None:
        def is_open(name: str) -> bool:
            return name in work.publisher.pending or work.removals.waits(name)

        self._began, self._work_of = now, work
        self._todo = todo = Todo(self._ledger, self._keeper, since=now, is_open=is_open, stop=self._stop)
        work.publisher.committed = self._committed

        async def sync(row: Row) -> None:
            try:
                await work.sync.sync(row)
            finally:
                todo.left(row.name)
                if not self._stop.is_set():  # else it may have been broken off
                    self._dealt_with([row.name])

        over = asyncio.Event()
        rounds = asyncio.create_task(self._rounds(work, todo, over), name="polls")
        try:
            await run_crew(todo.rows(), sync, work.publisher, slots=work.slots, stop=self._stop, grace=self._live.grace)
        finally:
            over.set()
            (failure,) = await asyncio.gather(rounds, return_exceptions=True)
            self._todo = None
            self._live.at_end.update(work.removals.waiting)
        if failure is not None:
            raise failure

    async def _rounds(self, work: Work, todo: Todo, over: asyncio.Event) -> None:
        try:
            while True:
                await unless_stopped(self._live.next_poll(), over)
                if over.is_set() or self._stop.is_set():
                    return
                await self._round(work, todo, over)
        except BaseException:
            self._stop.set()
            raise

    async def _round(self, work: Work, todo: Todo, over: asyncio.Event) -> None:
        now = time.time()
        self._live.polling()
        await self._take_errands(now)
        reader = self._reader(between=True)
        seen: Seen | None = None
        try:
            seen = await unless_stopped(reader.read(full=False, now=now), over)
            if seen is None:
                self._live.put_off()
        except UpstreamError as error:
            self._detours.failed("upstream", "upstream does not tell what changed: %s", error)
            self._detours.in_vain()
            self._live.polled(None, error)
        else:
            self._detours.well("upstream")
        self.overlapped = reader.overlapped
        facts = await self._keeper(self._ledger.facts)
        if seen is not None:
            await self._take(seen, work, facts, now)
            todo.rescan(now)
        await self._remove_between(work, todo)
        await self._settle(work.documents, facts)
        if self._root_is_due(facts, now):
            await self._keeper(write_root, self._tree, self._ledger, packed=self._config.mirror.gzip_root)
            self._removed_before = self._tally.removed
        self._polled = seen is not None
        await self._finish_poll(facts, now, seen or Seen())
        self._polled = True
        await self._keeper(write_changes, self._tree, self._ledger)
        await self._tell(facts)

    async def _take(self, seen: Seen, work: Work, facts: dict[str, Any], now: float) -> None:
        if not seen.missed:
            self.seen = seen
        self._live.polled(seen, None)
        if seen.serial is not None:
            work.sync.planner.head = seen.serial
        if two_looks := seen.needs_two_looks(self._scope):
            work.removals.next_round(two_looks=two_looks)
            await self._keeper(self._ledger.put, **{"pass": work.removals.pass_number})
        await self._keeper(sweep, self._ledger, self._config.mirror, facts, now)

    def _root_is_due(self, facts: dict[str, Any], now: float) -> bool:
        if self._todo is None:
            return super()._root_is_due(facts, now)
        age = now - float(facts.get("root_written") or 0)
        return bool(self._tally.removed > self._removed_before or age < 0 or age >= self._config.mirror.root_interval)

    async def _tell(self, facts: dict[str, Any]) -> None:
        """Those who wait for something new are told what was done so far, if there is something."""
        tally = self._tally
        done = (tally.added, tally.updated, tally.removed)
        if done == self._told:
            return
        self._told = done
        summary = Summary(upstream=self._upstream.base, started=self._started, upstream_serial=self.seen.serial)
        summary.seconds = time.time() - self._started
        summary.cursor = int(facts.get("cursor") or 0)
        summary.checkpoint = await self._keeper(self._ledger.checkpoint)
        summary.projects = await self._keeper(self._ledger.published_count)
        summary.owed_by_state = await self._keeper(self._ledger.owed_by_state)
        summary.held = summary.owed_by_state.get("held", 0)
        for field in ("added", "updated", "unchanged", "removed", "files_added", "files_removed", "bytes_fetched"):
            setattr(summary, field, getattr(tally, field))
        await self._live.published(summary)

    # -- removals ------------------------------------------------------------------------------------------------

    async def _remove_between(self, work: Work, todo: Todo) -> None:
        removals = work.removals
        if removals.unknown:
            await self._drop_unknown_between(removals, todo)
        if not removals.confirmed:
            return
        await self._judge_anew(removals, todo)
        confirmed = list(removals.confirmed)  # more may come while these are looked at
        if not await self._keeper(self._are_plausible, confirmed):
            return
        keys = await self._keeper(self._keys, confirmed)
        claims = work.sync.claims
        free = [one for one in confirmed if claims.try_to_take(one.row.name, keys[one.row.name])]
        try:
            self._tally.files_removed += await self._keeper(
                carry_out, self._tree, self._ledger, free, keeps=self._rules.keeps
            )
        finally:
            for one in free:
                claims.release(one.row.name)
        gone = sum(1 for one in free if one.row.published)
        self._tally.removed += gone
        self._expected = max(0, (self._expected or 0) - gone)
        self._settled({one.row.name for one in free}, removals)

    def _are_plausible(self, confirmed: list[Removal]) -> bool:
        """Whether these, and all others that are known to come, need nobody's approval."""
        now = time.time()
        if self._expected is None:
            self._expected = self._ledger.count_leaving(-1.0, self._began)
        coming = self._expected + self._ledger.count_leaving(self._began, now)
        counted = sum(1 for one in confirmed if one.row.published)
        recent, published = self._ledger.removals_since(now - DAY), self._ledger.published_count()
        return not counted or plausible(max(counted, coming), recent, published)

    def _keys(self, removals: list[Removal]) -> dict[str, set[str]]:
        return {one.row.name: turns((), paths_of(self._tree, self._ledger, one.row.name)) for one in removals}

    async def _judge_anew(self, removals: Removals, todo: Todo | None) -> None:
        """What was announced since a project was judged may say that it is there again."""
        changed = await self._keeper(self._changed, removals.confirmed)
        removals.settled(changed)
        if todo is not None:
            todo.look_again(changed)

    def _changed(self, confirmed: list[Removal]) -> set[ProjectName]:
        found = set()
        for removal in confirmed:
            row = self._ledger.row(removal.row.name)
            if row is None or _signs(row) != _signs(removal.row):
                found.add(removal.row.name)
        return found

    async def _confirmed(self, removals: Removals) -> list[Removal]:
        await self._judge_anew(removals, None)
        return removals.confirmed

    async def _drop_unknown_between(self, removals: Removals, todo: Todo) -> None:
        """What nobody has ever heard of is forgotten, unless something of it is in the tree, or it was announced."""

        def sort_out() -> tuple[list[str], set[ProjectName]]:
            drop, again = [], set()
            for name in removals.unknown:
                row = self._ledger.row(name)
                if row is not None and row.wanted_serial > 0:
                    again.add(row.name)
                elif not begun(self._tree, self._ledger, name):
                    drop.append(name)
            self._drop_unknown(drop)
            return drop, again

        drop, again = await self._keeper(sort_out)
        removals.settled(again)
        todo.look_again(again)
        self._settled(set(drop), removals, unknown=True)

    def _drop_unknown(self, names: list[str]) -> None:
        rows = ((name, self._ledger.row(name)) for name in names)
        super()._drop_unknown([name for name, row in rows if row is None or row.wanted_serial == 0])

    # -- errands -------------------------------------------------------------------------------------------------

    async def _take_errands(self, now: float) -> None:
        for errand in self._live.errands():
            self._live.taken.append(errand)
            wanted: dict[ProjectName, str] = {}
            ignored = []
            for name, raw in errand.names.items():
                if name not in self._scope and (not errand.named or name in self._scope.denied):
                    ignored.append(name)
                elif self._todo is not None and self._todo.is_open(name):
                    self._todo.later(name, partial(self._want, {name: raw}))
                else:
                    wanted[name] = raw
            errand.before = await self._keeper(self._rows, errand.names)
            await self._keeper(self._want, wanted, now)
            if errand.dealt_with(ignored):
                errand.finish()
        if self._todo is not None:
            self._todo.rescan(now)

    def _rows(self, names: Iterable[ProjectName]) -> dict[ProjectName, Row | None]:
        return {name: self._ledger.row(name) for name in names}

    def _want(self, names: dict[ProjectName, str], now: float | None = None) -> None:
        with self._ledger.transaction():
            for name, raw in names.items():
                when = time.time() if now is None else now
                self._ledger.intake.want(raw, name, when, named=name not in self._scope, why="named")

    def _committed(self, names: set[str]) -> None:
        self._tell_committed()
        if self._todo is not None:
            if self._work_of is not None:
                self._todo.look_again(self._work_of.sync.take_met())
            self._todo.stir()
        self._dealt_with(names)

    def _tell_committed(self) -> None:
        work = self._work_of
        self._live.committed(work is not None and not work.reachability.in_doubt)

    def _settled(self, names: set[str], removals: Removals, *, unknown: bool = False) -> None:
        removals.settled(names)
        if names:
            self._tell_committed()
        self._dealt_with(names, unknown=unknown)

    def _dealt_with(self, names: Iterable[str], *, unknown: bool = False) -> None:
        """Tell those who wait for a project, once nothing of it is open any more."""
        todo = self._todo
        if not self._live.taken or todo is None:
            return
        done = [name for name in names if not todo.is_open(ProjectName(name))]
        for errand in [one for one in self._live.taken if one.dealt_with(done, unknown=unknown)]:
            self._live.taken.remove(errand)
            errand.finish()


def _signs(row: Row) -> tuple[object, ...]:
    """What a removal was judged by."""
    return (row.wanted_serial, row.hint, row.hint_serial, row.absent_serial, row.missing_at)
