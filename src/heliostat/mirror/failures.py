"""Projects that could not be brought up to date: what is told, recorded and tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from heliostat.config import Config
from heliostat.errors import HeliostatError, Occupied, Refused
from heliostat.mirror import news
from heliostat.mirror.claims import Claims
from heliostat.mirror.item import Item
from heliostat.mirror.metadata import BEHIND, MetadataReader
from heliostat.mirror.publish import Publisher, blocked_until
from heliostat.mirror.report import Counters
from heliostat.state.rows import Failed, PathRow, Row


class Failures:
    """Records why not, and when to try again."""

    def __init__(
        self, config: Config, reader: MetadataReader, publisher: Publisher, counters: Counters, claims: Claims
    ) -> None:
        self._config, self._reader, self._publisher = config, reader, publisher
        self._counters, self._claims = counters, claims

    async def fail(self, row: Row, error: HeliostatError) -> None:
        """It waits for its next try."""
        news.failed(row.name, error, known=row.attempts > 0 and row.error == str(error))
        await self.submit(
            row,
            Failed(
                name=row.name,
                wanted_serial=row.wanted_serial,
                state="failing",
                error=str(error),
                due_at=self.due(row),
                behind_at=time.time() if isinstance(error, BEHIND) else None,
            ),
        )

    async def block(self, row: Row, error: Refused) -> None:
        """Trying again cannot help; another look once a day may."""
        reason = f"{self._reader.page_url(row.name)}: {error}"
        news.blocked(row.name, reason, known=row.error == reason)
        await self.submit(
            row,
            Failed(
                name=row.name,
                wanted_serial=row.wanted_serial,
                state="blocked",
                error=reason,
                due_at=blocked_until(),
            ),
            [PathRow(error.path, row.name, "waiting")] if isinstance(error, Occupied) else [],
        )

    def given_up(self, row: Row, item: Item) -> None:
        """It could not be put in place: something lies there that is not ours."""
        assert isinstance(item.outcome, Failed)
        news.blocked(row.name, item.outcome.error, known=row.error == item.outcome.error)
        self._counters.projects_failed += 1
        self._claims.release(row.name)

    async def submit(self, row: Row, outcome: Failed, claims: Sequence[PathRow] = ()) -> None:
        """What it put in place ahead of its pages is in the tree when this is recorded; then others may look."""
        self._counters.projects_failed += 1
        self._counters.projects_done += 1
        item = Item(name=row.name, outcome=outcome, claims=list(claims))
        item.done = lambda: self._claims.release(row.name)
        await self._publisher.submit(item)

    def due(self, row: Row) -> float:
        """Doubling pauses with jitter, between ``retry-first`` and ``retry-most`` seconds."""
        mirror = self._config.mirror
        pause = min(mirror.retry_most, mirror.retry_first * 2 ** min(row.attempts, 30))
        return time.time() + float(pause) * random.uniform(0.75, 1.25)
