"""Blocking work off the event loop, without ever leaving a thread behind that nobody waits for.

Not the executors of the standard library: a hop to one of them and back costs as much as what a small project has to do
there, since each makes two futures, a lock and a shield.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from heliostat.store import beats

P = ParamSpec("P")
T = TypeVar("T")


class _Job:
    """One call, on its way to a thread and back."""

    __slots__ = ("arguments", "call", "done", "error", "keywords", "loop", "result", "waiter")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, call: Callable[..., Any], arguments: Any, keywords: dict[str, Any]
    ) -> None:
        self.loop, self.call, self.arguments, self.keywords = loop, call, arguments, keywords
        self.waiter: asyncio.Future[None] = loop.create_future()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.call(*self.arguments, **self.keywords)
        except BaseException as error:
            self.error = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._back)

    def _back(self) -> None:
        self.done = True
        if not self.waiter.done():
            self.waiter.set_result(None)


class Workers:
    """At most ``most`` threads, begun when they are needed, that end with the process or with :meth:`close`.

    ``watched``: their work counts for :func:`heliostat.store.beats.working_since`.
    """

    def __init__(self, name: str, most: int, *, watched: bool = False) -> None:
        self._name, self._most, self._watched = name, most, watched
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pending = 0

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``func``'s result from one of the threads; see :func:`in_thread`."""
        job = _Job(asyncio.get_running_loop(), func, args, kwargs)
        self._pending += 1
        try:
            if self._pending > len(self._threads) < self._most:
                self._begin()
            self._jobs.put(job)
            await job.waiter
        except asyncio.CancelledError:
            while not job.done:  # holds against a second cancellation too
                job.waiter = job.loop.create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await job.waiter
            raise
        finally:
            self._pending -= 1
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # its frames hold it, and it would hold them
        result: T = job.result
        return result

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system allows no more: then those that there are do it
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        beat = beats.begin(watched=self._watched)
        try:
            while (job := self._jobs.get()) is not None:
                beat.since = time.monotonic()
                job.run()
                beat.since = math.inf
                del job  # what it returned is not to be kept until the next one comes
        finally:
            beats.end(beat)

    def close(self) -> None:
        """Nothing more comes; returns when the threads are gone."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


#: For what waits for the disk.
_WAITING = Workers("heliostat-disk", 8, watched=True)
#: For what computes: more threads than cores only get in each other's way, and in that of the event loop.
_COMPUTING = Workers("heliostat-hash", max(2, os.cpu_count() or 1), watched=True)


async def in_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``func`` in a thread.

    A thread cannot be cancelled: on cancellation this waits for the work to end, then raises CancelledError, so
    that whoever cleans up next never races with it.
    """
    return await _WAITING.run(func, *args, **kwargs)


async def in_computing_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for work that keeps a core busy, such as hashing."""
    return await _COMPUTING.run(func, *args, **kwargs)


class Keeper:
    """One thread that alone touches what it keeps (the ledger's connection, the order of renames).

    ``explain`` gives the error to raise instead of one that came out of there; None leaves that as it is.
    """

    def __init__(self, name: str, explain: Callable[[Exception], Exception | None] | None = None) -> None:
        self._workers = Workers(name, 1, watched=True)
        self._explain = explain

    async def __call__(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._workers.run(func, *args, **kwargs)
        except Exception as error:
            better = self._explain(error) if self._explain is not None else None
            if better is None:
                raise
            raise better from error

    def close(self) -> None:
        self._workers.close()
