"""A process that holds a mirror open as the daemon does, and runs a pass when it is told to.

    python benchmarks/held_open.py CONFIG [PASSES]

For each line of its standard input (``pass``, or ``final`` for one that also writes the root index) it runs one pass
and prints the figures of it as a line of JSON.  :class:`HeldOpen` is the other end.  With a number of passes it runs
so many, one after the other, and asks nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from heliostat.cli.running import Stop, run
from heliostat.config.load import load_config
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror


class HeldOpen:
    """The process, seen from the one that drives it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def run_pass(self, word: str = "pass") -> dict[str, Any]:
        """Figures of one pass: ``wall`` and ``cpu`` seconds, ``written`` bytes, and those of its summary."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that holds the mirror open ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def held_open(config: str) -> Iterator[HeldOpen]:
    """A mirror that is open from here to the end."""
    command = [sys.executable, os.path.abspath(__file__), config]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield HeldOpen(process)
    finally:
        process.communicate()


def bytes_written() -> int:
    """What this process made the kernel write to storage so far; 0 where that is not told, as for tmpfs."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    except (OSError, StopIteration):
        return 0


async def _one_pass(mirror: Mirror, *, patient: bool) -> dict[str, Any]:
    written, cpu, wall = bytes_written(), time.process_time(), time.perf_counter()
    summary = await mirror.run(counters=Counters(), stop=asyncio.Event(), patient=patient)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "written": bytes_written() - written,
        "complete": summary.complete,
        "requests": summary.requests,
        "added": summary.added,
        "updated": summary.updated,
        "owed": sum(summary.owed_by_state.values()),
    }


def main() -> None:
    path = sys.argv[1]
    with open(path, encoding="utf-8") as file:
        config = load_config(file.read(), source=path, environ=os.environ)

    async def serve(stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        async with Mirror.open(config, stop=stop.event) as mirror:
            for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 0):
                await _one_pass(mirror, patient=True)
            while len(sys.argv) == 2 and (word := await loop.run_in_executor(None, sys.stdin.readline)):
                found = await _one_pass(mirror, patient=word.strip() != "final")
                sys.stdout.write(json.dumps(found) + "\n")
                sys.stdout.flush()

    run(serve)


if __name__ == "__main__":
    main()
