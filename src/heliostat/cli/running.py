"""Running a command's asynchronous part: the event loop, and what signals do to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from heliostat.cli.exit_codes import Stopped, signal_code

if TYPE_CHECKING:
    from heliostat.service.requests import Requests

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds that a cancelled run has to clean up behind itself, and that saying so may take.
_LAST, _WORDS = 1.0, 0.5


class Stop:
    """How a run is asked to end: ``event`` at the first SIGINT or SIGTERM, cancellation at the second.

    ``number`` is the first signal that came.  What cancelling does not end within a second, since a thread waits for a
    disk that does not answer, or the event loop itself does, ends then with the process: as after SIGKILL, nothing that
    was published is lost.  ``requests`` are the signals that ask a daemon for something; other commands have none.
    """

    def __init__(self, requests: Requests | None = None) -> None:
        self.event = asyncio.Event()
        self.number: int | None = None
        self.requests = requests
        self._cancelled = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals count while this is open, for the task that opened it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def ask(number: int, _: FrameType | None) -> None:
            if self.number is None:
                self.number = number
                loop.call_soon_threadsafe(self.event.set)
            elif not self._cancelled:
                self._cancelled = True
                loop.call_soon_threadsafe(task.cancel)
                threading.Thread(target=_end, args=(self.number,), name="heliostat-end", daemon=True).start()

        # Not the loop's own: these are called also while it hangs.
        before = {each: signal.signal(each, ask) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                # Once it was told to end, nothing that is left to do is worth waiting for.
                signal.signal(each, handler if self.number is None else signal.SIG_DFL)


def _end(number: int) -> None:
    """Ends the process unless it ends by itself, whatever its other threads do; also those that hold the log."""
    threading.Event().wait(_LAST)
    words = threading.Thread(target=_say_so, daemon=True)
    words.start()
    words.join(_WORDS)
    if (hooks := sys.modules.get("heliostat.service.hookrun")) is not None:  # else none was ever run
        hooks.kill_all()
    os._exit(signal_code(number))


def _say_so() -> None:
    _log.warning("%s; something, most likely the disk, does not answer", Stopped.text)


def run(work: Callable[[Stop], Awaitable[_Result]], requests: Callable[[], Requests] | None = None) -> _Result:
    """Runs ``work`` to its end on an event loop of its own; raises Stopped when signals ended it."""

    async def guarded() -> _Result:
        stop = Stop(requests() if requests else None)
        with stop.listening(), stop.requests.listening() if stop.requests else contextlib.nullcontext():
            try:
                return await work(stop)
            except asyncio.CancelledError:
                raise Stopped(stop.number) from None

    try:
        import uvloop
    except ImportError:
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    gc.freeze()  # what is imported stays: no need to look at it again and again
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(guarded())
