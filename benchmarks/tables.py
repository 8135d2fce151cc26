"""Figures as Markdown: medians with their range, ratios turn by turn, and where they come from."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the range in brackets."""
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(above: Sequence[float], below: Sequence[float]) -> str:
    """Of two contestants' figures, a ratio for each turn; their median and range."""
    return spread([one / other for one, other in zip(above, below, strict=True) if other])


def machine() -> str:
    """Where the figures come from."""
    versions = f"CPython {platform.python_version()}, Linux {platform.release()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {versions}, {time.strftime('%Y-%m-%d')}"
