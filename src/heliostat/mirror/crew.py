"""Bounded workers over the todo list, and the publisher beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from heliostat.errors import UpstreamError
from heliostat.state.rows import Row

if TYPE_CHECKING:
    from heliostat.mirror.budget import PageBudget
    from heliostat.mirror.publish import Publisher

T = TypeVar("T")

#: Seconds that work in flight gets to end by itself once a stop was asked for; all of it can be resumed.
GRACE = 2.0
#: Projects that wait for large files, for each slot; what each holds in memory meanwhile is its page and document.
_MOST_WAITING = 8


class Slots:
    """How many projects are under way: ``size``, and besides them those that only wait, unless they hold too much."""

    def __init__(self, size: int, budget: PageBudget) -> None:
        self.size, self._budget = size, budget
        #: Puts one more worker to work.
        self.hire: Callable[[], object] = lambda: None
        self._lent: set[asyncio.Task[Any] | None] = set()

    def lend(self, *, empty_handed: bool = False) -> None:
        """The worker that calls this has a long wait before it: another one takes its place, if not too many wait.

        ``empty_handed``: it holds no page meanwhile.
        """
        worker = asyncio.current_task()
        if self._budget.crowded and not empty_handed:
            return
        if worker not in self._lent and len(self._lent) < _MOST_WAITING * self.size:
            self._lent.add(worker)
            self.hire()

    def was_lent(self) -> bool:
        """Whether the worker that calls this gave its place away; asked once, when its project is done."""
        worker = asyncio.current_task()
        if worker not in self._lent:
            return False
        self._lent.discard(worker)
        return True


async def run_crew(
    owed: AsyncIterator[Row],
    sync: Callable[[Row], Awaitable[None]],
    publisher: Publisher,
    *,
    slots: Slots,
    stop: asyncio.Event,
    grace: float = GRACE,
) -> None:
    """Drain ``owed`` with as many workers as there are ``slots``; what they finish is committed by ``publisher``.

    After ``stop`` nothing new begins, what is in flight is cancelled after ``grace`` seconds, and everything that was
    handed over is still committed; so it is when ``sync`` finds that upstream is down, which comes out in the end.
    The first store or state error cancels the rest and comes out.
    """
    down = _Down()
    publishing = asyncio.create_task(publisher.run())
    working = asyncio.create_task(_work(owed, sync, slots, stop, down))
    stopping = [asyncio.create_task(_stop_after_grace(event, working, grace)) for event in (stop, down.found)]
    finishing: asyncio.Task[None] | None = None
    try:
        await asyncio.wait([working, publishing], return_when=asyncio.FIRST_COMPLETED)
        if publishing.done():
            working.cancel()
        try:
            await working
        except asyncio.CancelledError:
            if not (stop.is_set() or down.found.is_set() or publishing.done()):
                raise
        finishing = asyncio.create_task(publisher.finish())
        await publishing
    finally:
        tasks = [task for task in (*stopping, working, publishing, finishing) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if down.error is not None:
        raise down.error


class _Down:
    """Whether upstream is."""

    def __init__(self) -> None:
        self.found = asyncio.Event()
        self.error: UpstreamError | None = None

    def because(self, error: UpstreamError) -> None:
        self.error = self.error or error
        self.found.set()


async def _work(
    owed: AsyncIterator[Row],
    sync: Callable[[Row], Awaitable[None]],
    slots: Slots,
    stop: asyncio.Event,
    down: _Down,
) -> None:
    queue: asyncio.Queue[Row | None] = asyncio.Queue(maxsize=2 * slots.size)

    async def feed() -> None:
        async for row in owed:
            if stop.is_set():
                break
            await queue.put(row)
        for _ in range(slots.size):
            await queue.put(None)

    async def drain() -> None:
        while not down.found.is_set() and (row := await queue.get()) is not None:
            if not stop.is_set():
                try:
                    await sync(row)
                except UpstreamError as error:
                    down.because(error)
            if slots.was_lent():
                return  # somebody else goes on in its place

    async def end(feeding: asyncio.Task[None]) -> None:
        await down.found.wait()
        feeding.cancel()
        while not queue.full():  # those who wait for something to do
            queue.put_nowait(None)

    try:
        async with asyncio.TaskGroup() as crew:
            slots.hire = lambda: crew.create_task(drain())
            ending = asyncio.create_task(end(crew.create_task(feed())))
            for _ in range(slots.size):
                crew.create_task(drain())
    except BaseExceptionGroup as group:
        raise first_of(group) from None
    finally:
        ending.cancel()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception that is not a group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _stop_after_grace(stop: asyncio.Event, working: asyncio.Task[None], grace: float) -> None:
    await stop.wait()
    await asyncio.wait([working], timeout=grace)
    working.cancel()


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """The result of ``work``, or None if ``stop`` came first and it was cancelled."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for item in (task, stopping):
            item.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
