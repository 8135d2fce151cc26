"""How many bytes of pages and documents the projects under way may hold together, parsed or not.

Small ones are held by as many projects as there are workers, which bounds them.  One that is large waits for its turn,
with empty hands, before it is read, until it fits beside those that are held already; one at a time always may.

Nobody who has that turn waits for what may take any time (files, another project's turn with a file name): it lies
aside meanwhile (:mod:`heliostat.mirror.aside`), and waits for a turn again.  So one that is slow holds back nobody, and
nobody waits in a circle.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Bytes as upstream sends them; parsed they are some times as many.
_MOST = 64 << 20
#: A page, or a document, up to here is small (bytes).
SMALL = 512 << 10
#: What a large project counts for until its size is known (bytes).
_ASSUMED = 32 << 20


class PageBudget:
    """One for all projects of a pass; used by the event loop only."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._held, self._large = most, 0, 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def crowded(self) -> bool:
        """So much is held that nobody should begin more than there are workers for."""
        return self._held >= self._most

    def share(self) -> Share:
        """What one project holds: nothing yet."""
        return Share(self)

    async def enter(self) -> None:
        """Take :data:`_ASSUMED` bytes, in the order of those who ask."""
        if self._waiting or not self._fits():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self.leave(_ASSUMED, large=True)
                raise
        else:
            self._take()

    def change(self, by: int) -> None:
        """So many bytes more, or less, than counted until now."""
        self._held += by
        self._let_in()

    def leave(self, size: int, *, large: bool) -> None:
        """So many bytes are held no more."""
        self._large -= large
        self.change(-size)

    def _fits(self) -> bool:
        return self._large == 0 or self._held + _ASSUMED <= self._most

    def _take(self) -> None:
        self._large += 1
        self._held += _ASSUMED

    def _let_in(self) -> None:
        while self._waiting and self._fits():
            turn = self._waiting.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)


class Share:
    """What one project holds, from its first request until its pages are written, but not while it lies aside."""

    def __init__(self, budget: PageBudget) -> None:
        self._budget, self._size = budget, 0
        self.large = False
        #: Somebody else calls :meth:`release`.
        self.handed_over = False

    async def become_large(self) -> None:
        """Wait for the turn of a large project; what was held before must be gone."""
        self.release()
        await self._budget.enter()
        self.large, self._size = True, _ASSUMED

    def holds(self, size: int) -> None:
        """It turned out to be so many bytes."""
        self._budget.change(size - self._size)
        self._size = size

    def set_aside(self, size: int) -> None:
        """Only so many bytes are held while the project waits: the next large one may have its turn."""
        before, large = self._size, self.large
        self._size, self.large = size, False
        self._budget.leave(before - size, large=large)

    def release(self) -> None:
        """Nothing is held any more."""
        size, large = self._size, self.large
        self._size, self.large = 0, False
        self._budget.leave(size, large=large)
