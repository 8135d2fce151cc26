"""``heliostat status`` as people and scripts call it: on a terminal, in a pipe, again and again."""

import asyncio
import json
import os
import pty
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Status as HttpStatus
from heliostat.mirror.lock import hold_lock
from heliostat.mirror.report import Status
from support.cli import arun, command, environment, start
from support.supervisor import supervised

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


async def test_a_daemon_without_an_endpoint_is_asked(home: Path) -> None:
    async with supervised("mirror", cwd=home) as service:
        await service.until(lambda said: "1 owed" in said.get("STATUS", "") and "next poll" in said["STATUS"])
        told = json.loads((await arun("status", "--json", cwd=home)).stdout)
        assert told["live"]["phase"] == "waiting"
        assert told["live"]["lag_serials"] == told["lag"] > 0
        assert told["live"]["lag_seconds"] >= 0
        assert "next poll in" in (await arun("status", cwd=home)).stdout
        assert await service.stop() == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "unix"])
async def test_a_running_daemon_is_asked(home: Path, address: str) -> None:
    text = (home / "heliostat.toml").read_text()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address.strip("[]") if address != "unix" else "127.0.0.1", 0))
        where = f"unix:{home}/http.sock" if address == "unix" else f"{address}:{probe.getsockname()[1]}"
    (home / "heliostat.toml").write_text(f'{text}[service]\nlisten = ["unix:{home}/nobody.sock", "{where}"]\n')
    (home / "daemon.toml").write_text(f'{text}[service]\nlisten = "{where}"\n')
    async with supervised("mirror", "--config", str(home / "daemon.toml"), cwd=home) as service:
        await service.until(lambda said: "1 owed" in said.get("STATUS", "") and "next poll" in said["STATUS"])
        told = json.loads((await arun("status", "--json", cwd=home)).stdout)
        plain = (await arun("status", cwd=home)).stdout
        (home / "other").mkdir()
        (home / "other/heliostat.db").hardlink_to(home / "pypi/heliostat.db")  # of another mirror, with its own lock
        with hold_lock(str(home / "other/.lock")):
            text = (home / "heliostat.toml").read_text().replace('directory = "pypi"', 'directory = "other"')
            (home / "other.toml").write_text(text)
            other = json.loads((await arun("status", "--json", "--config", "other.toml", cwd=home)).stdout)
        assert await service.stop() == 0
    assert told["live"]["phase"] == "waiting"
    assert told["last_poll"] >= told["live"]["answered"] <= told["upstream_seen"]  # the ledger may know an older one
    assert told["live"]["last"]["added"] == 0
    assert re.search(
        rf"^running +process {service.process.pid} for .*, heliostat \S+: next poll in ", plain, re.MULTILINE
    )
    assert re.search(r"^last pass +incomplete .* ago: 0 added", plain, re.MULTILINE)
    assert other["running"] is not None
    assert other["live"] is None  # it was not that one's daemon that answered


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 503 No\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\nnonsense", b"HTTP/1.1 200 OK\r\n\r\n[1]"]
)
async def test_whoever_answers_nonsense_is_not_asked(home: Path, answer: bytes) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(say, home / "http.sock")
    text = (home / "heliostat.toml").read_text()
    (home / "heliostat.toml").write_text(f'{text}[service]\nlisten = "unix:{home}/http.sock"\n')
    with hold_lock(str(home / "pypi/.lock")):
        done = await arun("status", "--json", cwd=home)
    server.close()
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["live"] is None
    assert told["projects"] == 1


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
