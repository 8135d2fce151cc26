"""Log lines of real processes: where they go, in which form, how many, and what is never in them."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Status
from support.cli import arun, command, environment, finish, run, start

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in ("alpha", "beta", "gamma"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.tar.gz", name.encode()))
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    (tmp_path / "pypi").mkdir()
    configure(tmp_path, upstream.url)
    return tmp_path


def configure(home: Path, url: str, *, form: str = "auto") -> None:
    (home / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\neverything = true\ninterval = 1\nretry-first = 1000\nretry-most = 1000\n'
        f'[upstream]\nurl = "{url}"\nallow-http = true\nretries = 1\n[logging]\nformat = "{form}"\n'
    )


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_line_a_project_and_a_line_a_pass(home: Path, upstream: FakeIndex) -> None:
    process = await start("mirror", cwd=home)
    assert process.stderr is not None
    lines: list[str] = []
    while not any(line.startswith("complete to serial") for line in lines):
        lines.append(re.sub(STAMP, "", (await process.stderr.readline()).decode()))
    polled = upstream.seen("/pypi", 3)  # idle polls say nothing
    await polled
    process.send_signal(signal.SIGTERM)
    lines += [re.sub(STAMP, "", line) for line in (await finish(process)).stderr.splitlines()]
    assert sorted(line.partition(",")[0] for line in lines if ": published" in line) == [
        "alpha: published",
        "beta: published",
        "gamma: published",
    ]
    assert len([line for line in lines if line.startswith("complete to serial")]) == 1
    assert len(set(lines)) == len(lines)


async def test_json_lines(home: Path, upstream: FakeIndex) -> None:
    upstream.fault("/simple/beta/", Status(500))
    done = await arun("mirror", "--once", "--log-format", "json", cwd=home)
    assert done.returncode == 3
    lines = objects(done.stderr)
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning")
        assert line["logger"].startswith("heliostat.")
    (alpha,) = (line for line in lines if line.get("project") == "alpha")
    assert alpha["message"] == f"alpha: published, serial {alpha['serial']}"
    assert alpha["event"] == "published"
    (beta,) = (line for line in lines if line.get("project") == "beta")
    assert (beta["level"], beta["event"]) == ("warning", "failed")


async def test_a_pass_of_the_daemon_has_fields(home: Path, upstream: FakeIndex) -> None:
    configure(home, upstream.url, form="json")
    process = await start("mirror", cwd=home)
    assert process.stderr is not None
    line: dict[str, Any] = {}
    while line.get("event") != "pass":
        line = json.loads(await process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    objects((await finish(process)).stderr)
    assert (line["complete"], line["added"], line["checkpoint"]) == (True, 3, upstream.index.serial)
    assert line["message"].startswith("complete to serial")


async def test_an_error_is_a_line_of_the_same_form(home: Path) -> None:
    configure(home, "https://127.0.0.1:1", form="json")
    (home / "pypi").rmdir()
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 6
    (line,) = objects(done.stderr)
    assert line["level"] == "error"
    assert "no such directory" in line["message"]


def test_the_option_goes_before_the_configuration(home: Path) -> None:
    configure(home, "https://127.0.0.1:1", form="json")
    (home / "pypi").rmdir()
    done = run("--log-format", "journal", "mirror", "--once", cwd=home)
    assert done.stderr.startswith("<3>heliostat: ")


def test_an_unknown_form_is_refused(home: Path) -> None:
    done = run("mirror", "--log-format", "xml", cwd=home)
    assert done.returncode == 2
    assert "'xml' is not one of" in done.stderr
    configure(home, "https://127.0.0.1:1", form="xml")
    done = run("config", "check", cwd=home)
    assert done.returncode == 2
    assert '[logging] format: is none of "auto", "text", "journal", "json"' in done.stderr


@pytest.mark.parametrize("stream", ["0:0", "nonsense", ":", "8:x", "1:2:3"])
async def test_another_journal_stream_than_ours_is_text(home: Path, stream: str) -> None:
    done = await arun("mirror", "--once", cwd=home, env={"JOURNAL_STREAM": stream})
    assert done.returncode == 0
    assert done.stderr
    assert all(re.match(STAMP, line) for line in done.stderr.splitlines())


SECRET = "hunter2-s3cret"


@pytest.mark.parametrize("form", ["text", "json", "journal"])
async def test_credentials_are_in_no_line(home: Path, upstream: FakeIndex, form: str) -> None:
    upstream.fault("/simple/beta/", Status(500))
    url = upstream.url.replace("://", f"://mirror:{SECRET}@")
    configure(home, url, form=form)
    good = await arun("mirror", "--once", "--verbose", cwd=home)
    await upstream.refuse_connections()
    bad = await arun("mirror", "--once", "--verbose", cwd=home)
    assert (good.returncode, bad.returncode) == (3, 5)
    for done in (good, bad):
        assert done.stderr
        assert SECRET not in done.stderr + done.stdout


LEAKING = f"""
import logging
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
for form in ("text", "json", "journal"):
    set_up_logging(Options(log_format=form))
    try:
        raise ValueError("cannot open https://me:{SECRET}@index.example/simple/")
    except ValueError:
        logging.getLogger("aiohttp").exception("at %s", "http://me:{SECRET}@index.example:8080/?x=a@b")
