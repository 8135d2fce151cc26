"""Something that costs time, asked for by anyone as often as they like, and done only as often as it may cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from heliostat.store.threads import in_thread

T = TypeVar("T")

#: What was read is used again for so many times as long as reading it took: at most 1% of a core goes into it.
_REST = 100.0


class Sparing(Generic[T]):
    """Reads in a thread; whoever asks while it is being read, or soon after, shares the result."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._found: T | None = None
        #: Until when the last result is used, monotonic.
        self._until = 0.0

    async def get(self) -> T:
        """The result, no older than a hundred times what it takes to have it.  Raises what reading raises."""
        async with self._lock:
            begun = time.monotonic()
            if self._found is None or begun >= self._until:
                self._found = None
                self._found = await in_thread(self._read)
                now = time.monotonic()
                self._until = now + _REST * (now - begun)
            return self._found
