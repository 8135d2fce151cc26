"""Which project in flight is about to put bytes where: two that want the same place take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Claims:
    """All-or-nothing claims on keys; nobody holds some while waiting for others, so nobody waits in a circle."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    async def take(self, holder: str, keys: Iterable[str]) -> None:
        """Wait until no other holder has any of ``keys``, then claim them all."""
        wanted = set(keys)
        while any(self._holders.get(key, holder) != holder for key in wanted):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(turn)
            try:
                await turn
            finally:
                self._waiting.discard(turn)
        self._holders.update(dict.fromkeys(wanted, holder))

    def release(self, holder: str, keys: Iterable[str]) -> None:
        """Give up ``holder``'s claims on ``keys``."""
        for key in keys:
            if self._holders.get(key) == holder:
                del self._holders[key]
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
