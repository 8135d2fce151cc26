"""What is heavy is loaded by the commands that need it, and by no others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.fakeindex import Index
from support.cli import environment
from support.mirrors import following

#: Other people's packages, and modules of the standard library, that cost more than a few milliseconds.
HEAVY = {
    *("aiofiles", "aiohttp", "asyncio", "concurrent.futures", "defusedxml", "difflib", "filelock", "http.client"),
    *("importlib.resources", "jinja2", "logging", "msgspec", "packaging", "prometheus_client", "rich", "sqlite3"),
    *("ssl", "tomllib", "urllib.request", "uvloop", "xmlrpc"),
}
#: Ours that only a pass with something to do needs.
WORK = {f"heliostat.mirror.{part}" for part in ("doomed", "download", "files", "project", "publish", "rebuild")}
CONFIGURATION = {"msgspec", "tomllib"}
_TELLING = """
import sys
from heliostat.cli.main import main
code = main(sys.argv[1:])
with open("modules", "w") as file:
    file.write(chr(10).join(sys.modules))
sys.exit(code)
"""


def loaded(*arguments: str, cwd: Path) -> set[str]:
    """What of HEAVY and WORK a command line has loaded when it has ended well."""
    subprocess.run(
        [sys.executable, "-c", _TELLING, *arguments],
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=120,
    )
    return set((cwd / "modules").read_text().splitlines()) & (HEAVY | WORK)


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["mirror", "--help"], ["status", "--help"], ["stats", "--help"], ["demo", "--help"]],
    ids=" ".join,
)
def test_version_and_help_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded(*arguments, cwd=tmp_path) == set()


async def test_each_command_loads_what_it_needs(tmp_path: Path) -> None:
    index = Index()
    index.create("demo")
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "mirror"\neverything = true\nmin-free = "0%"\n'
            f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
        )
        assert loaded("config", "check", cwd=tmp_path) == CONFIGURATION
        assert loaded("status", cwd=tmp_path) == CONFIGURATION | {"sqlite3"}
        assert loaded("changes", cwd=tmp_path) == CONFIGURATION
        assert loaded("config", "init", "-", cwd=tmp_path) == {"importlib.resources"}


async def test_a_daemon_that_nobody_asks_loads_no_server_and_no_metrics(tmp_path: Path) -> None:
    index = Index()
    index.create("demo")
    async with following(index, tmp_path / "mirror") as one:
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "mirror"\neverything = true\nmin-free = "0%"\n'
            f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
        )
        reached = one.server.seen("/simple/demo/")
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _TELLING, "mirror", cwd=tmp_path, env=environment(tmp_path),
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(60):
            await reached
            daemon.terminate()
            assert await daemon.wait() == 0
    found = set((tmp_path / "modules").read_text().splitlines())
    assert "heliostat.service.daemon" in found
    assert not found & {"prometheus_client", "aiohttp.web_server", "heliostat.service.endpoint"}


async def test_a_poll_that_finds_nothing_loads_nothing_for_work(tmp_path: Path) -> None:
    index = Index()
    index.create("demo")
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "mirror"\neverything = true\nmin-free = "0%"\n'
            f'[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
        )
        found = await asyncio.to_thread(loaded, "mirror", "--once", cwd=tmp_path)
        assert "aiohttp" in found
        assert not found & (
            WORK | {"aiofiles", "difflib", "importlib.resources", "jinja2", "prometheus_client", "rich"}
        )
