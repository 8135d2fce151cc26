"""The daemon: it follows upstream until it is stopped, and whatever goes wrong meanwhile is a state, not an end.

One task runs one pass after the other; while a pass runs it polls by itself (:mod:`heliostat.mirror.livepass`), so
polls never overlap.  In between, the loop waits for the next poll, for the first project that is owed, for a poke, or
for the end.  After trouble the pauses double up to a ceiling; they are ordinary again at the first good answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from typing import TypeVar

from heliostat.config import Config
from heliostat.errors import (
    ConfigError,
    HeliostatError,
    Refused,
    StateError,
    StoreError,
    UpstreamChanged,
    UpstreamError,
)
from heliostat.mirror.changes import Seen
from heliostat.mirror.live import Errand, Live
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.service.health import Health, Result
from heliostat.service.orders import Chore, Order, Wish, settle
from heliostat.service.progress import Progress
from heliostat.service.reload import ReloadResult, compare, refuse, say
from heliostat.service.results import log_result, result_of, result_of_error
from heliostat.service.timing import Timing
from heliostat.service.troubles import Troubles
from heliostat.upstream.pauses import Hold

__all__ = ["Daemon", "Showing", "Wish"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Showing = Callable[[Counters], AbstractAsyncContextManager[None]]
#: Projects named by pokes that wait for the next poll, or a few more.
_MOST_NAMED = 10_000


class Daemon:
    """Follows upstream with the opened ``mirror``; all methods belong to the event loop."""

    def __init__(
        self,
        config: Config,
        mirror: Mirror,
        stop: asyncio.Event,
        *,
        read_config: Callable[[], Config],
        first: Wish,
        showing: Showing,
    ) -> None:
        self.config, self.mirror, self.stop = config, mirror, stop
        self._read_config, self._showing = read_config, showing
        self._first: Wish | None = first
        self.health = Health(started=time.time())
        #: Called when something was published and is durable, also in the middle of a long pass; the summary counts
        #: from the beginning of that pass.  What they raise is logged; they hold up the loop, so what takes time
        #: belongs into a task of their own.
        self.after_pass: list[Callable[[Summary], Awaitable[None]]] = []
        #: Entered while the configuration is read anew.
        self.around_reload: list[Callable[[], AbstractContextManager[None]]] = []
        #: Called with the new configuration once it counts.
        self.after_reload: list[Callable[[Config], Awaitable[None]]] = []
        self._timing = Timing(config)
        self._troubles = Troubles(self.health, self._timing)
        self._poked = asyncio.Event()
        #: Ends the pass that runs, so that another one begins.
        self._halt = asyncio.Event()
        #: Until when that pass may end by itself, monotonic.
        self._grace_until = 0.0
        self._errands: list[Errand] = []
        self._orders: list[Order] = []
        #: What waits for a moment in which no pass runs.
        self._chores: list[Chore] = []
        self._chore = asyncio.Event()
        #: The pass that runs carries out orders.
        self._ordered = False
        #: Held by whoever repairs: one at a time.
        self.repairing = asyncio.Lock()
        #: Held while a pass runs.
        self._pass_runs = asyncio.Lock()
        self._progress = Progress(self.health, mirror)
        #: What the log said last of why a pass was incomplete.
        self._said: object = None
        #: Projects added, updated and removed by it when listeners were told last.
        self._told = (0, 0, 0)

    # -- what others ask ----------------------------------------------------------------------------------------

    def poke(self, names: Iterable[str] = ()) -> None:
        """Poll at once; the named projects, of those that this mirror holds, are looked at whatever the feed says.

        Many pokes before that poll are one.  A wait that upstream asked for (Retry-After) is kept.
        """
        if found := _normal(names):
            waiting = next((one for one in self._errands if not one.named), None)
            if waiting is None:
                self._errands.append(Errand(found, named=False))
            elif len(waiting.names) < _MOST_NAMED:  # what is left out, polls find as well
                waiting.add(found)
        self._poked.set()

    async def sync_now(self, names: Sequence[str], counters: Counters | None = None) -> Summary:
        """What ``heliostat mirror NAME...`` means; returns when those projects are dealt with, or cannot be now.

        The summary is of these projects alone.  Raises Refused for names that are none, UpstreamChanged, and
        what else ended the pass unexpectedly.
        """
        await self.mirror.refuse_denied(names)
        errand = Errand({normalise(name): name for name in names}, counters, named=True)
        self._errands.append(errand)
        self._poked.set()
        await errand.done.wait()
        if errand.error is not None:
            raise errand.error
        return await self.mirror.report(errand)

    async def pass_now(self, wish: Wish, began: Callable[[Counters], None]) -> Summary:
        """What ``heliostat mirror --once`` means: a poll, and everything owed is tried now; the summary of that pass.

        An ordinary pass that runs makes way for it, and is part of it then.  ``began`` is called with its counters,
        several times if it is begun anew.  Raises UpstreamChanged, StateError, and what else ended it unexpectedly.
        """
        order = Order(wish, began, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        if not self._ordered:  # else orders could keep one another from ever being carried out
            self._halt.set()
        self._poked.set()
        return await order.result

    @contextlib.asynccontextmanager
    async def between_passes(self) -> AsyncIterator[None]:
        """No pass runs while this is open; one that does ends first, as for a reload.  It is to be short."""
        if self._pass_runs.locked():
            self._end_pass()
        async with self._pass_runs:
            yield

    async def between(self, work: Callable[[], Awaitable[T]], counters: Counters) -> T:
        """Carry out ``work`` on the mirror while no pass runs; one that runs ends as for a stop, and begins anew then.

        Raises what ``work`` raises, and HeliostatError when the daemon ends before that.
        """
        chore = Chore(work, counters, asyncio.get_running_loop().create_future())
        self._chores.append(chore)
        self._chore.set()
        self._end_pass()
        result: T = await chore.result
        return result

    async def tell(self, summary: Summary) -> None:
        """Tell the listeners that something was published, or removed."""
        for listener in self.after_pass:
            await _guarded(listener(summary), "a listener")

    async def reload(self) -> ReloadResult:
        """Read the configuration anew.  A bad one is refused with all its problems, and the old one stays.

        What a pass that runs was told is old then: it ends as for a stop, and the next one begins at once.
        """
        with ExitStack() as around:
            for each in self.around_reload:
                around.enter_context(each())
            return await self._reload()

    async def _reload(self) -> ReloadResult:
        try:
            new = self._read_config()
        except ConfigError as error:
            return refuse(error.problems)
        taken, result = compare(self.config, new)
        say(result, taken)
        if result.changed:
            self.config = taken
            self.mirror.reconfigure(taken)
            self._timing.configure(taken)
            if result.concerns_passes:
                self._end_pass()
            self._poked.set()
        failed: list[str] = []
        for listener in self.after_reload:
            try:
                await listener(taken)
            except ConfigError as error:
                failed += error.problems
                log.error("%s: %s", taken.source, error)
            except Exception:
                failed.append("a part of the daemon failed unexpectedly; the daemon's log has more")
                log.exception("taking over the configuration failed unexpectedly")
        return dataclasses.replace(result, failed=tuple(failed))

    def progressed(self) -> float:
        """When the loop last got on, monotonic; see :mod:`heliostat.service.progress`."""
        return self._progress.look(self.config.upstream, quiet_until=self._grace_until)

    def look_at_hold(self) -> None:
        """Take note of whether upstream asks to wait."""
        hold = self.mirror.sources.pauses.hold
        self.health.held_by, self.health.held_until = hold or (None, None)

    def held(self) -> Hold | None:
        """What upstream asked to wait, and that keeps passes from beginning or from going on; None for nothing."""
        sources = self.mirror.sources
        hold, left = sources.hold, self._timing.not_before - time.monotonic()
        if left > 0 and (hold is None or hold.until < time.time() + left):
            hold = Hold(sources.in_use.base, time.time() + left)
        return hold

    # -- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow upstream until stopped.  Raises the unexpected error that came ``give-up-after`` times in a row."""
        stopping = asyncio.create_task(self._end_pass_with_stop(), name="stopping")
        try:
            poll = True
            while not self.stop.is_set():
                async with self._pass_runs:
                    await self._do_chores()
                    await self._pass(poll=poll)
                poll = await self._pause()
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            self.health.phase = "stopping"
            interrupted = Summary(upstream="", started=time.time(), interrupted=True)
            self._finish(self._errands, interrupted)
            settle(self._orders, interrupted)
            for chore in self._chores:
                if not chore.result.done():
                    chore.result.set_exception(HeliostatError("the daemon ended before this was done"))

    async def _do_chores(self) -> None:
        """No pass runs: what waits for that is done, one after the other."""
        self._chore.clear()
        health = self.health
        while self._chores and not self.stop.is_set():
            chore = self._chores.pop(0)
            phase, health.phase, health.counters = health.phase, "working", chore.counters
            self._progress.begin()
            try:
                result = await chore.work()
            except Exception as error:
                if not chore.result.done():
                    chore.result.set_exception(error)
            else:
                if not chore.result.done():
                    chore.result.set_result(result)
            health.phase = phase
            self._progress.got_on()

    async def _end_pass_with_stop(self) -> None:
        await self.stop.wait()
        self.health.phase = "stopping"
        self._end_pass()

    def _end_pass(self) -> None:
        """What is in flight has its grace."""
        self._grace_until = time.monotonic() + self.config.service.grace
        self._halt.set()

    async def _pass(self, *, poll: bool) -> None:
        health = self.health
        health.phase, health.next_poll = "working", None
        health.counters, self._told = Counters(), (0, 0, 0)
        self._progress.begin()
        if poll:
            self._poked.clear()
        if not self.stop.is_set():
            self._halt.clear()
        orders, self._orders = self._orders, []
        self._ordered = bool(orders)
        for order in orders:
            order.began(health.counters)
        wishes = [self._first or Wish(), *(order.wish for order in orders)]
        live = self._live(poll=poll)
        try:
            async with self._showing(health.counters):
                summary = await self.mirror.run(
                    full=any(wish.full for wish in wishes), allow_removals=max(wish.allow_removals for wish in wishes),
                    patient=self._first is None and not orders,
                    counters=health.counters, stop=self._halt, live=live,
                )  # fmt: skip
        except (UpstreamChanged, StateError, StoreError) as error:
            summary = Summary(upstream="", started=time.time())
            kind: Result = result_of_error(error) or "store"
            if kind == "store":
                summary.store_error = str(error)
            self._end(kind, str(error), live, summary, error)
            settle(orders, error)
        except Exception as error:
            settle(orders, error)
            self._defect(error, live)
        else:
            if not (summary.unreachable or summary.interrupted):
                self._first = None
            trouble = summary.store_error or summary.unreachable
            if trouble is None:
                self._said = log_result(summary, self._said)
            self._end(result_of(summary), trouble, live, summary)
            health.last = summary
            if result_of(summary) == "interrupted" and not self.stop.is_set():
                self._orders = [*orders, *self._orders]
            else:
                settle(orders, summary)
            await self._tell(summary)
        self._ordered = False

    def _live(self, *, poll: bool) -> Live:
        return Live(
            grace=self.config.service.grace,
            poll=poll,
            next_poll=self._next_poll,
            # Not before: a pass that ends just then polls no more, and what asked for it counts for the next one.
            polling=self._poked.clear,
            put_off=self._poked.set,
            errands=self._take_errands,
            polled=self._polled,
            committed=self._committed,
            published=self._published,
        )

    def _take_errands(self) -> list[Errand]:
        taken, self._errands = self._errands, []
        return taken

    def _end(
        self, result: Result, trouble: str | None, live: Live, summary: Summary, error: Exception | None = None
    ) -> None:
        """Take note of how a pass ended."""
        health = self.health
        health.passes[result] = health.passes.get(result, 0) + 1
        if summary.upstream:
            health.cursor, health.checkpoint = summary.cursor, summary.checkpoint
        self._troubles.pass_ended(result, trouble or "", live.retry_after)
        if result == "interrupted" and not self.stop.is_set():
            self._timing.at_once()
            # What it had been asked for is asked of the pass that follows at once.
            self._errands = [*live.taken, *self._errands]
            return
        health.look_at_lag(time.time())
        self._progress.got_on()
        failed = result in ("unreachable", "store", "approval", "defect", "interrupted")
        for errand in live.taken:
            errand.dealt_with(summary.unknown, unknown=True)
            errand.dealt_with(live.at_end)
        if failed:  # it may not have come so far as to take them
            self._finish([*live.taken, *self._errands], summary, error)
            self._errands.clear()
            return
        self._finish([errand for errand in live.taken if not errand.left], None)
        # Those that came when its last project was done already: the next pass is theirs.
        if late := [errand for errand in live.taken if errand.left]:
            self._errands = [*late, *self._errands]
            self._poked.set()

    def _defect(self, error: Exception, live: Live) -> None:
        """An unexpected error must not end a mirror that works otherwise, but neither must it go by unseen."""
        text = f"unexpected error: {type(error).__name__}: {error}"
        again = self.health.trouble_text == text
        log.error("a pass ended with an unexpected error; please report this", exc_info=None if again else error)
        self._end("defect", text, live, Summary(upstream="", started=time.time()), error)
        self.health.defects += 1
        if self.health.defects >= self.config.service.give_up_after:
            log.error("%d passes in a row ended so: giving up", self.health.defects)
            raise error

    def _finish(self, errands: list[Errand], ended_by: Summary | None, error: Exception | None = None) -> None:
        for errand in errands:
            errand.finish(ended_by, error)

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _pause(self) -> bool:
        """Wait until there is something to do; whether that begins with a poll."""
        health, timing = self.health, self._timing
        if self.stop.is_set():
            return True
        if self._orders:
            self._poked.set()
        health.phase = "waiting"
        until, poll = timing.next_poll, True
        if health.trouble is None:
            try:
                due = await self.mirror.next_due()
            except (StateError, StoreError) as error:
                self._troubles.met("store", str(error), None)
                until = timing.next_poll
            else:
                if due is not None and (owed := timing.when(due)) < until:
                    until, poll = owed, False
        health.next_poll = time.time() + timing.left()
        health.quiet_until = until
        poked = await self._until(until, idle=True)
        return poll or poked

    async def _until(self, instant: float, *, idle: bool = False) -> bool:
        """Wait until a monotonic time, a poke, or the end; whether it was a poke.

        ``idle``: no pass runs, so that what waits for that is done meanwhile.
        """
        least = min(instant, self._timing.not_before)
        await self._rest(least, idle=idle)
        await self._rest(instant, self._poked, idle=idle)
        return self._poked.is_set()

    async def _rest(self, instant: float, *events: asyncio.Event, idle: bool) -> None:
        """Until that time, one of ``events``, or the end."""
        chores = (self._chore,) if idle else ()
        while await self._sleep(instant, self.stop, *chores, *events):
            if not idle or not self._chore.is_set() or self.stop.is_set():
                return
            async with self._pass_runs:
                await self._do_chores()

    async def _sleep(self, instant: float, *events: asyncio.Event) -> bool:
        """Whether one of ``events`` was set before that."""
        seconds = instant - time.monotonic()
        if seconds <= 0 or any(event.is_set() for event in events):
            return any(event.is_set() for event in events)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    # -- what a pass says ---------------------------------------------------------------------------------------

    async def _next_poll(self) -> None:
        """Comes back when a pass that still works is to poll again."""
        health = self.health
        health.next_poll = time.time() + self._timing.left()
        with self._progress.waiting_beside(self._timing.next_poll):
            await self._until(self._timing.next_poll)
        health.next_poll = None
        self._progress.heard(self.config.upstream)

    def _polled(self, seen: Seen | None, error: UpstreamError | None) -> None:
        """A poll was answered, or failed."""
        health = self.health
        self._progress.heard(self.config.upstream)
        if seen is None:
            self._troubles.poll_failed(error)
            return
        if not seen.missed:
            health.polls += 1
            health.answered = time.time()
        if seen.serial is not None:
            health.upstream_serial = seen.serial
        self._troubles.poll_answered(whole=not seen.missed)

    def _committed(self, well: bool) -> None:
        self._progress.got_on()
        self._troubles.committed(well=well)

    async def _published(self, summary: Summary) -> None:
        """Something was published in the middle of a pass."""
        health = self.health
        health.cursor, health.checkpoint = summary.cursor, summary.checkpoint
        health.look_at_lag(time.time())
        await self._tell(summary)

    async def _tell(self, summary: Summary) -> None:
        """Tell that something was published, once; the figures of one pass go up from one time to the next."""
        done = (summary.added, summary.updated, summary.removed)
        if done == self._told:
            return
        self._told = done
        await self.tell(summary)
        await _guarded(self.mirror.give_back_memory(), "giving back memory")


def _normal(names: Iterable[str]) -> dict[ProjectName, str]:
    """Names as others sent them; those that are none are left out."""
    found = {}
    for name in names:
        try:
            found[normalise(name)] = name
        except Refused as error:
            log.debug("poked with %s", error)
    return found


async def _guarded(work: Awaitable[None], what: str) -> None:
    """What the components do must not harm the mirror."""
    try:
        await work
    except HeliostatError as error:
        log.error("%s failed: %s", what, error)
    except Exception:
        log.exception("%s failed unexpectedly", what)
