"""Parts of heliostat measured inside fresh processes: a script starts itself again with ``--child``, turn by turn."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from harness import settle, successful, timed
from tables import spread, table

T = TypeVar("T")
Figures = dict[str, float]


class Stages:
    """Seconds of named stages, and the peak memory when each ended."""

    def __init__(self) -> None:
        self.figures: Figures = {"MiB before": peak()}

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        self.figures[f"{name} s"] = time.perf_counter() - started
        self.figures["peak MiB"] = peak()
        return result

    def report(self, **more: float) -> None:
        """To the process that started this one."""
        sys.stdout.write(json.dumps({**self.figures, **more}) + "\n")


def peak() -> float:
    """The largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_fresh_processes(script: str, arguments: Sequence[str], turns: int) -> list[dict[str, Any]]:
    """What the ``--child`` of ``script`` reports, in each of ``turns`` processes."""
    found = []
    for _ in range(turns):
        settle()
        run = successful(timed([sys.executable, os.path.abspath(script), "--child", *arguments]), script)
        found.append(json.loads(run.output))
    return found


def stage_table(found: Sequence[dict[str, Any]]) -> str:
    """A row for each figure: median and range."""
    rows = [["what", "median (range)"]]
    rows += [[name, spread([one[name] for one in found])] for name in found[0]]
    return table(rows)
