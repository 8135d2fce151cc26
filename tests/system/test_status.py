"""``heliostat status`` as people and scripts call it: on a terminal, in a pipe, again and again."""

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Status as HttpStatus
from heliostat.mirror.report import Status
from support.cli import arun, command, environment, start

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """A mirror of which one project fails."""
    index = Index()
    for name in ("alpha", "beta"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.tar.gz", name.encode()))
    async with FakeIndex(index) as server:
        server.fault("/simple/beta/", HttpStatus(500))
        (tmp_path / "pypi").mkdir()
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "pypi"\neverything = true\n'
            f'[upstream]\nurl = "{server.url}"\nallow-http = true\nretries = 1\n'
        )
        assert (await arun("mirror", "--once", cwd=tmp_path)).returncode == 3
        yield tmp_path


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self) -> None:
        self.terminal, self._end = pty.openpty()
        self.shown = b""

    async def start(self, *arguments: str, cwd: Path) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *command(*arguments),
            cwd=cwd,
            env=environment(cwd, TERM="xterm", COLUMNS="400", LINES="40"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._end,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(self._end)
        return process

    async def read(self) -> bytes:
        try:
            more = await asyncio.to_thread(os.read, self.terminal, 65536)
        except OSError:  # nobody writes any more
            more = b""
        self.shown += more
        return more

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode())


async def test_a_page_on_a_terminal(home: Path) -> None:
    terminal = Terminal()
    process = await terminal.start("status", cwd=home)
    while await terminal.read():
        pass
    assert await process.wait() == 0
    os.close(terminal.terminal)
    text = terminal.text()
    assert " incomplete   " in text
    assert "Owed: 1 (1 failing" in text
    assert re.search(r"beta +failing +\S+/simple/beta/: .*500", text)
    assert b"\x1b[" in terminal.shown  # colours


async def test_plain_text_in_a_pipe(home: Path) -> None:
    done = await arun("status", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert re.search(r"^state +incomplete: 1 failing", done.stdout, re.MULTILINE)
    assert re.search(r"^running +no$", done.stdout, re.MULTILINE)


async def test_the_json_has_what_the_documentation_says(home: Path) -> None:
    told = json.loads((await arun("status", "--json", cwd=home)).stdout)
    assert told["exit_code"] == 0
    assert told["live"] is None
    assert told["lag"] == told["upstream_serial"] - told["checkpoint"] > 0
    assert told["owed_since"] is not None
    assert told["disk_free"] <= told["disk_total"]
    keys = {field.name for field in msgspec.structs.fields(Status)} | {"live", "exit_code"}
    assert set(told) == keys
    section = OPERATIONS.read_text().partition("## Reading status")[2].partition("\n## ")[0]
    documented = {
        word for cell in re.findall(r"^\| (.+?) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)`", cell)
    }
    assert documented == keys


async def test_watching_in_a_pipe(home: Path) -> None:
    process = await start("status", "--watch", "0.1", "--json", cwd=home)
    assert process.stdout is not None
    for _ in range(3):
        assert json.loads(await process.stdout.readline())["projects"] == 1
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    process = await start("status", "--watch", "0.1", cwd=home)
    assert process.stdout is not None
    seen = 0
    while seen < 2:
        seen += (await process.stdout.readline()).startswith(b"mirror ")
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0


async def test_watching_on_a_terminal(home: Path) -> None:
    terminal = Terminal()
    process = await terminal.start("status", "--watch", "0.1", cwd=home)
    while terminal.shown.count(b"Owed: ") < 2:
        assert await terminal.read()
    (home / "pypi/heliostat.db").rename(home / "pypi/away")
    while b"no ledger there" not in terminal.shown:
        assert await terminal.read()
    (home / "pypi/away").rename(home / "pypi/heliostat.db")
    before = terminal.shown.count(b"Owed: ")
    while terminal.shown.count(b"Owed: ") == before:
        assert await terminal.read()
    process.send_signal(signal.SIGINT)
    while await terminal.read():
        pass
    assert await process.wait() == 0
    os.close(terminal.terminal)
    assert b"\x1b[?1049l" in terminal.shown  # the screen is given back


async def test_what_cannot_be_watched_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectory = "pypi"\neverything = true\n')
    done = await arun("status", "--watch", cwd=tmp_path)
    assert done.returncode == 6
    assert "no ledger there" in done.stderr
