"""The durability batch: finished projects go into the tree and the ledger together, in an order that a kill respects.

A batch is at most ``batch_projects`` projects or ``batch_seconds`` old.  For each batch:

1. what will be placed (``incoming``), what will be dropped (``doomed``), and claims that pages do not tell are recorded
   in the ledger;
2. small files, documents and pages are written under ``partial/`` beside the large files that lie there already, and
   made durable;
3. files, documents and links are renamed into place, and made durable;
4. pages are renamed into place, documents that went away are removed, and both are made durable;
5. the ledger records the projects; 6. doomed bytes go, each after a last look whether any page claims it.

A kill between any two leaves pages that name only what is there, and rows that say what is open.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from heliostat.errors import DiskFull, InTheWay, PlaceTaken
from heliostat.mirror.doomed import Reaper
from heliostat.mirror.entries import entry_of, rewrites
from heliostat.mirror.item import Item, Memory, bytes_in, restored_rows, targets_of, weight_of
from heliostat.mirror.segments import write_changes
from heliostat.mirror.tally import Tally
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Failed, PathRow, Published
from heliostat.store.obstacles import refuse_obstacle
from heliostat.store.room import Room
from heliostat.store.threads import Keeper
from heliostat.store.tree import Tree
from heliostat.store.writer import Writer
from heliostat.upstream.traffic import Histogram

log = logging.getLogger(__name__)


#: Bytes of pages, documents and files that wait to be written: a batch ends at half of it, submitting waits beyond it.
_MOST_HELD = 32 << 20
#: Bytes of small files held in memory until their batch is written, those of projects in flight included.
_MOST_IN_MEMORY = 32 << 20


#: From so many full batches on, expected or come already, it pays to have another process write.
_WORTH_A_PROCESS = 4

#: So many projects go into the change feed together when a pass is long; the rest does at its end.
_TOLD = 2000


#: The pause before a blocked project is looked at again, in seconds.
_DAY = 86400.0


def blocked_until() -> float:
    """When to look again at a project that was refused: it may have been a moment's glitch."""
    return time.time() + _DAY * random.uniform(0.75, 1.25)


