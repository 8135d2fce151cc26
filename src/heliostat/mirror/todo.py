"""The todo list of a pass that goes on polling: what is new, what is old, and what becomes due meanwhile, in turns.

The rows are the ledger's, a page at a time.  What was owed when the pass began is taken from both ends, since the
newest of it may have been announced long after the oldest; what was announced, or became due again, since then comes
between any two such pages.  A project is never handed out while something of it is still open; it is looked at again
as soon as that is done.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import cycle

from heliostat.model import ProjectName
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Row
from heliostat.store.threads import Keeper

_PAGE = 64
#: Sorts behind every name.
_LAST = "\U0010ffff"


class Todo:
    """Rows for the crew of one pass that began at ``since`` (seconds since the epoch).

    ``is_open`` says of a name whether its last try is not recorded yet.
    """

    def __init__(
        self, ledger: Ledger, keeper: Keeper, *, since: float, is_open: Callable[[str], bool], stop: asyncio.Event
    ) -> None:
        self._ledger, self._keeper, self._since, self._is_open, self._stop = ledger, keeper, since, is_open, stop
        #: Handed out, and not given back yet.
        self.busy: set[ProjectName] = set()
        self._again: set[ProjectName] = set()
        #: To be made due once what is open of them is done, with what to do that.
        self._later: dict[ProjectName, Callable[[], None]] = {}
        self._page: deque[Row] = deque()
        self._fresh_after = (since, _LAST)
        self._oldest, self._newest = (-1.0, ""), (since, _LAST)
        self._stirred = asyncio.Event()
        turns: tuple[Callable[[], Awaitable[list[Row]]], ...] = (
            self._fresh, self._from_newest, self._fresh, self._from_oldest,
        )  # fmt: skip
        self._turns = cycle(turns)
        self._turn_count = len(turns)

    async def rows(self) -> AsyncIterator[Row]:
        """Rows that are due; ends when nothing is due and nobody is busy, who might find that more is."""
        while not self._stop.is_set():
            self._stirred.clear()
            row = await self._next()
            if row is not None:
                self.busy.add(row.name)
                yield row
            elif self.busy or self._later:
                await self._wait()
            else:
                return

    def left(self, name: ProjectName) -> None:
        """A worker is done with a project; what it handed over may still be open."""
        self.busy.discard(name)
        self._stirred.set()

    def stir(self) -> None:
        """Something was recorded: what was open may be due once more."""
        self._stirred.set()

    def is_open(self, name: ProjectName) -> bool:
        """Whether something of the project is under way, or stands to be."""
        return name in self.busy or self._is_open(name) or name in self._later

    def look_again(self, names: Iterable[ProjectName]) -> None:
        """What was found out about these is not so any more."""
        self._again.update(names)
        self._stirred.set()

    def later(self, name: ProjectName, make_due: Callable[[], None]) -> None:
        """``make_due``, on the keeper's thread, when what is open of the project is done."""
        self._later[name] = make_due

    def rescan(self, now: float) -> None:
        """Something was announced.  Look through all that is new from the beginning, once."""
        self._fresh_after = (min(self._since, now), _LAST)
        self._stirred.set()

    async def _next(self) -> Row | None:
        while True:
            while self._page:
                row = self._page.popleft()
                if row.name not in self.busy and not self._is_open(row.name):
                    return row
                self._again.add(row.name)
            if not await self._turn():
                return None

    async def _turn(self) -> bool:
        """Get the next page; False when nothing is due."""
        waiting = self._again | self._later.keys()
        if ready := [name for name in waiting if name not in self.busy and not self._is_open(name)]:
            self._again.difference_update(ready)
            wishes = [self._later.pop(name) for name in ready if name in self._later]
            self._page.extend(await self._keeper(self._still_due, ready, wishes))
            if self._page:
                return True
        for _ in range(self._turn_count):
            self._page.extend(await next(self._turns)())
            if self._page:
                return True
        return False

    def _still_due(self, names: list[ProjectName], wishes: list[Callable[[], None]]) -> list[Row]:
        for make_due in wishes:
            make_due()
        now = time.time()
        rows = (self._ledger.row(name) for name in names)
        return [row for row in rows if row is not None and row.due_at is not None and row.due_at <= now]

    async def _fresh(self) -> list[Row]:
        rows = await self._keeper(self._ledger.due, time.time(), self._fresh_after, _PAGE)
        if rows:
            self._fresh_after = _place(rows[-1])
        return rows

    async def _from_oldest(self) -> list[Row]:
        rows = await self._keeper(self._ledger.due_between, self._oldest, self._newest, _PAGE, newest=False)
        if rows:
            self._oldest = _place(rows[-1])
        return rows

    async def _from_newest(self) -> list[Row]:
        rows = await self._keeper(self._ledger.due_between, self._oldest, self._newest, _PAGE, newest=True)
        if rows:
            self._newest = _place(rows[-1])
        return rows

    async def _wait(self) -> None:
        """Until somebody is done, something is announced, or something becomes due."""
        now = time.time()
        due = await self._keeper(self._ledger.next_due, now)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stirred, self._stop)]
        try:
            timeout = None if due is None else max(0.0, due - now)
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _place(row: Row) -> tuple[float, str]:
    assert row.due_at is not None
    return row.due_at, row.name
