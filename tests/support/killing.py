"""One run of the real command line that is to die: its standard error tells how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from support.cli import command, environment

#: How the engine's own log names the phases that no request of it tells; in the order in which a pass has them.
_MARKS = (
    ("announce", re.compile(r"batch \d+: (announcing|writing)")),
    ("place", re.compile(r"batch \d+: placing files")),
    ("page", re.compile(r"batch \d+: showing pages")),
    ("ledger", re.compile(r"batch \d+: recording")),
    ("withdraw", re.compile(r"removal: withdrawing")),
    ("remove", re.compile(r"removal: removing bytes")),
    ("root", re.compile(r"root: (writing|showing)")),
    ("changes", re.compile(r"changes: (appending|showing)")),
    ("elsewhere", re.compile(r"batch \d+: recorded|root: written")),
)


def phase_of(line: str) -> str | None:
    """The phase that a log line begins; None for one that begins none."""
    return next((phase for phase, mark in _MARKS if mark.search(line)), None)


class Victim:
    """``heliostat mirror --once --verbose`` in ``home``, which holds its configuration."""

    _running: ClassVar[set[subprocess.Popen[str]]] = set()

    def __init__(self, home: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            command("mirror", "--once", "--verbose", *more),
            cwd=home,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.lines: list[str] = []
        self._running.add(self.process)

    @classmethod
    def kill_all(cls) -> None:
        """For the end of a test, however it ended: nothing that it started goes on."""
        for process in cls._running:
            with process:
                process.kill()
        cls._running.clear()

    async def killed_in(self, phase: str) -> bool:
        """SIGKILL as soon as it says that ``phase`` begins; whether that is where it died."""
        return await asyncio.to_thread(self._kill_in, phase)

    async def kill(self) -> None:
        """SIGKILL now; it must not have ended by itself."""
        assert self.process.poll() is None, "".join(self.lines)
        self.process.kill()
        await asyncio.to_thread(self._read_on)

    async def end(self) -> int:
        """Its own end."""
        return await asyncio.to_thread(self._read_on)

    @property
    def phase(self) -> str | None:
        """The last phase that it said began."""
        return next(filter(None, map(phase_of, reversed(self.lines))), None)

    def read_until(self, phase: str) -> bool:
        """Until it says that ``phase`` begins; False when it never does."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if phase_of(line) == phase:
                return True
        return False

    def _kill_in(self, phase: str) -> bool:
        if self.read_until(phase):
            self.process.kill()
        return self._read_on() < 0 and self.phase == phase

    def _read_on(self) -> int:
        assert self.process.stderr is not None
        with self.process:
            self.lines += self.process.stderr.readlines()
        self._running.discard(self.process)
        return self.process.returncode


@contextlib.contextmanager
def ledger_of(directory: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the ledger as the killed process left it; the original is not touched, not even recovered."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = directory / f"heliostat.db{suffix}"
            if source.exists():
                Path(folder, f"copy.db{suffix}").write_bytes(source.read_bytes())
        connection = sqlite3.connect(os.path.join(folder, "copy.db"))
        try:
            yield connection
        finally:
            connection.close()
