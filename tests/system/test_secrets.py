"""A configuration whose secrets are variables of the environment, and commands that are run without them."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, UploadedFile
from support.cli import SOURCE, arun
from support.daemon_process import configure, daemon_process, until
from support.small_index import serving

DOCS = Path(__file__).parents[2] / "docs"
SECRETS = {"INDEX_PASSWORD": "correct-horse", "PING_SECRET": "battery-staple-battery"}
WRONG = "[upstream] url: the environment variable INDEX_PASSWORD is not set"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "beta") as server:
        yield server


def configured(home: Path, upstream: FakeIndex, push: str = "") -> None:
    url = upstream.url.replace("http://", "http://mirror:${INDEX_PASSWORD}@")
    configure(home, url, push=f'secret = "${{PING_SECRET}}"\n{push}')


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"], ["reload"], ["changes"], ["removals"], ["mirror", "alpha"], ["mirror", "--once"],
        ["delete", "--yes", "beta"], ["delete", "--list"], ["verify"], ["stats"],
    ],
    ids=" ".join,
)  # fmt: skip
async def test_beside_a_daemon_no_secret_is_needed(tmp_path: Path, upstream: FakeIndex, arguments: list[str]) -> None:
    configured(tmp_path, upstream)
    (tmp_path / "access.log").touch()
    with (tmp_path / "heliostat.toml").open("a") as file:
        file.write('[stats]\nlogs = ["access.log"]\n')
    async with daemon_process(tmp_path, env=SECRETS) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        done = await arun(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not set" not in done.stdout + done.stderr
        await daemon.stop()


@pytest.mark.parametrize(
    "arguments",
    [["mirror"], ["mirror", "--once"], ["mirror", "alpha"], ["mirror", "--dry-run"], ["verify", "--against=upstream"]],
    ids=" ".join,
)
async def test_what_asks_upstream_names_the_variable(tmp_path: Path, upstream: FakeIndex, arguments: list[str]) -> None:
    configured(tmp_path, upstream)
    assert (await arun("mirror", "--once", cwd=tmp_path, env=SECRETS)).returncode == 0
    upstream.reset_log()
    done = await arun(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert WRONG in done.stderr
    assert upstream.count("*") == 0


async def test_the_check_warns(tmp_path: Path, upstream: FakeIndex) -> None:
    configured(tmp_path, upstream)
    done = await arun("config", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"warning: {tmp_path}/heliostat.toml:" in done.stdout
    assert WRONG in done.stdout
    assert "[push] secret: the environment variable PING_SECRET is not set" in done.stdout
    told = json.loads((await arun("config", "check", "--json", cwd=tmp_path)).stdout)
    assert len(told["warnings"]) == 2
    assert told["upstream"] == upstream.url
    assert "warning" not in (await arun("config", "check", cwd=tmp_path, env=SECRETS)).stdout


async def test_a_whole_url_may_be_a_secret(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, "${INDEX_URL}")
    assert (await arun("mirror", "--once", cwd=tmp_path, env={"INDEX_URL": upstream.url})).returncode == 0
    status = await arun("status", cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert upstream.url in status.stdout
    assert "INDEX_URL is not set" in (await arun("mirror", "--once", cwd=tmp_path)).stderr


async def test_other_values_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectory = "${PLACE}/pypi"\neverything = true\n')
    done = await arun("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "[mirror] directory: the environment variable PLACE is not set" in done.stderr


async def test_the_documented_hook_needs_none(tmp_path: Path, upstream: FakeIndex) -> None:
    """docs/push.md's hook with the script of docs/change-feed.md; rsync is replaced by a copy of the tree."""
    script = (DOCS / "change-feed.md").read_text().split("```sh\n")[1].split("```")[0]
    assert "rsync -aH" in script
    (tmp_path / "to-the-edge").write_text(script)
    tools = tmp_path / "bin"
    tools.mkdir()
    copy = '#!/bin/sh\nmkdir -p "$SITE" && cp -R "$DIRECTORY/web" "$SITE/"\n'
    heliostat = f'#!/bin/sh\nPYTHONPATH={shlex.quote(SOURCE)} exec {shlex.quote(sys.executable)} -m heliostat "$@"\n'
    for name, text in (("rsync", copy), ("heliostat", heliostat)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "state").mkdir()
    words = [
        shutil.which("env"), f"DIRECTORY={tmp_path}/pypi", f"SITE={tmp_path}/edge", f"STATE={tmp_path}/state",
        f"PATH={tools}:/usr/bin:/bin", "sh", f"{tmp_path}/to-the-edge",
    ]  # fmt: skip
    configured(tmp_path, upstream, push=f"hook = {json.dumps(words)}")
    async with daemon_process(tmp_path, env=SECRETS) as daemon:
        note = tmp_path / "state" / "position"
        await until(note.exists, tell=lambda: daemon.log)
        assert (tmp_path / "edge/web/simple/alpha/index.html").exists()
        before = note.read_text()
        upstream.index.publish("gamma", "1.0", UploadedFile("gamma-1.0.tar.gz", b"gamma"))
        daemon.poke()
        await until(lambda: note.read_text() not in ("", before), tell=lambda: daemon.log)
        assert (tmp_path / "edge/web/simple/gamma/index.html").exists()
        await daemon.stop()
        assert "hook ended with exit code" not in daemon.log
        assert SECRETS["INDEX_PASSWORD"] not in daemon.log


async def test_a_whole_url_that_is_not_set_stops_no_work_without_upstream(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, "${INDEX_URL}")
    assert (await arun("mirror", "--once", cwd=tmp_path, env={"INDEX_URL": upstream.url})).returncode == 0
    for arguments in (["delete", "--yes", "beta"], ["rebuild"]):
        done = await arun(*arguments, cwd=tmp_path)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        assert "not set" not in done.stderr
    assert (await arun("restore", "beta", cwd=tmp_path)).returncode == 2
    assert (await arun("restore", "beta", cwd=tmp_path, env={"INDEX_URL": upstream.url})).returncode == 0
    assert (tmp_path / "pypi/web/simple/beta/index.html").exists()
