"""What is common to tests in which the power goes."""

from __future__ import annotations

import functools
import sqlite3

from support.disks import Cut, Step


@functools.lru_cache(maxsize=8)
def opened(ledger: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(ledger)
    return connection


def explained(steps: list[Step], cut: Cut, found: list[str]) -> str:
    around = [
        f"{'->' if number == cut.number else '  '} {number} {step.verb} {' '.join(step.arguments)}"
        for number, step in enumerate(steps[max(0, cut.number - 25) : cut.number], max(0, cut.number - 25) + 1)
    ]
    return "\n".join([f"after step {cut.number}, {len(cut.pending)} pending", *map(str, found), *around])
