"""Signals and progress of a run, in real processes and on a real (pseudo) terminal."""

import asyncio
import logging
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.options import Options
from heliostat.cli.progress import showing
from heliostat.mirror.report import Counters
from support.cli import environment

POLITE = """
import asyncio
from heliostat.cli.running import run

async def work(stop):
    print("ready", flush=True)
    await stop.event.wait()
    return stop.number

print(run(work), flush=True)
"""

STUBBORN = """
import asyncio
from heliostat.cli.exit_codes import Stopped
from heliostat.cli.running import run

async def work(stop):
    print("ready", flush=True)
    await stop.event.wait()
    print("asked", flush=True)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("cleaned up", flush=True)

try:
    run(work)
except Stopped as stopped:
    print("stopped by", stopped.number, flush=True)
"""

HANGING = """
import asyncio, time
from heliostat.cli.running import run

async def work(stop):
    print("ready", flush=True)
    await stop.event.wait()
    print("asked", flush=True)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("hanging", flush=True)
        time.sleep(600)

run(work)
"""


def converse(script: str, home: Path, *turns: tuple[str, int]) -> tuple[list[str], int]:
    """Runs ``script``; each turn waits for a line and then sends a signal.  Its further lines, and its end."""
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment(home), stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line, number in turns:
            assert process.stdout.readline() == f"{line}\n"
            process.send_signal(number)
        rest = process.stdout.read().splitlines()
        return rest, process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(tmp_path: Path, number: int) -> None:
    assert converse(POLITE, tmp_path, ("ready", number)) == ([str(number)], 0)


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)])
def test_the_second_signal_cancels_and_the_first_one_counts(tmp_path: Path, first: int, second: int) -> None:
    rest, code = converse(STUBBORN, tmp_path, ("ready", first), ("asked", second))
    assert (rest, code) == (["cleaned up", f"stopped by {int(first)}"], 0)


@pytest.mark.parametrize("more", [(), (("hanging", signal.SIGTERM),)], ids=["two", "three"])
def test_what_hangs_ends_after_the_second_signal_all_the_same(
    tmp_path: Path, more: tuple[tuple[str, int], ...]
) -> None:
    rest, code = converse(HANGING, tmp_path, ("ready", signal.SIGINT), ("asked", signal.SIGINT), *more)
    assert (rest, code) == ([] if more else ["hanging"], 130)


class Lines(logging.Handler):
    """Collects log lines and tells when there are enough."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.enough, self.reached = enough, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if len(self.lines) >= self.enough:
            self.reached.set()


async def test_without_a_terminal_progress_is_a_log_line_at_intervals() -> None:
    logger, handler = logging.getLogger("heliostat.cli.progress"), Lines(3)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        async with showing(Counters(phase="projects", projects_total=7), Options(), interval=0.001):
            await handler.reached.wait()
        count = len(handler.lines)
        assert handler.lines[0] == "projects; 0 of 7 projects; 0 files, 0 B; 0 B/s"
        async with (
            showing(Counters(), Options(progress=False), interval=0.0),
            showing(Counters(), Options(quiet=True), interval=0.0),
        ):
            for _ in range(20):
                await asyncio.sleep(0)
        assert len(handler.lines) == count
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


DISPLAY = """
import asyncio, logging, sys
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
from heliostat.cli.progress import showing
from heliostat.mirror.report import Counters

async def work():
    counters = Counters(phase="projects \\x1b[31m", projects_total=1234, projects_done=1000, projects_failed=3)
    async with showing(counters, options):
        await asyncio.to_thread(sys.stdin.readline)
        logging.getLogger("heliostat").warning("a [red]line\\x1b[2J")
    print("result")

options = Options()
set_up_logging(options)
asyncio.run(work())
"""


def test_on_a_terminal_progress_is_a_display_and_log_lines_stay_readable(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", DISPLAY],
        env=environment(tmp_path, TERM="xterm", COLUMNS="100"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=end,
    ) as process:
        os.close(end)
        shown = b""
        while b"3 failed" not in shown:
            shown += os.read(terminal, 4096)
        out, _ = process.communicate(b"\n", timeout=60)
        try:
            while more := os.read(terminal, 4096):
                shown += more
        except OSError:  # the other end was closed
            pass
        os.close(terminal)
    assert process.returncode == 0
    assert out == b"result\n"
    assert b"1,000 of 1,234" in shown
    assert b"warning: a [red]line\\x1b[2J" in shown
    assert b"\x1b[31m" not in shown
    assert b"projects \\x1b[31m" in shown


def test_a_terminal_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + DISPLAY + "sys.stderr = None\n",
        ],
        env=environment(tmp_path, TERM="xterm"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=end,
    ) as process:
        os.close(end)
        assert os.read(terminal, 1)
        os.close(terminal)
        out, _ = process.communicate(b"\n", timeout=60)
    assert (process.returncode, out) == (0, b"result\n")
