"""Which project in flight is about to put bytes where: two that may want the same place take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from heliostat.names import METADATA_SUFFIX


def turns(filenames: Iterable[str], paths: Iterable[str]) -> set[str]:
    """What to claim: the names of the files that are wanted, and of those at the ``paths`` that may be given up.

    The place of a file is made of a digest, which is perhaps not known before the bytes are, and of its name, which
    always is: projects without a file name in common never want one place.
    """
    return {*filenames, *(path.rpartition("/")[2].removesuffix(METADATA_SUFFIX) for path in paths)}


class Claims:
    """All-or-nothing claims on keys; nobody holds some while waiting for others, so nobody waits in a circle."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._held: dict[str, set[str]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def take_now(self, holder: str, keys: set[str]) -> bool:
        """Claim all of ``keys`` if no other holder has any of them."""
        if any(self._holders.get(key, holder) != holder for key in keys):
            return False
        self._holders.update(dict.fromkeys(keys, holder))
        self._held.setdefault(holder, set()).update(keys)
        return True

    async def take(self, holder: str, keys: set[str]) -> None:
        """Wait until no other holder has any of ``keys``, then claim them all."""
        while not self.take_now(holder, keys):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(turn)
            try:
                await turn
            finally:
                self._waiting.discard(turn)

    def try_to_take(self, holder: str, keys: set[str]) -> bool:
        """Claim all of ``keys`` if no other holder has any of them; whether that was so."""
        if any(self._holders.get(key, holder) != holder for key in keys):
            return False
        self._holders.update(dict.fromkeys(keys, holder))
        self._held.setdefault(holder, set()).update(keys)
        return True

    def release(self, holder: str) -> None:
        """Give up all that ``holder`` has claimed."""
        for key in self._held.pop(holder, ()):
            del self._holders[key]
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
