"""Following another heliostat by its static change feed: where it was read up to, and what that means when it differs.

The position is kept in the ledger in the same transaction as the rows.  It belongs to one feed, by its identity; a feed
that has another one, that lost rows, or whose numbers went back, is begun from the root list.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from heliostat.errors import Invalid
from heliostat.pages.changes import Head, Told
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.changes import Place
from heliostat.upstream.client import Upstream

log = logging.getLogger(__name__)


class Position(msgspec.Struct, frozen=True):
    """How far the feed ``mirror`` was read; ``etag`` is the head's when nothing was left to read."""

    mirror: str
    place: Place
    etag: str | None = None


def position_of(facts: dict[str, Any]) -> Position | None:
    """What the ledger's facts say."""
    text = facts.get("changes_read")
    return None if text is None else msgspec.json.decode(text, type=Position)


def lost(position: Position | None, head: Head, far_behind: int | None) -> str | None:
    """Why ``head``'s feed cannot be read on from ``position``, in words; None when it can."""
    if position is None:
        return "its change feed was not read before"
    number = position.place.number
    if position.mirror != head.mirror:
        return "its change feed is another one than before: it was made anew, or another mirror answers"
    if head.number < number:
        return f"its change feed went back: to row {head.number}, where {number} was read before"
    if number + 1 < head.first:
        return f"its change feed begins at row {head.first} by now, and was read up to {number}"
    if far_behind is not None and head.number - number > far_behind:
        return f"its change feed is {head.number - number} rows ahead"
    return None


class FeedFollower:
    """Reads rows into the ledger.  Raises UpstreamError, StateError, StoreError."""

    def __init__(self, upstream: Upstream, ledger: Ledger, keeper: Keeper, scope: Scope) -> None:
        self._upstream, self._ledger, self._keeper, self._scope = upstream, ledger, keeper, scope

    async def begin(self, head: Head, number: int) -> Position:
        """From now on read behind row ``number``, which ledger or list account for."""
        number = max(number, head.first - 1)
        position = Position(head.mirror, Place(number, head.size if number == head.number else -1))
        await self._keeper(self._ledger.put, changes_read=_text(position))
        return position

    async def read(self, head: Head, etag: str | None, position: Position, now: float) -> None:
        """Fold the rows up to ``head`` into the ledger, then its serial as the cursor.

        Some rows may be missing where a copy is being made, or a cache is older than the head: they are read at the
        next poll.
        """
        place = position.place
        while place.number < head.number:
            answer = await self._upstream.changes_after(head, place)
            if not answer.rows:
                log.warning(
                    "%s: rows %d to %d of its change feed are not there yet; reading them at the next poll",
                    self._upstream.base, place.number + 1, head.number,
                )  # fmt: skip
                return
            if answer.place.number > head.number:
                raise Invalid(self._upstream.base, "the change feed goes on behind its head")
            place = answer.place
            await self._fold(answer.rows, None, Position(head.mirror, place), now)
        await self._fold([], head.serial, Position(head.mirror, place, etag), now)

    async def _fold(self, rows: list[Told], serial: int | None, position: Position, now: float) -> None:
        fold = self._ledger.intake.fold_changes
        await self._keeper(fold, rows, serial, _text(position), now, self._scope.__contains__)


def _text(position: Position) -> str:
    return msgspec.json.encode(position).decode()
