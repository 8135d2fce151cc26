"""Blocking work off the event loop, without ever leaving a thread behind that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(executor: Executor | None, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``func`` in a thread of ``executor``.

    A thread cannot be cancelled: on cancellation this waits for the work to end, then raises CancelledError, so
    that whoever cleans up next never races with it.
    """
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(executor, lambda: func(*args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():  # holds against a second cancellation too
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen, so that the loop does not report it as never retrieved
        raise


class Keeper:
    """One thread that alone touches what it keeps (the ledger's connection, the order of renames)."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __call__(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(self._executor, func, *args, **kwargs)

    def close(self) -> None:
        self._executor.shutdown(wait=True)
