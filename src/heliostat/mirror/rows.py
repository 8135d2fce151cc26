"""Ledger rows as reports tell them."""

from __future__ import annotations

from heliostat.mirror.report import Owed
from heliostat.state.rows import Row


def owed_of(row: Row) -> Owed:
    """A row as the summary and the status tell it."""
    name = row.display if row.name.startswith("!") else row.name
    return Owed(name, row.state, row.error or row.why or "", row.attempts, row.wanted_serial, row.due_at)
