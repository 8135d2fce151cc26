"""What docs/push.md shows, run as it stands there, with curl, openssl and rsync."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex
from support.cli import SOURCE
from support.daemon_process import configure, daemon_process, until
from support.equality import differences
from support.small_index import publish, serving
from support.supervisor import REPOSITORY

pytestmark = pytest.mark.outside

DOCS = REPOSITORY / "docs/push.md"
SECRET = "0123456789abcdef with spaces & $signs"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    async with serving("alpha", "requests") as server:
        yield server


def snippets(text: str, kind: str = "sh") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def shell(script: str, **variables: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", script, env={"PATH": os.environ["PATH"], **variables},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_ping_by_curl(tmp_path: Path, upstream: FakeIndex) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    (script,) = snippets(DOCS.read_text(encoding="utf-8"))
    script = script.replace("127.0.0.1:9750", address)
    configure(tmp_path, upstream.url, push=f'secret = "{SECRET}"', address=address)
    async with daemon_process(tmp_path) as daemon:
        assert await shell(script, HELIOSTAT_PING_SECRET=SECRET) == (0, "a poll begins at once\n")
        code, text = await shell(script, HELIOSTAT_PING_SECRET="another secret, long enough")
        assert code != 0
        assert "does not fit" in text
        await daemon.stop()


async def test_the_script_for_a_region_site_is_a_hook(tmp_path: Path, upstream: FakeIndex) -> None:
    site, state, program = tmp_path / "site", tmp_path / "notes", tmp_path / "bin/heliostat"
    for folder in (site, state, program.parent):
        folder.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -m heliostat "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "to-the-edge"
    text = (REPOSITORY / "docs/change-feed.md").read_text(encoding="utf-8")
    script.write_text(snippets(text)[0])
    shown = tomllib.loads(snippets(DOCS.read_text(encoding="utf-8"), "toml")[-1])["push"]["hook"]
    for old, new in {
        "/srv/pypi/edge": str(state), "mirror@edge.example:/srv/pypi": str(site), "=/srv/pypi": f"={tmp_path}/pypi",
        "/opt/heliostat/bin": str(program.parent), "/usr/local/lib/to-the-edge": str(script),
    }.items():  # fmt: skip
        assert any(old in word for word in shown), old
        shown = [word.replace(old, new) for word in shown]
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:  # what is there before there is a hook
        await until((tmp_path / "pypi/web/simple/requests/index.html").exists, tell=lambda: daemon.log)
        await daemon.stop()
    configure(tmp_path, upstream.url, push=f"hook = {json.dumps(shown)}")
    async with daemon_process(tmp_path) as daemon:

        async def copied() -> None:
            await until(
                lambda: not differences(upstream.index, site),
                tell=lambda: (daemon.log, differences(upstream.index, site)),
            )

        await copied()
        publish(upstream.index, "requests", "2.0")
        publish(upstream.index, "gamma")
        daemon.poke()
        await copied()
        upstream.index.remove_release("requests", "1.0")
        upstream.index.remove_project("alpha")
        daemon.poke()
        await copied()
        await daemon.says(lambda it: it["pushing"]["hook"]["trouble"] is None and not it["pushing"]["running"])
        await daemon.stop()
