"""What somebody asks a daemon for, and waits for: whole passes, and what is done between two of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from heliostat.mirror.report import Counters, Summary


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the first pass is asked beyond the ordinary."""

    full: bool = False
    allow_removals: int = 0


@dataclasses.dataclass(eq=False)
class Order:
    """A whole pass that somebody waits for; ``began`` is given the counters of a pass that is to carry it out."""

    wish: Wish
    began: Callable[[Counters], None]
    result: asyncio.Future[Summary]


@dataclasses.dataclass(eq=False)
class Chore:
    """Something that is done while no pass runs; ``result`` is what came of it."""

    work: Callable[[], Awaitable[Any]]
    counters: Counters
    result: asyncio.Future[Any]


def settle(orders: list[Order], outcome: Summary | Exception) -> None:
    """Tell those who wait, if they still do."""
    for order in orders:
        if order.result.done():
            continue
        if isinstance(outcome, Exception):
            order.result.set_exception(outcome)
        else:
            order.result.set_result(outcome)
