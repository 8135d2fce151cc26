"""Whole passes that somebody asks a daemon for, and waits for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

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


def settle(orders: list[Order], outcome: Summary | Exception) -> None:
    """Tell those who wait, if they still do."""
    for order in orders:
        if order.result.done():
            continue
        if isinstance(outcome, Exception):
            order.result.set_exception(outcome)
        else:
            order.result.set_result(outcome)