class Publisher:
    """Collects items and commits them in batches; ``failed`` holds the store's error once there was one."""

    def __init__(
        self,
        tree: Tree,
        ledger: Ledger,
        keeper: Keeper,
        *,
        projects: int,
        seconds: float,
        room: Room,
        tally: Tally,
        durations: Histogram,
        writer: Writer,
        expected: int = 0,
    ) -> None:
        """``durations`` counts how long batches take, ``tally`` the files that are in place.

        ``expected``: so many projects will come, as far as is known.
        """
        self._tree, self._ledger, self._keeper = tree, ledger, keeper
        self._projects, self._seconds, self._disk_room = projects, seconds, room
        self._durations, self._tally, self._writer = durations, tally, writer
        #: Full batches: expected, and come so far.
        self._expected, self._came = expected // projects, 0
        #: What the batch at hand has recorded so far.
        self._recorded: list[Item] = []
        #: Those of it that are to be planned anew.
        self._met: list[Item] = []
        self._reaper = Reaper(tree, ledger)
        self.memory = Memory(_MOST_IN_MEMORY)
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue(maxsize=2 * projects)
        self._room = asyncio.Event()
        self._room.set()
        self._held = 0
        self._number = 0
        #: Projects whose outcome was handed over and is not recorded yet.
        self.pending: set[str] = set()
        #: Called on the event loop with the projects whose outcomes are recorded and durable.
        self.committed: Callable[[set[str]], None] | None = None
        #: Projects recorded since the change feed was written.
        self._untold = 0
        #: Why what was placed ahead of a project's pages is not there: they are not to be shown either.
        self._refused: dict[str, PlaceTaken] = {}

    async def submit(self, item: Item) -> None:
        """Hand over one item; waits while two batches are waiting already."""
        await self._room.wait()
        item.in_bodies = bytes_in(item.publication)
        item.weight = weight_of(item)
        self._held += item.weight
        if self._held >= _MOST_HELD:
            self._room.clear()
        if item.outcome is not None:
            self.pending.add(item.name)
        try:
            await self._queue.put(item)
        except BaseException:
            self._held -= item.weight
            self.pending.discard(item.name)
            if self._held < _MOST_HELD:
                self._room.set()
            raise

    async def finish(self) -> None:
        """Nothing more will come: :meth:`run` commits what is left and returns."""
        await self._queue.put(None)

    async def run(self) -> None:
        """Commit batches until :meth:`finish`.  Raises StoreError or StateError, and then commits nothing more.

        A batch for which the disk is too full is committed in halves, and those in halves, down to single items; the
        first of them that does not fit ends it.  The same is done where something lies in the way: that project alone
        is blocked.
        """
        ending = False
        if self.is_busy:
            await self._keeper(self._writer.begin)
        while not ending:
            batch, ending = await self._collect()
            if batch:
                self._came += len(batch) >= self._projects
                begun = time.monotonic()
                try:
                    await self._keeper(self._look_and_commit, batch)
                finally:
                    self._account()
                self._durations.add(time.monotonic() - begun)

    def _account(self) -> None:
        """What is recorded is held no more, and counts."""
        recorded, self._recorded = self._recorded, []
        met, self._met = self._met, []
        self.pending -= {item.name for item in met}
        self._held -= sum([item.weight for item in (*recorded, *met)])
        self._room.set()
        for item in (*met, *recorded):
            self.memory.give_back(item.in_bodies)
            self._tally.files_added += 0 if item.met else item.fetched
            if item.done:
                item.done()
                item.done = None  # it knows the item: all its bytes would wait for the garbage collector
        names = {item.name for item in recorded if item.outcome is not None}
        self.pending -= names
        if self.committed is not None:
            self.committed(names)

    async def _collect(self) -> tuple[list[Item], bool]:
        batch: list[Item] = []
        deadline = None
        weight = 0
        while len(batch) < self._projects and weight < _MOST_HELD // 2:
            try:
                if deadline is None:
                    item = await self._queue.get()
                    deadline = asyncio.get_running_loop().time() + self._seconds
                else:
                    async with asyncio.timeout_at(deadline):
                        item = await self._queue.get()
            except TimeoutError:
                return batch, False
            if item is None:
                return batch, True
            batch.append(item)
            weight += item.weight
        return batch, False

    @property
    def is_busy(self) -> bool:
        """There is so much to do that another process writes: what lies in a new project's places is seen there."""
        return max(self._expected, self._came) >= _WORTH_A_PROCESS and self._writer.can_be_apart

    def _look_and_commit(self, batch: list[Item]) -> None:
        new = {item.name: targets_of(item.publication) for item in batch if item.unlooked}
        known = set(self._writer.met(new, apart=self.is_busy)) if new else set()
        for item in batch:
            item.met = item.unlooked and item.name in known
        self._met = [item for item in batch if item.met]
        if rest := [item for item in batch if not item.met]:
            self._commit(rest)

    def _commit(self, batch: list[Item]) -> None:
        for item in batch:
            if isinstance(item.outcome, Published) and (error := self._refused.pop(item.name, None)) is not None:
                self._give_up(item, error)
        try:
            self._commit_whole(batch)
        except PlaceTaken as error:
            if self._recorded and self._recorded[-1] is batch[-1]:
                raise
            if len(batch) > 1:
                log.info("something is in the way of a batch of %d projects: trying a part of it", len(batch))
                self._commit(batch[: len(batch) // 2])
                self._commit(batch[len(batch) // 2 :])
                return
            if batch[0].publication is None:
                raise
            self._give_up(batch[0], error)
            self._commit_whole(batch)
        except DiskFull:
            half = len(batch) // 2
            if not half or (self._recorded and self._recorded[-1] is batch[-1]):
                raise
            log.info("no space for a batch of %d projects: trying a part of it", len(batch))
            self._commit(batch[:half])
            self._commit(batch[half:])

    def _give_up(self, item: Item, error: PlaceTaken) -> None:
        """What stands in the way of one project is its own matter: it is recorded as blocked, what it staged goes."""
        publication, outcome = item.publication, item.outcome
        assert publication is not None
        for staged in (*publication.placements, *filter(None, [publication.staged_document])):
            if staged.staged.startswith("partial/"):
                self._tree.disk.unlink(staged.staged)
        item.publication, item.doomed, item.tombstones, item.kept = None, [], [], []
        item.claims, item.unclaimed, item.restored, item.unkept = [], [], [], []
        item.fetched = 0
        if not isinstance(outcome, Published):
            log.warning("%s: %s", item.name, error)
            if not item.shown:
                self._refused[item.name] = error
            return
        reason, waits = self._why_not(targets_of(publication), error)
        item.outcome = Failed(
            name=outcome.name,
            wanted_serial=outcome.wanted_serial,
            state="blocked",
            error=reason,
            due_at=blocked_until(),
        )
        item.claims = [PathRow(path, item.name, "waiting") for path in waits]

    def _why_not(self, targets: list[str], error: PlaceTaken) -> tuple[str, list[str]]:
        """Why a project cannot be put in place, and for which path it waits."""
        for path in (*targets, error.path):
            try:
                refuse_obstacle(self._tree.disk, path)
            except InTheWay as found:
                return str(found), [path]
        return str(error), []

    def _commit_whole(self, batch: list[Item]) -> None:
        self._number += 1
        number = self._number
        publications = [item.publication for item in batch if item.publication]
        if publications:
            self._disk_room.check()
        log.debug("batch %d: announcing %d projects", number, len(batch))
        self._announce(batch)
        if publications:
            self._writer.put(
                publications,
                lambda step: log.debug("batch %d: %s", number, step),
                apart=self.is_busy,
            )
        log.debug("batch %d: recording", number)
        self._record(batch)
        self._recorded += batch
        log.debug("batch %d: recorded", number)
        self._untold += len(batch)
        if self._untold >= _TOLD:
            self._untold = 0
            write_changes(self._tree, self._ledger)
        self._reaper.reap([row for item in batch for row in (*item.doomed, *restored_rows(item))])

    def _announce(self, batch: list[Item]) -> None:
        rows = [row for item in batch for row in (*item.doomed, *item.claims)]
        coming = [(item.name, targets) for item in batch if (targets := targets_of(item.publication))]
        changing = [item.name for item in batch if item.publication is not None and rewrites(item.publication)]
        kept = [one for item in batch for one in item.kept]
        if rows or coming or changing or kept:
            with self._ledger.transaction():
                self._ledger.denials.keep(kept, time.time())
                self._ledger.paths.add(rows)
                self._ledger.changelog.begin(changing)
                for name, targets in coming:
                    self._ledger.paths.announce(name, targets)

    def _record(self, batch: list[Item]) -> None:
        published = [item.name for item in batch if isinstance(item.outcome, Published)]
        with self._ledger.transaction():
            entries = [entry_of(self._ledger, item) for item in batch]
            self._ledger.changelog.write([entry for entry in entries if entry is not None], time.time())
            self._ledger.changelog.end(published)
            self._ledger.record(
                [item.outcome for item in batch if item.outcome],
                [tombstone for item in batch for tombstone in item.tombstones],
            )
            self._ledger.paths.arrived(published)
            for item in batch:
                self._ledger.paths.clear(item.unclaimed)
                self._ledger.paths.clear(item.restored)
                self._ledger.denials.forget_kept(item.name, item.unkept)
                self._ledger.paths.add(restored_rows(item))
