"""When the supervisor is told what: ready, how it goes, that something moves, reload, the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from heliostat.mirror.report import Counters
from heliostat.service.daemon import Daemon
from heliostat.service.health import Health
from heliostat.service.notify import Notifier

log = logging.getLogger(__name__)

#: Seconds between two looks: while ready is awaited; at a start that takes long; at how it goes.
_SOON, _STARTING, _OFTEN = 0.1, 10.0, 5.0
#: Seconds that a start may still take after it last got on; seconds on top of the grace that a wait or a stop may take.
_MORE, _CLOSING = 300.0, 60.0


@contextlib.asynccontextmanager
async def starting(notifier: Notifier, counters: Counters, *, every: float = _STARTING) -> AsyncIterator[None]:
    """Around the opening of a mirror, which may have to rebuild its ledger: more time is asked for while that gets on.

    ``counters`` are those of the rebuild; ``every``, in seconds, is how often they are looked at.
    """

    async def watch() -> None:
        seen = 0
        while True:
            await asyncio.sleep(every)
            if counters.projects_done > seen:
                seen = counters.projects_done
                notifier.extend(_MORE)
                notifier.status(f"{counters.phase}: {seen} of {counters.projects_total} projects")

    notifier.status("opening the mirror")
    async with _running(watch() if notifier else None):
        yield


@contextlib.asynccontextmanager
async def notifying(daemon: Daemon, notifier: Notifier) -> AsyncIterator[None]:
    """Around a daemon: its supervisor is told what it needs to know, and is fed only while the loop gets on."""

    @contextlib.contextmanager
    def reload() -> Iterator[None]:
        if not notifier.started:
            yield
            return
        notifier.reloading()
        try:
            yield
        finally:
            if not daemon.stop.is_set():
                notifier.ready()

    daemon.around_reload.append(reload)
    try:
        async with _running(_tell(daemon, notifier) if notifier else None):
            yield
    finally:
        daemon.around_reload.remove(reload)
        notifier.stopping(daemon.config.service.grace + _CLOSING)


async def _tell(daemon: Daemon, notifier: Notifier) -> None:
    await _until_ready(daemon, notifier)
    if not daemon.stop.is_set():
        notifier.ready()
    limit = notifier.watchdog_limit
    pause = min(_OFTEN, limit / 4) if limit else _OFTEN
    watchdog, rate = _Watchdog(daemon, notifier), Rate()
    while True:
        stopping = daemon.stop.is_set()
        if stopping:
            notifier.stopping(daemon.config.service.grace + _CLOSING)
        watchdog.feed()
        daemon.look_at_hold()
        notifier.status(status_line(daemon.health, rate.feed(daemon.health.counters, time.monotonic())))
        if stopping:
            await asyncio.sleep(pause)
        else:
            await _either(daemon.stop, pause)


async def _until_ready(daemon: Daemon, notifier: Notifier) -> None:
    """Until upstream has answered, the grace is over, or it is to end before that."""
    notifier.status("waiting for upstream's first answer")
    grace = daemon.config.service.ready_grace
    deadline = time.monotonic() + grace
    notifier.extend(grace + _CLOSING)  # it may be longer than the supervisor's own patience
    while daemon.health.answered is None and time.monotonic() < deadline:
        if await _either(daemon.stop, min(_SOON, max(deadline - time.monotonic(), 0.001))):
            return


class _Watchdog:
    """Feeds only when the loop got on since the last time, or has nothing to do."""

    def __init__(self, daemon: Daemon, notifier: Notifier) -> None:
        self._daemon, self._notifier = daemon, notifier
        self._fed = float("-inf")

    def feed(self) -> None:
        now, progressed = time.monotonic(), self._daemon.progressed()
        if progressed > self._fed:
            self._fed = min(progressed, now)
            self._notifier.watchdog()


class Rate:
    """Bytes a second since the last look."""

    def __init__(self) -> None:
        self._of: Counters | None = None
        self._bytes, self._at = 0, 0.0

    def feed(self, counters: Counters, now: float) -> float:
        """``now`` is monotonic, in seconds.  Another pass begins with counters of its own."""
        before = self._bytes if counters is self._of else 0
        passed, count = now - self._at, counters.bytes_done - before
        known = self._of is not None and passed > 0
        self._of, self._bytes, self._at = counters, counters.bytes_done, now
        return max(count, 0) / passed if known else 0.0


def status_line(health: Health, rate: float) -> str:
    """How it goes, on one line: what is reached, how far behind, what is owed, what is done."""
    lag = health.lag
    parts = [f"complete to serial {health.checkpoint}", "upstream unknown" if lag is None else f"{lag} behind"]
    owed = sum(health.last.owed_by_state.values()) if health.last else 0
    if owed:
        parts.append(f"{owed} owed")
    if health.trouble:
        parts.append(f"{health.trouble}: {health.trouble_text}")
    if health.held_until is not None:
        parts.append(f"{health.held_by} asks to wait until {_clock_time(health.held_until)}")
    if health.phase == "working":
        counters = health.counters
        parts.append(counters.phase)
        if counters.projects_total:
            parts.append(f"{counters.projects_done} of {counters.projects_total} projects, {rate / 1e6:.1f} MB/s")
    elif health.phase == "waiting" and health.next_poll is not None:
        parts.append(f"next poll at {_clock_time(health.next_poll)}")
    else:
        parts.append(health.phase)
    return "; ".join(parts)


def _clock_time(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


async def _either(event: asyncio.Event, seconds: float) -> bool:
    """Whether ``event`` came within ``seconds``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None] | None) -> AsyncIterator[None]:
    """``work`` beside the block; what goes wrong in it is logged, and harms nobody."""
    if work is None:
        yield
        return
    task = asyncio.create_task(work, name="supervisor")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()):
            log.error("the supervisor was not told how it went on: %s", error, exc_info=error)
