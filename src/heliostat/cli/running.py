"""Running a command's asynchronous part: the event loop, and what signals do to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from heliostat.cli.exit_codes import Stopped

if TYPE_CHECKING:
    from heliostat.service.requests import Requests

_Result = TypeVar("_Result")


class Stop:
    """How a run is asked to end: ``event`` at the first SIGINT or SIGTERM, cancellation at the second.

    ``number`` is the first signal that came.  A third one kills the process, in case even cancelling hangs.
    ``requests`` are the signals that ask a daemon for something; other commands have none.
    """

    def __init__(self, requests: Requests | None = None) -> None:
        self.event = asyncio.Event()
        self.number: int | None = None
        self.requests = requests

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals count while this is open, for the task that opened it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def ask(number: int) -> None:
            if not self.event.is_set():
                self.number = number
                self.event.set()
                return
            task.cancel()
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)
                signal.signal(each, signal.SIG_DFL)

        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, ask, each)
        try:
            yield
        finally:
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)


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
