"""``heliostat delete``, ``restore`` and ``removals`` as processes, alone and beside a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Hang, Status
from support.cli import arun, command, environment
from support.daemon_process import PATIENCE, configure, daemon_process, until
from support.equality import differences
from support.equality_removed import Removed

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in NAMES:
        for version in ("1.0", "2.0"):
            publish(index, name, version)
    async with FakeIndex(index) as server:
        yield server


def publish(index: Index, name: str, version: str) -> None:
    index.publish(name, version, UploadedFile(f"{name}-{version}.tar.gz", Virtual(1000, len(name + version))))


def shown(home: Path) -> set[str]:
    return {path.name for path in (home / "pypi/web/simple").iterdir() if path.is_dir()}


async def mirrored(home: Path, upstream: FakeIndex, more: str = "") -> None:
    configure(home, upstream.url, mirror=more)
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, done.stderr


async def test_deleted_listed_and_restored(tmp_path: Path, upstream: FakeIndex) -> None:
    await mirrored(tmp_path, upstream)
    done = await arun("delete", "Alpha", "beta==1.0", "--reason", "trojan\nhorse", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "alpha: deleted, and kept out" in done.stdout
    removed = Removed(denied=["alpha", "beta==1.0"])
    assert differences(upstream.index, tmp_path / "pypi", removed=removed) == []
    listed = await arun("delete", "--list", cwd=tmp_path)
    assert "alpha" in listed.stdout
    assert "trojan horse" in listed.stdout
    rows = json.loads((await arun("delete", "--list", "--json", cwd=tmp_path)).stdout)["denied"]
    assert [(row["entry"], row["origin"], row["reason"]) for row in rows] == [
        ("alpha", "operator", "trojan horse"),
        ("beta==1.0", "operator", "trojan horse"),
    ]
    status = json.loads((await arun("status", "--json", cwd=tmp_path)).stdout)
    assert status["deleted"] == {"alpha": "trojan horse", "beta==1.0": "trojan horse"}
    assert "alpha, beta==1.0" in (await arun("status", cwd=tmp_path)).stdout
    stones = [json.loads(line) for line in (await arun("removals", "--json", cwd=tmp_path)).stdout.splitlines()]
    assert {(stone["project"], stone["what"]) for stone in stones} == {("alpha", "removed"), ("beta", "removed")}
    assert (await arun("mirror", "alpha", cwd=tmp_path)).returncode == 2
    back = await arun("restore", "alpha", "beta==1.0", "--json", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["complete"] is True
    assert differences(upstream.index, tmp_path / "pypi") == []


async def test_since_when_and_what(tmp_path: Path, upstream: FakeIndex) -> None:
    await mirrored(tmp_path, upstream)
    assert (await arun("removals", cwd=tmp_path)).stdout == ""
    before = upstream.index.serial
    upstream.index.remove_project("alpha")
    await arun("mirror", "--once", cwd=tmp_path)
    middle = upstream.index.serial
    upstream.index.remove_release("beta", "1.0")
    await arun("mirror", "--once", cwd=tmp_path)

    async def lines(*arguments: str) -> list[str]:
        done = await arun("removals", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert len(await lines()) == len(await lines("--since", str(before))) == 2
    [line] = await lines("--since", str(middle))
    assert "beta packages/" in line
    assert line.endswith("beta-1.0.tar.gz: no longer listed upstream")
    assert len(await lines("alpha")) == 1
    assert await lines("--since", "2099-01-01") == []
    assert len(await lines("--since", "2020-01-01")) == 2
    assert await lines("--what", "withheld") == []
    assert (await arun("removals", "--since", "yesterday", cwd=tmp_path)).returncode == 2


async def test_what_is_wrong_is_said(tmp_path: Path, upstream: FakeIndex) -> None:
    await mirrored(tmp_path, upstream)
    for arguments in (
        ["delete"],
        ["delete", "a b"],
        ["delete", "alpha==1/2"],
        ["restore"],
        ["delete", "--list", "alpha"],
    ):
        done = await arun(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    done = await arun("restore", "alpha==1.0", cwd=tmp_path)
    assert done.returncode == 3
    assert "nothing of it is kept" in done.stdout
    upstream.fault("*", Status(503))
    await arun("delete", "alpha", cwd=tmp_path)
    assert (await arun("restore", "alpha", cwd=tmp_path)).returncode in (3, 5)


async def test_much_of_the_mirror_is_asked_for(tmp_path: Path, upstream: FakeIndex) -> None:
    await mirrored(tmp_path, upstream)
    done = await arun("delete", *NAMES[:4], cwd=tmp_path)
    assert done.returncode == 7
    assert "4 projects of 5" in done.stderr
    assert len(shown(tmp_path)) == 5
    for answer, code, left in ((b"n\n", 7, 5), (b"y\n", 0, 1)):
        master, terminal = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *command("delete", *NAMES[:4]), cwd=tmp_path, env=environment(tmp_path),
                stdin=terminal, stderr=terminal, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            os.write(master, answer)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == code
        finally:
            os.close(master)
            os.close(terminal)
        assert len(shown(tmp_path)) == left
    assert (await arun("delete", "epsilon", "--yes", cwd=tmp_path)).returncode == 0
    assert shown(tmp_path) == set()


async def test_before_the_first_run(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url)
    done = await arun("delete", "alpha", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not in this mirror" in done.stdout
    await arun("mirror", "--once", cwd=tmp_path)
    assert shown(tmp_path) == {*NAMES} - {"alpha"}


async def test_the_daemon_does_it_between_two_passes(tmp_path: Path, upstream: FakeIndex) -> None:
    configure(tmp_path, upstream.url, mirror='[removal]\npolicy = "withhold"')
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting" and it["passes"])
        done = await arun("delete", "alpha", "beta==1.0", "--reason", "bad", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr + daemon.log
        assert json.loads(done.stdout)["entries"] == {"alpha": "deleted", "beta==1.0": "deleted"}
        assert shown(tmp_path) == {*NAMES} - {"alpha"}
        refused = await arun("mirror", "alpha", cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        publish(upstream.index, "alpha", "3.0")
        assert (await arun("mirror", "--once", cwd=tmp_path)).returncode == 0
        assert shown(tmp_path) == {*NAMES} - {"alpha"}
        upstream.reset_log()
        back = await arun("restore", "alpha", "beta==1.0", cwd=tmp_path)
        assert back.returncode == 0, back.stdout + back.stderr + daemon.log
        assert upstream.count("*alpha-1.0.tar.gz") == upstream.count("*beta-1.0.tar.gz") == 0
        assert differences(upstream.index, tmp_path / "pypi") == []
        await daemon.stop()


async def test_a_pass_that_hangs_makes_way(tmp_path: Path, upstream: FakeIndex) -> None:
    upstream.fault("/packages/*/gamma-*", Hang())
    reached = upstream.seen("/packages/*/gamma-*")
    configure(tmp_path, upstream.url)
    async with daemon_process(tmp_path) as daemon:
        async with asyncio.timeout(PATIENCE):
            await reached
            await daemon.says(lambda _: (tmp_path / "pypi/web/simple/alpha").exists())
        done = await arun("delete", "alpha", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr + daemon.log
        assert not (tmp_path / "pypi/web/simple/alpha").exists()
        upstream.clear_faults()
        await daemon.says(lambda _: (tmp_path / "pypi/web/simple/gamma/index.html").exists())
        assert not (tmp_path / "pypi/web/simple/alpha").exists()
        await daemon.stop()


async def test_while_upstream_is_away(tmp_path: Path, upstream: FakeIndex) -> None:
    """It asked for half an hour of peace: nobody waits for that."""
    await mirrored(tmp_path, upstream)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting" and it["passes"])
        upstream.fault("*", Status(503, retry_after=1800))
        upstream.reset_log()
        daemon.poke()
        await until(lambda: upstream.count("*"))
        done = await arun("delete", "alpha", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr + daemon.log
        assert shown(tmp_path) == {*NAMES} - {"alpha"}
        await daemon.stop()
