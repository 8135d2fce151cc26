"""``configs/heliostat.cron``: its line as cron runs it, in any locale, and when no mail is to come."""

import asyncio
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Hang, Status
from support.cli import SOURCE, finish, start
from support.equality import differences
from support.small_index import mirror_home

CRONTAB = Path(__file__).parents[2] / "configs" / "heliostat.cron"
NAME = "ünïcode-1.0-日本語.tar.gz"

#: What cron sets; nothing says anything about a locale.
CRON = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "LOGNAME": "heliostat"}
LOCALES = [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("unicode", "1.0", UploadedFile(NAME, b"any bytes"))
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    return mirror_home(tmp_path, upstream, limits="retries = 1")


def line() -> tuple[list[str], str, str]:
    """The five fields, the user and the command of the only line that is one."""
    (found,) = (text for text in CRONTAB.read_text().splitlines() if text[:1].isdigit() or text[:1] == "*")
    *when, user, command = found.split(None, 6)
    return when, user, command


async def cron(home: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Runs the command as cron does; its exit code, and what would be mailed."""
    _, _, command = line()
    for old, new in (
        ("/opt/heliostat/bin/heliostat", shlex.join([sys.executable, "-m", "heliostat"])),
        ("/etc/heliostat/heliostat.toml", shlex.quote(str(home / "heliostat.toml"))),
        ("/etc/heliostat/environment", shlex.quote(str(home / "environment"))),
    ):
        assert old in command
        command = command.replace(old, new)
    process = await asyncio.create_subprocess_exec(
        CRON["SHELL"],
        "-c",
        command,
        cwd="/",
        env={**CRON, "HOME": str(home), "PYTHONPATH": SOURCE, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        umask=0o077,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def test_the_line_is_one_for_cron() -> None:
    when, user, command = line()
    assert user == "heliostat"
    assert all(re.fullmatch(r"[0-9*/,-]+", field) for field in when)
    assert "%" not in command  # would be a line break
    assert CRONTAB.read_bytes().endswith(b"\n")
    settings = dict(re.findall(r"^([A-Z]+)=(.*)$", CRONTAB.read_text(), re.MULTILINE))
    assert settings["SHELL"] == CRON["SHELL"]
    assert subprocess.run(["/bin/sh", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize("environ", LOCALES, ids=["nothing", "C", "ASCII"])
async def test_all_is_well_and_nothing_is_mailed(home: Path, upstream: FakeIndex, environ: dict[str, str]) -> None:
    assert await cron(home, environ) == (0, "")
    assert differences(upstream.index, home / "pypi") == []
    found = [name for _, _, files in os.walk(os.fsencode(home / "pypi/web/packages")) for name in files]
    assert found == [NAME.encode()]
    assert stat.S_IMODE((home / "pypi/web/simple/index.html").stat().st_mode) == 0o644
    assert await cron(home, environ) == (0, "")


async def test_secrets_are_read_from_their_file(home: Path, upstream: FakeIndex) -> None:
    file = home / "heliostat.toml"
    file.write_text(file.read_text().replace("http://", "http://mirror:${INDEX_PASSWORD}@"))
    code, mail = await cron(home, {})
    assert (code, "INDEX_PASSWORD is not set" in mail) == (2, True)
    (home / "environment").write_text("# secrets\nINDEX_PASSWORD='a$c%25'\n")
    assert await cron(home, {}) == (0, "")
    assert differences(upstream.index, home / "pypi") == []


async def test_another_run_holds_the_lock_and_nothing_is_mailed(home: Path, upstream: FakeIndex) -> None:
    hanging = upstream.fault("/packages/*", Hang())
    reached = upstream.seen("/packages/*")
    process = await start("mirror", "--once", cwd=home)
    await reached
    assert await cron(home, {}) == (4, "")
    hanging.remove()
    assert (await finish(process)).returncode == 0


@pytest.mark.parametrize("environ", LOCALES, ids=["nothing", "C", "ASCII"])
async def test_something_is_wrong_and_it_is_mailed(home: Path, upstream: FakeIndex, environ: dict[str, str]) -> None:
    upstream.fault("/packages/*", Status(500))
    code, mail = await cron(home, environ)
    assert code == 3
    assert "unicode  failing: " in mail
    (home / "heliostat.toml").write_text("[mirror]\n")
    code, mail = await cron(home, environ)
    assert code == 2
    assert "[mirror] directory: missing" in mail
