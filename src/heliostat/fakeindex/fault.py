"""A fault in force: which requests meet it, how often, and what the test lets it do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from heliostat.fakeindex.connection import Exchange
from heliostat.fakeindex.http import Answer, Request

if TYPE_CHECKING:
    from heliostat.fakeindex.server import FakeIndex

#: A shell pattern for the path as quoted in the request, an expression that matches all of it, or a function.
Pattern = str | re.Pattern[str] | Callable[[Request], bool]


def matches(pattern: Pattern, request: Request) -> bool:
    if isinstance(pattern, str):
        return pattern == request.path or fnmatchcase(request.path, pattern)
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(request.path) is not None
    return pattern(request)


class Fault:
    """A fault in force; made by :meth:`FakeIndex.fault`."""

    def __init__(
        self,
        server: FakeIndex,
        path: Pattern,
        action: Action,
        *,
        times: int | None = None,
        skip: int = 0,
        method: str | None = None,
        delay: float = 0.0,
    ) -> None:
        self.server, self.path, self.action = server, path, action
        self.times, self.skip, self.method, self.delay = times, skip, method, delay
        #: How many requests have met it.
        self.fired = 0
        #: Answers from before, by what was accepted.
        self.kept: dict[str, Answer] = {}
        self._released = asyncio.Event()
        self._steps = asyncio.Semaphore(0)

    def takes(self, request: Request) -> bool:
        """Whether the request meets the fault; counts it if so."""
        if self.times is not None and self.fired >= self.times:
            return False
        if (self.method is not None and self.method != request.method) or not matches(self.path, request):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.fired += 1
        return True

    async def carry_out(self, exchange: Exchange) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self.action.act(exchange, self)

    def honest(self, request: Request) -> Answer:
        """What the index would have answered."""
        return self.server.answer(request)

    def grant(self, steps: int = 1) -> None:
        """Let a drip send so many further steps."""
        for _ in range(steps):
            self._steps.release()

    def release(self) -> None:
        """Whoever waits in the fault gets the rest of the honest answer, and so does everybody after."""
        self._released.set()

    def remove(self) -> None:
        """No request meets it any more."""
        self.release()
        if self in self.server.faults:
            self.server.faults.remove(self)

    async def wait_released(self, exchange: Exchange) -> None:
        """Until it is released or the connection is gone."""
        await _first(self._released.wait(), exchange.gone.wait())

    async def wait_step(self, exchange: Exchange) -> None:
        """Until a step is granted, or as above."""
        await _first(self._steps.acquire(), self._released.wait(), exchange.gone.wait())

    @property
    def released(self) -> bool:
        return self._released.is_set()


class Action(msgspec.Struct, frozen=True, tag=str.lower):
    """What happens to a request; the tag is the class's name in lower case."""

    def prepare(self, fault: Fault) -> None:
        """Called once, when the fault comes into force."""

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        raise NotImplementedError


async def _first(*waits: Any) -> None:
    """Until one of them is done; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
