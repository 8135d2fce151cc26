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

    def __init__(self, read: Callable[[], T], *, patience: float = 8.0) -> None:
        """``patience``, in seconds: nobody waits longer for a disk that does not answer."""
        self._read, self._patience = read, patience
        self._reading: asyncio.Task[T] | None = None
        self._found: T | None = None
        #: Until when the last result is used, monotonic.
        self._until = 0.0

    async def get(self) -> T:
        """The result, no older than a hundred times what it takes to have it.

        Raises what reading raises, and TimeoutError while it takes too long; it goes on then.
        """
        if self._reading is None:
            if self._found is not None and time.monotonic() < self._until:
                return self._found
            self._found = None
            self._reading = asyncio.create_task(self._go_and_read(), name="reading figures")
        reading = self._reading
        done, _ = await asyncio.wait([reading], timeout=self._patience)
        if not done:
            raise TimeoutError
        return reading.result()

    async def _go_and_read(self) -> T:
        begun = time.monotonic()
        try:
            self._found = found = await in_thread(self._read)
            now = time.monotonic()
            self._until = now + _REST * (now - begun)
            return found
        finally:
            self._reading = None
