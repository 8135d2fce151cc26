"""Work on items side by side, a few at a time, whose results are taken in the items' order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    items: AsyncIterator[T],
    work: Callable[[T], Awaitable[R]],
    taken: Callable[[T, R], None],
    *,
    at_once: int,
    noted: Callable[[], Awaitable[None]],
) -> None:
    """``work`` is done on up to ``at_once`` items; ``taken`` gets what it brings, and ``noted`` may save that.

    The first error ends all of it, and comes out when nothing of it runs any more.
    """
    window: deque[tuple[T, asyncio.Future[R]]] = deque()

    async def take_oldest() -> None:
        item, task = window[0]
        result = await task
        window.popleft()
        taken(item, result)
        await noted()

    try:
        async for item in items:
            window.append((item, asyncio.ensure_future(work(item))))
            if len(window) >= at_once:
                await take_oldest()
        while window:
            await take_oldest()
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)
