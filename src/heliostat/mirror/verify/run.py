"""A verify from its beginning, or from where an earlier one was ended, to its findings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from heliostat.errors import StoreError
from heliostat.mirror.report import Counters
from heliostat.mirror.verify.again import Again, Pace, beside_mirror
from heliostat.mirror.verify.asked import Asked
from heliostat.mirror.verify.asking import Asker
from heliostat.mirror.verify.feed import check_feed
from heliostat.mirror.verify.findings import Finding, Kind, as_line, from_line
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.helpers import CompareThese, Helpers, Job, JudgeThese, usual_number
from heliostat.mirror.verify.in_order import in_order
from heliostat.mirror.verify.judgement import Found, Judgement, Upstream
from heliostat.mirror.verify.position import Desk
from heliostat.mirror.verify.reading import Stopping, be_idle
from heliostat.mirror.verify.result import Result
from heliostat.mirror.verify.shelves import Sample, Seen, Shelves, Stretch, stretches
from heliostat.mirror.verify.sorter import Sorter
from heliostat.store.threads import Workers

if TYPE_CHECKING:
    from heliostat.upstream.client import Upstream as Source

_T = TypeVar("_T")
_R = TypeVar("_R")
#: Projects that one thread judges in one go.
_PROJECTS = 16
#: Seconds between two notes of the position.
_EVERY = 5.0
#: Where nobody knows whether somebody is at work, and where nobody is (seconds).
_UNKNOWN, _ALONE = Pace(4.0, 1.0), Pace(0.0, 0.0)


class Verification:
    """One verify; :meth:`run` once, then :meth:`findings` as long as its desk is there."""

    def __init__(
        self,
        ground: Ground,
        asked: Asked,
        desk: Desk,
        counters: Counters,
        stop: asyncio.Event,
        *,
        upstream: Source | None = None,
        helpers: Helpers | None = None,
        workers: int | None = None,
        idle: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self._ground, self._asked, self._desk, self._counters, self._stop = ground, asked, desk, counters, stop
        self._idle, self._pace = idle, pace
        self._asker = Asker(upstream, ground, stop) if upstream is not None else None
        self._count = workers or usual_number()
        self._helpers = helpers
        self._workers = Workers("heliostat-verify", self._count)
        #: Reads lists, one item after the other.
        self._lister = Workers("heliostat-verify-lists", 1)
        self._names = Names(ground, desk.folder)
        self._sample = Sample(share=asked.sample_share, most=asked.sample_most, seed=desk.position.seed)
        self._shelves = Shelves(ground, desk.folder, quick=asked.quick, whole=asked.whole, sample=self._sample)
        self._final = Sorter(desk.folder, "final")
        self._saved = time.monotonic()
        self.result = Result(kinds={}, resumed=desk.resumed)

    async def run(self) -> Result:
        """Verify; ``stop`` ends it, and what was done until then is not done again by the next one at that desk.

        Raises StoreError when the desk's disk refuses, StateError when the ledger cannot be read.
        """
        began = time.monotonic()
        if self._idle:
            be_idle()
        watcher = asyncio.create_task(self._watch())
        position = self._desk.position
        try:
            if not position.names_done:
                await self._judge_all()
            if not position.files_done:
                await self._compare_all()
            await self._look_again()
        except Stopping:
            self.result.interrupted = True
        except OSError as error:
            raise StoreError("write to", error.filename or self._desk.folder, error.strerror or str(error)) from error
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            await asyncio.to_thread(self._workers.close)
            await asyncio.to_thread(self._lister.close)
        result = self.result
        result.projects, result.files = position.projects, position.files
        result.hashed, result.bytes = position.hashed, position.bytes + self._ground.reader.budget.bytes
        result.seconds = time.monotonic() - began
        if self._asker is not None:
            result.unreachable = self._asker.unreachable
        return result

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, in the order of projects and paths."""
        return map(from_line, self._final.sorted())

    async def _watch(self) -> None:
        """Hand the wish to stop to the threads, and what they have read to whoever shows progress."""
        budget = self._ground.reader.budget
        with contextlib.suppress(asyncio.TimeoutError):
            while not self._stop.is_set():
                self._counters.bytes_done = self._desk.position.bytes + budget.bytes
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self._stop.wait()
        budget.stop.set()
        if self._helpers is not None:
            self._helpers.stop()

    # -- pages ------------------------------------------------------------------------------------------------------

    async def _judge_all(self) -> None:
        asked, position, desk = self._asked, self._desk.position, self._desk
        self._counters.phase = "reading pages"
        root_time = None
        if asked.whole or (asked.since_serial is not None and self._ground.books is None):
            roots = await self._lister.run(self._names.read_roots)
            if asked.whole:
                root_time = roots.time
                desk.suspect(roots.findings)
        if asked.projects:
            founds: Iterator[Found] = (
                self._names.one(name) for name in sorted(set(asked.projects)) if name > position.name
            )
        else:
            founds = self._names.all(position.name)

        async def judged(batch: list[Found]) -> list[Judgement]:
            some = [found for found in batch if self._is_asked_for(found)]
            answers: list[Upstream | None] = [None] * len(some)
            if self._asker is not None:
                answers = await self._asker.ask_all(some)
            judgements: list[Judgement] = await self._do(JudgeThese(root_time, some, answers))
            return judgements

        def taken(batch: list[Found], judgements: list[Judgement]) -> None:
            for judgement in judgements:
                desk.suspect(judgement.findings)
                desk.claims.add(judgement.claims)
                position.claims += len(judgement.claims)
                position.projects += 1
                self._counters.projects_done += 1
            position.name = batch[-1].name
            self._counters.projects_total = max(self._counters.projects_total, self._counters.projects_done)

        await self._in_order(founds, _PROJECTS, judged, taken)
        if asked.whole:
            desk.suspect(self._names.findings)
        position.names_done = True
        await self._save()

    def _is_asked_for(self, found: Found) -> bool:
        asked = self._asked
        if asked.since_serial is not None:
            serial = found.row.page_serial if found.row is not None else found.root_json
            return found.simple and (serial is None or serial > asked.since_serial or serial <= 0)
        if asked.since_time is not None:
            stamp = self._ground.reader.stamp(b"simple/%s/index.v1_json" % found.name.encode())
            return stamp is not None and stamp.modified >= asked.since_time
        if asked.projects:
            return True
        return found.simple or found.document or found.link or found.root_json >= 0 or found.root_html >= 0 or (
            found.row is not None and (found.row.published or found.row.state == "blocked")
        )  # fmt: skip

    # -- files ------------------------------------------------------------------------------------------------------

    async def _compare_all(self) -> None:
        position, desk = self._desk.position, self._desk
        self._counters.phase = "reading files"
        self._counters.files_total = position.claims
        await self._lister.run(self._sample.draw, desk.claims.sorted())
        cut = stretches(desk.claims.sorted(), after=bytes.fromhex(position.path))

        asked, sample = self._asked, self._sample

        async def compared(batch: list[Stretch]) -> Seen:
            seen: Seen = await self._do(CompareThese(desk.folder, asked.quick, asked.whole, sample, batch[0]))
            return seen

        def taken(batch: list[Stretch], seen: Seen) -> None:
            desk.suspect(seen.findings)
            position.files += seen.files
            position.hashed += seen.hashed
            self._counters.files_done = position.files
            if batch[0].high is not None:
                position.path = batch[0].high.hex()

        await self._in_order(cut, 1, compared, taken)
        position.files_done = True
        await self._save()

    async def _look_again(self) -> None:
        self._counters.phase = "looking again"
        loop = asyncio.get_running_loop()

        def ask(found: Found) -> Upstream | None:
            return asyncio.run_coroutine_threadsafe(self._asker.ask(found), loop).result() if self._asker else None

        if self._pace is None:
            busy = _UNKNOWN if self._ground.lock is None else beside_mirror(self._ground.batch_seconds)
            self._pace = _ALONE if self._ground.lock and not self._ground.busy else busy
        again = Again(
            self._ground, self._names, self._shelves, self._desk.folder,
            pace=self._pace, started=self._desk.position.started, ask=ask,
        )  # fmt: skip
        self._final.discard()
        await self._lister.run(again.confirm, self._desk.suspects, self._final, roots=self._asked.whole)
        if self._asked.whole:
            check = partial(check_feed, self._ground, self._pace.pause, quick=self._asked.quick)
            self._final.add(map(as_line, await self._lister.run(check)))
            self._final.flush()
        self.result.unreadable = again.unreadable
        self.result.unknown = await self._lister.run(self._unknown)
        self.result.kinds = await self._lister.run(self._counted)

    def _unknown(self) -> list[str]:
        """Those asked for by name of which there is nothing at all, nor a row in the ledger."""
        asked = map(self._names.one, sorted(set(self._asked.projects)))
        return [one.name for one in asked if not (one.simple or one.document or one.link or one.row)]

    def _counted(self) -> dict[Kind, int]:
        kinds: dict[Kind, int] = {}
        for one in self.findings():
            kinds[one.kind] = kinds.get(one.kind, 0) + 1
        return kinds

    async def _do(self, job: Job) -> Any:
        """In one of the helpers, or here."""
        if self._helpers is not None:
            return await self._workers.run(self._helpers.do, job)
        return await self._workers.run(job.do, self._ground)

    # -- work side by side, results in order ------------------------------------------------------------------------

    async def _in_order(
        self,
        items: Iterator[_T],
        size: int,
        work: Callable[[list[_T]], Awaitable[_R]],
        taken: Callable[[list[_T], _R], None],
    ) -> None:
        """Batches of ``size`` in the threads, a few at a time; what they bring is taken in order, and noted."""
        try:
            await in_order(self._batches(items, size), work, taken, at_once=3 * self._count, noted=self._noted)
        except Stopping:
            await self._save()
            raise

    async def _batches(self, items: Iterator[_T], size: int) -> AsyncIterator[list[_T]]:
        while True:
            batch = await self._lister.run(lambda: list(islice(items, size)))
            if self._stop.is_set():
                raise Stopping
            if batch:
                yield batch
            if len(batch) < size:
                return

    async def _noted(self) -> None:
        if self._desk.claims.is_full or self._desk.suspects.is_full or time.monotonic() - self._saved >= _EVERY:
            await self._save()

    async def _save(self) -> None:
        position, budget = self._desk.position, self._ground.reader.budget
        position.bytes, budget.bytes = position.bytes + budget.bytes, 0
        await self._lister.run(self._desk.save)
        self._saved = time.monotonic()
