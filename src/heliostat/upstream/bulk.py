"""The body of a large file, read into a few pieces of memory that are used again and again.

A new bytes object for every read would cost a copy of all that comes, and fresh pages from the kernel for most of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from heliostat.upstream.channel import Channel

#: Bytes of one piece of memory; a batch is handed over when so much of it is filled.
SIZE: Final = 1 << 20
BATCH: Final = 896 << 10
#: Pieces for each body: one that is filled, and the last two that were handed over.
_EACH = 3
#: At most so many bodies at a time are read this way; what they use is kept for the next ones.
_MOST = 16
_stock: list[bytearray] = []
_bodies: set[Bulk] = set()


def _memory() -> bytearray:
    return _stock.pop() if _stock else bytearray(SIZE)


class Bulk(asyncio.BufferedProtocol):
    """Takes what the connection of ``channel`` brings, until ``left`` bytes came; read by one reader."""

    def __init__(self, channel: Channel, first: bytes, left: int) -> None:
        """``first`` came already, ``left`` bytes are to come."""
        _bodies.add(self)
        self._channel, self._left = channel, left
        self._free = [_memory() for _ in range(_EACH - 1)]
        #: Batches, and the memory that each of them lies in.
        self._ready: deque[tuple[bytearray, memoryview]] = deque()
        self._out: deque[bytearray] = deque()
        self._memory: bytearray | None = None
        self._fill_next(_memory())
        if len(first) < BATCH:
            self._view[: len(first)] = first
            self._fill = len(first)
        else:
            own = bytearray(first)
            self._ready.append((own, memoryview(own)))

    @staticmethod
    def to_be_had() -> bool:
        """Whether one more body may be read this way."""
        return len(_bodies) < _MOST

    async def read(self) -> memoryview | bytes:
        """The next bytes, nothing at the end; their memory is used again once those after the next are asked for.

        At least BATCH of them but for the last ones, and for what came before a fault or a long wait.
        """
        if len(self._out) == _EACH - 1:
            self._take_back(self._out.popleft())
        channel = self._channel
        while not self._ready:
            if channel.complete and not channel.held:
                return b""
            if channel.failure is not None:
                if not channel.held:
                    raise channel.failure
                self._cut()
                break
            await channel.wait()
            if not self._ready and channel.held:  # time to look how fast it comes
                self._cut()
        memory, view = self._ready.popleft()
        self._out.append(memory)
        channel.held -= len(view)
        return view

    def end(self) -> None:
        """The exchange is over.  What may still be in somebody's hands is not used again."""
        _bodies.discard(self)
        if self._channel.complete:
            _stock.extend(self._free)
        self._free.clear()
        self._ready.clear()
        self._out.clear()
        self._memory = None
        self._view = memoryview(b"")

    def _take_back(self, memory: bytearray) -> None:
        if len(memory) != SIZE:
            memory = _memory()
        if self._memory is None:
            self._fill_next(memory)
            self._channel.go_on()
        else:
            self._free.append(memory)

    def _fill_next(self, memory: bytearray) -> None:
        self._memory = memory
        self._view, self._fill = memoryview(memory), 0

    def _cut(self) -> None:
        """What is filled is a batch."""
        assert self._memory is not None
        self._ready.append((self._memory, self._view[: self._fill]))
        self._memory = None
        if self._free:
            self._fill_next(self._free.pop())
        elif self._left:
            self._channel.pause()

    # The connection's events.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        if not self._left:  # bytes that nobody asked for: they show that the connection is not to be used again
            return memoryview(bytearray(1))
        if self._memory is None:  # reading was paused, but not in time
            self._fill_next(_memory())
        return self._view[self._fill : self._fill + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._channel.data_received(b"\0")
            return
        self._left -= nbytes
        self._fill += nbytes
        whole = self._fill >= BATCH or not self._left
        if whole:
            self._cut()
        self._channel.came(nbytes, whole=whole)

    def eof_received(self) -> bool | None:
        return self._channel.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.connection_lost(exc)
