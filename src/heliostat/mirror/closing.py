"""The end of whatever was done to a mirror: it is told to those who follow, and summed up."""

from __future__ import annotations

import contextlib
import time

from heliostat.config import Config
from heliostat.errors import StateError, StoreError
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.rescope import held_by_scope
from heliostat.mirror.rows import owed_of
from heliostat.mirror.rules import rules_of
from heliostat.mirror.tally import COUNTS, Tally
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Keeper
from heliostat.store.tree import Tree

#: Projects that a summary names.
_LISTED = 1000


async def close_books(
    config: Config,
    tree: Tree,
    ledger: Ledger,
    keeper: Keeper,
    summary: Summary,
    counters: Counters,
    tally: Tally,
    *,
    checkpoint: bool,
) -> None:
    """Tell what was published to those who follow this mirror; fill the summary from the ledger and the counts."""
    from heliostat.mirror.segments import write_changes

    try:
        await keeper(write_changes, tree, ledger)
    except StoreError as error:
        summary.store_error = summary.store_error or str(error)
        with contextlib.suppress(StoreError):  # the disk may be full, and hold what could not be finished
            await keeper(tree.clean_partial, downloads=False)
    except StateError:
        pass  # said below
    try:
        states = await keeper(ledger.owed_by_state)
        owed = await keeper(ledger.owed, _LISTED)
        summary.cursor = await keeper(lambda: ledger.cursor)
        summary.checkpoint = await keeper(ledger.checkpoint)
        summary.projects = await keeper(ledger.published_count)
        summary.stuck = [row.name for row in await keeper(ledger.stuck, _LISTED)]
        summary.stuck_count = await keeper(ledger.stuck_count)
        if states.get("held"):
            rules = await keeper(rules_of, config, ledger)
            summary.held_by_scope = await keeper(held_by_scope, ledger, rules)
    except (StateError, StoreError) as error:
        summary.store_error = summary.store_error or str(error)
        return
    summary.owed = [owed_of(row) for row in owed]
    summary.owed_by_state = states
    summary.held = states.get("held", 0)
    for field in COUNTS:
        setattr(summary, field, getattr(tally, field))
    summary.unknown = tally.unknown
    summary.requests, summary.retries = counters.requests, counters.retries
    if checkpoint and summary.complete:
        await keeper(tree.clean_partial, downloads=True)
    counters.phase = "done"
    summary.seconds = time.time() - summary.started