"""


def test_whoever_logs_a_url_its_credentials_stay_here(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKING], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert SECRET not in done.stderr
    assert done.stderr.count("https://index.example/simple/") >= 3
    assert done.stderr.count("at http://index.example:8080/?x=a@b") == 3
    journal = done.stderr[done.stderr.index("<3>") :].splitlines()
    assert len(journal) > 3
    assert all(line.startswith("<3>") for line in journal)  # each line of a traceback


def test_a_line_has_no_control_characters(tmp_path: Path) -> None:
    script = """
import logging
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
for form in ("text", "json", "journal"):
    set_up_logging(Options(log_format=form))
    logging.getLogger("heliostat").info("%s", "a\\n<0>forged\\x1b[31m\\u2028")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    text, machine, journal = done.stderr.splitlines()
    assert text.endswith("a\\n<0>forged\\x1b[31m\\u2028")
    assert json.loads(machine)["message"] == "a\n<0>forged\x1b[31m\u2028"
    assert journal == "<6>a\\n<0>forged\\x1b[31m\\u2028"


async def test_a_daemon_on_a_terminal_says_the_time_of_day(home: Path, upstream: FakeIndex) -> None:
    terminal, end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command("mirror", "--no-progress"),
        cwd=home,
        env=environment(home, TERM="xterm"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=end,
    )
    os.close(end)
    shown = b""
    while b"complete to serial" not in shown:
        shown += await asyncio.to_thread(os.read, terminal, 4096)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    os.close(terminal)
    assert re.search(rb"^\d\d:\d\d:\d\d \w+: published, serial \d+\r\n", shown, re.MULTILINE)


def test_nothing_is_made_of_what_is_not_logged(tmp_path: Path) -> None:
    """Under --quiet a published project costs no record: nothing is formatted, nothing is built."""
    script = """
import logging
from heliostat.cli.logging_setup import set_up_logging
from heliostat.cli.options import Options
from heliostat.mirror.news import published
class Never:
    def __str__(self):
        raise AssertionError("formatted")
    __repr__ = __format__ = __str__
made = []
logging.setLogRecordFactory(lambda *a, **k: made.append(a) or logging.LogRecord(*a, **k))
set_up_logging(Options(quiet=True))
published(Never(), Never())
assert made == []
set_up_logging(Options())
published("alpha", 7)
assert len(made) == 1
"""
    subprocess.run([sys.executable, "-c", script], env=environment(tmp_path), check=True)
