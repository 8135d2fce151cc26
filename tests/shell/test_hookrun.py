"""Running the hook's program: what it says is read to the end, and every descriptor is closed once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from heliostat.service.hookrun import run_program

Factory = Callable[[], asyncio.AbstractEventLoop]
LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
#: What a program starts that outlives it, with its output.
_SLEEP = "['sleep', '1000'], start_new_session=True, close_fds=False"


async def run(program: str, folder: Path, *, limit: float = 60) -> str | None:
    with open(os.devnull, "rb") as nothing:
        return await run_program(
            [sys.executable, "-c", program], cwd=str(folder), variables={}, stdin=nothing.fileno(),
            inherit=nothing.fileno(), started=lambda _: None, limit=limit,
        )  # fmt: skip


@LOOPS
@pytest.mark.parametrize(
    "program",
    ["", f"import subprocess\nprint(subprocess.Popen({_SLEEP}).pid, file=open('left', 'w'))\n"],
    ids=["ends", "leaves its output open"],
)
def test_no_descriptor_of_anybody_elses_is_closed(
    program: str, factory: Factory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is opened at any time beside it stays open: a number that is free is given to the next who asks."""
    caplog.set_level(logging.INFO, "heliostat.service.hookrun")
    opened: list[int] = []
    done = False

    def open_another() -> None:
        if done:
            return
        opened.append(os.open(os.devnull, os.O_RDONLY))
        if len(opened) > 20:
            os.close(opened.pop(0))
        asyncio.get_running_loop().call_soon(open_another)

    async def beside() -> None:
        nonlocal done
        open_another()
        assert await run(f"{program}print('a word')", tmp_path) is None
        for _ in range(3):  # what is to be closed later
            await asyncio.sleep(0)
        done = True

    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(beside())
    finally:
        if (left := tmp_path / "left").exists():
            os.kill(int(left.read_text()), signal.SIGKILL)
        for descriptor in opened:
            os.close(descriptor)
    assert [record.getMessage() for record in caplog.records] == ["hook: a word"]


@LOOPS
def test_all_that_it_says_is_logged(factory: Factory, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In pieces, without an end of the last line, and by what it started as well."""
    caplog.set_level(logging.INFO, "heliostat.service.hookrun")
    program = (
        "import os, subprocess as s, sys, time\n"
        "for piece in (b'one\\ntw', b'o\\n', b'\\n', b'\\xff' + 3000 * b'x' + b'\\n'):\n"
        "    os.write(1, piece)\n"
        "    time.sleep(0.01)\n"
        "s.run(['echo', 'three'], check=True)\n"
        "os.write(2, b'four')\n"
        "sys.exit(7)"
    )
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(run(program, tmp_path)) == "ended with exit code 7"
    said = [record.getMessage().removeprefix("hook: ") for record in caplog.records]
    assert [line[:8] for line in said] == ["one", "two", r"'\ufffdx", "three", "four"]
    assert len(said[2]) < 600
