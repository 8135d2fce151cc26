"""Whether upstream is still the index that the ledger follows: by its name, and by serials that must not go back.

Where it has several sources one of them may be behind the others, which is no other index.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from heliostat.errors import HeliostatError, Unavailable, UpstreamChanged
from heliostat.mirror.sightings import noted
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.upstream.client import Sources, Upstream

log = logging.getLogger(__name__)


class Behind(HeliostatError):
    """The source that answered has not come as far as others: changes are to be read from another one."""


class Identity:
    """What is known of upstream's identity during one poll."""

    def __init__(self, upstream: Upstream, ledger: Ledger, keeper: Keeper) -> None:
        self._upstream, self._ledger, self._keeper = upstream, ledger, keeper
        #: The cursor when the first source read it last, if others have taken it further since.
        self._vouched: int | None = None

    def confirm(self, facts: dict[str, Any], *, full: bool) -> bool:
        """True when ``full`` confirms another upstream than the ledger's.  Raises UpstreamChanged without it."""
        known = facts.get("upstream")
        if known is None or known == self._upstream.identity:
            return bool(full and facts.get("went_back"))
        if not full:
            raise UpstreamChanged(
                f"this mirror follows {known}, but the configuration says {self._upstream.identity}; "
                "if they are the same index, confirm with 'heliostat mirror --once --full'"
            )
        return True

    def restart(self) -> None:
        """Another upstream is confirmed: begin with it.  Blocking."""
        log.warning("another upstream, or one that went back, is confirmed: everything is owed again")
        self._ledger.restart()
        self._ledger.put(vouched=None)

    async def heard(self, serial: int) -> None:
        """One of several sources told its serial: keep how far the first one came, before others go further."""
        facts, first = await self._keeper(self._ledger.facts), self._upstream.sources.last.number == 0
        cursor, vouched = int(facts.get("cursor") or 0), facts.get("vouched")
        if first and vouched is not None and serial >= cursor:
            vouched = None
        elif not first and vouched is None and serial > cursor:
            vouched = cursor
        if vouched != facts.get("vouched"):
            await self._keeper(self._ledger.put, vouched=vouched)
        self._vouched = vouched

    def is_behind(self, serial: int) -> bool:
        """Whether a serial that is too low says no more than that its source is behind others.

        The first source can go back, and so be another index; but not behind what it said itself.
        """
        if not self._upstream.several:
            return False
        return self._upstream.sources.last.number > 0 or (self._vouched is not None and serial >= self._vouched)

    def check(self, head: int, cursor: int) -> None:
        """Raises Behind, or UpstreamChanged, when a source's serial is lower than what was seen."""
        if head >= cursor:
            if self._upstream.several:
                self._upstream.sources.is_not_behind(self._upstream.sources.last)
            return
        if self.is_behind(head):
            raise Behind(f"behind: its serial is {head}, where {cursor} was seen before")
        raise UpstreamChanged(
            f"upstream's serial went back: {head}, where {cursor} was seen before; if this is the same index, "
            "confirm with 'heliostat mirror --once --full'"
        )

    async def remember(self, serial: int | None) -> None:
        """Keep upstream's name and head; nothing is written when nothing moved."""
        facts = await self._keeper(self._ledger.facts)
        if facts.get("upstream") != self._upstream.identity or facts.get("went_back"):
            await self._keeper(self._ledger.put, upstream=self._upstream.identity, went_back=None)
        if facts.get("source") != self._upstream.stand_in:
            await self._keeper(self._ledger.put, source=self._upstream.stand_in)
        if serial is not None and facts.get("upstream_serial") != serial:
            now = time.time()
            sightings = noted(facts.get("sightings"), serial, now)
            await self._keeper(self._ledger.put, upstream_serial=serial, upstream_seen=now, sightings=sightings)


def all_resting(sources: Sources) -> Unavailable:
    """Why none of the sources is of use."""
    first, *others = sources.standings
    return Unavailable(first.base, "; ".join([first.reason, *(f"{one.base}: {one.reason}" for one in others)]))
