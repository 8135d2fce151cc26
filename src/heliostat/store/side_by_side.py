"""The same work for many things: one after the other, and side by side on a disk that lets everybody wait."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from heliostat.store.beats import got_on

T = TypeVar("T")

#: A disk is slow when an operation waits so long for it, on the average (seconds); a local one takes a tenth of that.
SLOW = 0.0007
#: Operations that wait at the same time.
_AT_ONCE = 16
#: Once it was slow, this is looked at again every so many times.
_LOOK_AGAIN = 16


class SideBySide:
    """Belongs to one thread.  Side by side is worth it only where threads wait: computing they hinder each other."""

    def __init__(self) -> None:
        #: So many times yet it is taken for slow.
        self._until_look = 0

    def each(self, work: Callable[[T], object], things: Sequence[T], operations: int) -> None:
        """Do ``work`` for each of ``things``, ``operations`` of the disk in all.

        The first error comes out once nothing is under way any more; what had not begun then is not done.
        """
        if not self._until_look:
            self._measured(work, things, operations)
            return
        self._until_look -= 1
        todo, errors = iter(enumerate(things)), list[BaseException]()
        taking = threading.Lock()

        def drain() -> None:
            while not errors:
                with taking:
                    following = next(todo, None)
                if following is None:
                    return
                try:
                    work(following[1])
                except BaseException as error:
                    errors.append(error)
                got_on()

        threads = [threading.Thread(target=drain, daemon=True) for _ in range(min(_AT_ONCE, len(things)) - 1)]
        begun: list[threading.Thread] = []
        try:
            with contextlib.suppress(RuntimeError):  # the system allows no more: then it is done by fewer
                for thread in threads:
                    thread.start()
                    begun.append(thread)
            drain()
        finally:
            for thread in begun:
                thread.join()
        if errors:
            raise errors[0]

    def _measured(self, work: Callable[[T], object], things: Sequence[T], operations: int) -> None:
        begun, computed, gave_way = time.perf_counter(), time.thread_time(), _times_given_way()
        for one in things:
            work(one)
        waited = time.perf_counter() - begun - (time.thread_time() - computed)
        # A thread that others took the processor from did not wait for a disk; one that waited had given it away.
        often = 2 * (_times_given_way() - gave_way) >= operations
        if often and waited > SLOW * max(1, operations):
            self._until_look = _LOOK_AGAIN


def _times_given_way() -> int:
    """How often this thread has given the processor away by itself (getrusage(2), ``ru_nvcsw``)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
