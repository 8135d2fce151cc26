"""The scrub, and repairs that are handed over, as an operator meets them: real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Hang, Status
from heliostat.mirror.lock import hold_lock
from support.cli import arun, finish, start
from support.control import connection
from support.daemon_process import configure, daemon_process, status_of, until
from support.equality import differences

SCRUB = "[scrub]\nenabled = true\n"
NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in NAMES:
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", os.urandom(5000)))
    async with FakeIndex(index) as server:
        yield server


def file_of(home: Path, name: str) -> Path:
    """Where the only file of a project lies."""
    (found,) = (home / "pypi/web/packages").rglob(f"{name}-1.0.zip")
    return found


def spoil(path: Path) -> None:
    """Other bytes, the same size."""
    path.write_bytes(b"x" * path.stat().st_size)


async def synced(home: Path, upstream: FakeIndex, more: str = "") -> None:
    configure(home, upstream.url, push=more)
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, done.stderr


# --- scrub -------------------------------------------------------------------------------------------------------


async def test_a_damaged_file_is_found_and_repaired(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream, SCRUB)
    spoil(file_of(tmp_path, "alpha"))
    async with daemon_process(tmp_path) as daemon:
        told = await daemon.says(lambda it: it["scrub"] and it["scrub"]["repaired"])
        assert told["scrub"]["found"] == {"digest": 1}
        assert told["scrub"]["unrepaired"] == 0
        assert await daemon.logged(r"scrub: .*alpha-1\.0\.zip \(alpha\): its sha256 is")
        shown = await status_of(tmp_path)
        assert shown["live"]["scrub"]["repaired"] == 1
        words = await arun("status", cwd=tmp_path)
        assert re.search(r"checked\W+not everything yet, \d+% in this round; 1 finding, 1 repaired", words.stdout)
        await daemon.stop()
    assert differences(upstream.index, tmp_path / "pypi") == []


async def test_a_restart_goes_on_with_the_round(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream, SCRUB)
    began = []
    for ended in ("stop", "kill", "stop"):
        async with daemon_process(tmp_path) as daemon:
            # Nothing is due after the first project for days.
            told = await daemon.says(lambda it: it["scrub"] and it["scrub"]["round_began"] and it["phase"] == "waiting")
            began.append(told["scrub"]["round_began"])
            if ended == "stop":
                await daemon.says(lambda it: it["scrub"]["share"] > 0)
                await daemon.stop()
            else:
                assert told["scrub"]["projects"] == 0
                assert told["scrub"]["share"] > 0
                await daemon.kill()
    assert len(set(began)) == 1


async def test_it_ends_at_once_while_it_reads_slowly_and_a_reload_changes_its_pace(
    tmp_path: Path, upstream: FakeIndex
) -> None:
    slow = f'{SCRUB}bytes-per-second = "1KiB"\n'
    await synced(tmp_path, upstream, slow)
    path = tmp_path / "heliostat.toml"
    text = path.read_text()
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["scrub"] and it["scrub"]["bytes"] > 1000)
        await daemon.stop()
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["scrub"] and it["scrub"]["bytes"] > 1000)
        path.write_text(text.replace("enabled = true", "enabled = false"))
        assert (await arun("reload", cwd=tmp_path)).returncode == 0
        await daemon.says(lambda it: it["scrub"] is None)
        path.write_text(text)
        assert (await arun("reload", cwd=tmp_path)).returncode == 0
        await daemon.says(lambda it: it["scrub"] and it["scrub"]["bytes"] > 1000)
        path.write_text(text.replace("1KiB", "100MB"))
        assert (await arun("reload", cwd=tmp_path)).returncode == 0
        await daemon.says(lambda it: it["scrub"] and it["scrub"]["projects"] == 1)
        await daemon.stop()


# --- repairs that are handed over --------------------------------------------------------------------------------


async def test_the_daemon_repairs_what_verify_found(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        spoil(file_of(tmp_path, "alpha"))
        file_of(tmp_path, "beta").unlink()
        web = tmp_path / "pypi/web"
        (web / "simple/gamma/index.html").unlink()
        (web / "simple/index.v1_json").unlink()
        (web / "json").chmod(0o700)
        (web / "packages/aa").mkdir(exist_ok=True)
        (web / "packages/aa/nobodys.zip").write_bytes(b"x")
        done = await arun("verify", "--repair", "--json", cwd=tmp_path)
        told = json.loads(done.stdout)
        assert done.returncode == 3, done.stderr + daemon.log
        left = [one["path"] for one in told["findings"] if not one["repaired"]]
        assert left == ["web/packages/aa/nobodys.zip"]
        assert told["repair"]["fixed"] == len(told["findings"]) - 1
        words = await arun("verify", "--delete-unreferenced", cwd=tmp_path)
        assert words.returncode == 0, words.stdout + words.stderr
        assert not (web / "packages/aa/nobodys.zip").exists()
        assert differences(upstream.index, tmp_path / "pypi") == []
        file = file_of(tmp_path, "alpha")
        aside = tmp_path / "pypi/withheld/damaged" / file.relative_to(web)
        aside.parent.mkdir(parents=True)
        aside.write_bytes(b"an earlier repair could not replace it, and a pass did")
        whole = await arun("verify", "--repair", cwd=tmp_path)
        assert not aside.exists()
        assert whole.returncode == 0
        await daemon.stop()


async def test_an_implausible_share_waits_for_approval(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    folder = tmp_path / "pypi/web/packages/aa"
    folder.mkdir(exist_ok=True)
    for number in range(5):
        (folder / f"{number}.zip").write_bytes(b"x")
    async with daemon_process(tmp_path) as daemon:
        held = await arun("verify", "--delete-unreferenced", cwd=tmp_path)
        assert held.returncode == 7, held.stdout + held.stderr
        assert len(list(folder.glob("*.zip"))) == 5
        done = await arun("verify", "--delete-unreferenced", "--allow-removals", "5", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(folder.glob("*.zip"))
        await daemon.stop()


async def test_upstream_that_is_away_is_told(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        spoil(file_of(tmp_path, "alpha"))
        upstream.fault("/*", Status(503))
        done = await arun("verify", "--repair", cwd=tmp_path)
        assert done.returncode == 5, done.stdout + done.stderr
        assert "alpha-1.0.zip" in done.stdout
        upstream.clear_faults()
        await daemon.stop()


async def test_a_lock_that_no_daemon_holds_is_told_before_anything_is_read(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    with hold_lock(str(tmp_path / "pypi/.lock")):
        done = await arun("verify", "--repair", cwd=tmp_path)
    assert done.returncode == 4
    assert "repairs need the lock" in done.stderr
    assert done.stdout == ""


async def test_a_signal_leaves_the_daemon_at_work(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    async with daemon_process(tmp_path) as daemon:
        await daemon.says(lambda it: it["phase"] == "waiting")
        spoil(file_of(tmp_path, "alpha"))
        fault = upstream.fault("/packages/*", Hang())
        process = await start("verify", "--repair", cwd=tmp_path)
        await until(lambda: fault.fired)
        process.send_signal(signal.SIGTERM)
        assert (await finish(process)).returncode == 143
        fault.release()
        await until(lambda: differences(upstream.index, tmp_path / "pypi") == [])
        await daemon.stop()


async def test_what_is_no_finding_of_this_mirror_is_refused(tmp_path: Path, upstream: FakeIndex) -> None:
    await synced(tmp_path, upstream)
    (tmp_path / "outside").write_bytes(b"outside")
    one: dict[str, Any] = {"kind": "digest", "project": "alpha", "problem": "none"}
    bad = [
        {**one, "path": "web/../../outside"}, {**one, "path": "/etc/passwd"}, {**one, "path": "partial/x"},
        {**one, "path": "web/x", "raw": "zz"}, {**one, "path": "web/x", "raw": "7765622f2e2e2f78"},
        {**one, "path": "web/a\0b"}, {**one, "path": "web/x", "kind": "nonsense"}, {"path": "web/x"},
    ]  # fmt: skip
    async with daemon_process(tmp_path) as daemon:
        for item in bad:
            async with connection(tmp_path / "pypi/control.sock") as client:
                client.ask("repair", findings=[item])
                *_, last = await client.lines()
                assert last["say"] == "failed", item
                assert "Refused" in last["kinds"]
        await daemon.stop()
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert differences(upstream.index, tmp_path / "pypi") == []


async def test_beside_publishing_both_repair_and_removal_leave_all_as_it_should_be(
    tmp_path: Path, upstream: FakeIndex
) -> None:
    await synced(tmp_path, upstream, SCRUB)
    async with daemon_process(tmp_path) as daemon:
        busy = True

        async def publish() -> None:
            number = 0
            while busy:
                number += 1
                name = NAMES[number % 3]
                upstream.index.publish(name, f"2.{number}", UploadedFile(f"{name}-2.{number}.zip", os.urandom(900)))
                daemon.poke()
                await asyncio.sleep(0.5)

        publishing = asyncio.create_task(publish())
        try:
            spoil(file_of(tmp_path, "beta"))
            file_of(tmp_path, "gamma").unlink()
            (tmp_path / "pypi/web/packages/stray.zip").write_bytes(b"x")
            done = await arun("verify", "--repair", "--delete-unreferenced", cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr + daemon.log
        finally:
            busy = False
            await publishing
        daemon.poke()
        await until(lambda: differences(upstream.index, tmp_path / "pypi") == [], tell=lambda: daemon.log)
        await daemon.stop()
