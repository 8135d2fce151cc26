"""Small bodies on their way into the store: written under ``partial/`` by one thread, in groups.

A hop to a thread costs as much as writing a small file does, so bodies that arrive while the thread is busy are
written together in the next hop.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import NamedTuple

from heliostat.store.disk import Operations
from heliostat.store.side_by_side import SideBySide
from heliostat.store.threads import Keeper


class _Waiting(NamedTuple):
    path: str
    data: bytes
    mtime_ns: int | None
    done: asyncio.Future[str]


class Stager:
    """Writes bodies to temporaries; a temporary is the caller's to rename or remove."""

    def __init__(self, disk: Operations) -> None:
        self._disk = disk
        self._keeper = Keeper("heliostat-stage")
        self._numbers = itertools.count(1)
        self._side_by_side = SideBySide()
        self._waiting: list[_Waiting] = []
        self._drain: asyncio.Task[None] | None = None

    async def put(self, data: bytes, *, mtime_ns: int | None = None) -> str:
        """Write ``data``; the path of the temporary.  Raises StoreError."""
        path = f"partial/staged-{next(self._numbers)}"
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(path, data, mtime_ns, done))
        if self._drain is None:
            self._drain = asyncio.create_task(self._write_all())
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Finish what is being written; the temporaries stay for the next start to clean."""
        if self._drain is not None:
            await asyncio.gather(self._drain, return_exceptions=True)
        self._keeper.close()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    outcomes = await self._keeper(self._write_group, group)
                except Exception as error:
                    outcomes = [error] * len(group)  # somebody waits for each of them
                for item, failure in zip(group, outcomes, strict=True):
                    if item.done.cancelled():
                        continue
                    if failure is None:
                        item.done.set_result(item.path)
                    else:
                        item.done.set_exception(failure)
                        item.done.exception()  # the waiter may have been cancelled meanwhile
        finally:
            self._drain = None

    def _write_group(self, group: list[_Waiting]) -> list[Exception | None]:
        outcomes: list[Exception | None] = [None] * len(group)

        def write(number: int) -> None:
            item = group[number]
            try:
                self._disk.write(item.path, item.data, item.mtime_ns)
            except Exception as error:
                outcomes[number] = error

        self._side_by_side.each(write, range(len(group)), len(group))
        return outcomes
