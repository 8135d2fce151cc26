"""The commands that need a mirror, as real processes against the fake index."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Hang, Status
from support.cli import arun, environment, finish, start

HEAD = '[mirror]\ndirectory = "pypi"\n'


def upload(index: Index, name: str, version: str, size: int = 1000) -> None:
    filename = f"{name.replace('-', '_')}-{version}.tar.gz"
    index.publish(name, version, UploadedFile(filename, f"{name} {version}".encode().ljust(size, b".")))


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    for name in ("alpha", "beta", "gamma"):
        upload(index, name, "1.0")
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    """A directory with a configuration that mirrors everything."""
    (tmp_path / "pypi").mkdir()
    configure(tmp_path, upstream.url)
    return tmp_path


def configure(home: Path, url: str, scope: str = "everything = true", more: str = "") -> None:
    text = f'{HEAD}{scope}\ninterval = 1\n[upstream]\nurl = "{url}"\nallow-http = true\nretries = 2\nretry-delay = 0.01\n{more}'
    (home / "heliostat.toml").write_text(text)


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object on standard output, which must be all there is."""
    loaded: dict[str, Any] = json.loads(done.stdout)
    assert loaded["exit_code"] == done.returncode, done.stderr
    return loaded


async def test_a_pass_ends_with_a_summary_and_0(home: Path) -> None:
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("complete: 3 projects added, 0 updated, 0 removed")
    again = result(await arun("mirror", "--once", "--json", cwd=home))
    assert (again["complete"], again["added"], again["projects"]) == (True, 0, 3)


async def test_quiet_says_nothing_when_all_is_well(home: Path) -> None:
    done = await arun("mirror", "--once", "--quiet", cwd=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_what_is_missing_is_listed_with_its_reason(home: Path, upstream: FakeIndex) -> None:
    upstream.fault("/simple/beta/", Status(500))
    done = await arun("mirror", "--once", "--quiet", cwd=home)
    assert done.returncode == 3
    assert "incomplete: 2 projects added" in done.stdout
    assert "\n  beta  failing: " in done.stdout
    assert "/simple/beta/" in done.stdout
    status = await arun("status", cwd=home)
    assert status.returncode == 0
    assert "1 failing" in status.stdout
    assert "\n  beta  failing: " in status.stdout
    owed = result(await arun("status", "--json", cwd=home))["owed"]
    assert [(row["project"], row["state"]) for row in owed] == [("beta", "failing")]


async def test_names_are_synced_now_and_unknown_ones_are_listed(home: Path, upstream: FakeIndex) -> None:
    configure(home, upstream.url, scope="")
    done = await arun("mirror", "Alpha", "nothing-such", cwd=home)
    assert done.returncode == 3
    assert "not known to upstream: 1\n  nothing-such" in done.stdout
    assert (home / "pypi/web/simple/alpha/index.html").exists()
    assert not (home / "pypi/web/simple/beta").exists()


async def test_a_dry_run_prints_the_plan_and_writes_nothing(home: Path) -> None:
    done = await arun("mirror", "--once", "--dry-run", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("would add: 3\n  alpha\n  beta\n  gamma\nwould fetch 3 files, 2.9 KiB; free: ")
    assert list((home / "pypi").iterdir()) == []
    assert result(await arun("mirror", "--dry-run", "--json", cwd=home))["adds"] == ["alpha", "beta", "gamma"]


async def test_an_unreachable_upstream_is_5(home: Path, upstream: FakeIndex) -> None:
    await upstream.refuse_connections()
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 5
    assert f"upstream: {upstream.url}" in done.stdout
    await upstream.start()
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0


async def test_a_missing_directory_is_6(home: Path) -> None:
    (home / "pypi").rmdir()
    done = await arun("mirror", "--once", cwd=home)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"heliostat: cannot open {home}/pypi: no such directory")


async def test_status_without_a_ledger_is_a_clear_error(home: Path) -> None:
    done = await arun("status", cwd=home)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.count("\n") == 1
    assert str(home / "pypi") in done.stderr


async def test_another_upstream_waits_for_approval(home: Path, upstream: FakeIndex) -> None:
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    async with FakeIndex(upstream.index) as other:
        configure(home, other.url)
        done = await arun("mirror", "--once", cwd=home)
        assert done.returncode == 7
        assert "--full" in done.stderr
        assert (await arun("mirror", "--once", "--full", cwd=home)).returncode == 0


async def test_held_removals_wait_for_approval(home: Path, upstream: FakeIndex) -> None:
    upload(upstream.index, "delta", "1.0")
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    for name in ("alpha", "beta", "gamma"):
        upstream.index.remove_project(name)
    done = await arun("mirror", "--once", cwd=home)
    assert done.returncode == 7
    assert "heliostat mirror --once --allow-removals 3" in done.stdout
    approved = result(await arun("mirror", "--once", "--allow-removals", "3", "--json", cwd=home))
    assert (approved["removed"], approved["projects"], approved["exit_code"]) == (3, 1, 0)


async def test_held_removals_are_held_in_a_dry_run(home: Path, upstream: FakeIndex) -> None:
    """What docs/configuration.md says of projects that are taken out, too."""
    upload(upstream.index, "delta", "1.0")
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    configure(home, upstream.url, scope='projects = ["delta"]')
    done = await arun("mirror", "--once", "--dry-run", cwd=home)
    assert done.returncode == 7
    assert "would hold: 3\n  alpha\n  beta\n  gamma\n" in done.stdout
    advice = "left out by the configuration; if that is meant: heliostat mirror --once --allow-removals 3\n"
    assert advice in done.stdout
    real = await arun("mirror", "--once", cwd=home)
    assert real.returncode == 7
    assert advice in real.stdout
    assert "allow-removals 3'" in real.stderr
    assert "mirror --allow-removals" not in real.stderr
    assert (home / "pypi/web/simple/alpha/index.html").exists()
    allowed = result(await arun("mirror", "--dry-run", "--allow-removals", "3", "--json", cwd=home))
    assert (allowed["removals"], allowed["held"]) == (["alpha", "beta", "gamma"], [])
    configure(home, upstream.url, scope='projects = ["alpha", "gamma", "delta"]')
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    assert not (home / "pypi/web/simple/beta").exists()
    assert (home / "pypi/web/simple/alpha/index.html").exists()


async def test_a_dry_run_without_upstream_is_5(home: Path, upstream: FakeIndex) -> None:
    await upstream.refuse_connections()
    for names in ([], ["alpha"]):
        done = await arun("mirror", "--dry-run", *names, cwd=home)
        assert done.returncode == 5
        assert f"upstream: {upstream.url}" in done.stdout


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-"])
async def test_a_pass_survives_closed_streams(home: Path, closed: str) -> None:
    process = await asyncio.create_subprocess_shell(
        f'"$PYTHON" -m heliostat mirror --once {closed}', cwd=home, env=environment(home, PYTHON=sys.executable)
    )
    assert await process.wait() == (6 if "1>" in closed else 0)  # the summary was to be printed
    assert (home / "pypi/web/simple/alpha/index.html").exists()


async def test_rebuild_makes_the_ledger_anew_without_the_network(home: Path, upstream: FakeIndex) -> None:
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    (home / "pypi/heliostat.db").write_bytes(b"no database at all, and long enough to be looked at" * 100)
    for leftover in ("heliostat.db-wal", "heliostat.db-shm"):
        (home / "pypi" / leftover).unlink(missing_ok=True)
    damaged = await arun("mirror", "--once", cwd=home)
    assert damaged.returncode == 6
    assert "heliostat rebuild" in damaged.stderr
    await upstream.stop()
    assert result(await arun("rebuild", "--json", cwd=home))["projects"] == 3
    await upstream.start()
    done = result(await arun("mirror", "--once", "--json", cwd=home))
    assert (done["exit_code"], done["files_added"]) == (0, 0)


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
async def test_a_result_that_standard_output_does_not_take(home: Path, upstream: FakeIndex, where: str) -> None:
    """The pass is done, but nobody was told: not so under --quiet, where nothing is to be told."""
    for more, code in (("", 6), ("--json", 6), ("--quiet", 0)):
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f'exec "$0" -m heliostat mirror --once {more} {where}', sys.executable,
            cwd=home, env=environment(home), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        assert process.returncode == code, said
        assert (b"cannot be written to standard output" in said) == (code == 6)
        assert (home / "pypi" / "web" / "simple" / "index.html").exists()


# --- signals, the lock, and the daemon ---------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_a_pass_and_the_next_one_goes_on(
    home: Path, upstream: FakeIndex, number: int, code: int
) -> None:
    hanging = upstream.fault("/packages/*/beta-1.0.tar.gz", Hang())
    reached = upstream.seen("/packages/*/beta-1.0.tar.gz")
    process = await start("mirror", "--once", "--json", cwd=home)
    await reached
    process.send_signal(number)
    done = await finish(process)
    assert done.returncode == code, done.stderr
    assert result(done)["interrupted"] is True
    hanging.remove()
    assert result(await arun("mirror", "--once", "--json", cwd=home))["projects"] == 3


async def test_a_second_process_is_told_who_holds_the_lock(home: Path, upstream: FakeIndex) -> None:
    hanging = upstream.fault("/packages/*/beta-1.0.tar.gz", Hang())
    reached = upstream.seen("/packages/*/beta-1.0.tar.gz")
    process = await start("mirror", "--once", cwd=home)
    await reached
    second = await arun("mirror", "--once", cwd=home)
    assert (second.returncode, second.stdout) == (4, "")
    assert f"process {process.pid} since " in second.stderr
    quiet = await arun("mirror", "--once", "--quiet", cwd=home)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (4, "", "")
    assert result(await arun("status", "--json", cwd=home))["running"].startswith(f"process {process.pid} ")
    hanging.remove()
    assert (await finish(process)).returncode == 0


async def test_without_once_it_follows_until_it_is_told_to_end(home: Path, upstream: FakeIndex) -> None:
    index = upstream.index
    process = await start("mirror", cwd=home)
    first = upstream.seen("/packages/*/gamma-1.0.tar.gz")
    await first
    second = upstream.seen("/packages/*/delta-1.0.tar.gz")
    upload(index, "delta", "1.0")
    await second
    await upstream.refuse_connections()  # a state of the daemon, not its end
    assert process.stderr is not None
    while b"trying again in " not in await process.stderr.readline():
        pass
    await upstream.start()
    third = upstream.seen("/packages/*/epsilon-1.0.tar.gz")
    upload(index, "epsilon", "1.0")
    await third
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


async def test_status_loads_no_network_code(home: Path) -> None:
    assert (await arun("mirror", "--once", cwd=home)).returncode == 0
    done = await arun("status", "--quiet", cwd=home, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sqlite3" in loaded
    assert not loaded & {"aiohttp", "rich", "uvloop", "aiofiles"}


async def test_a_reader_that_goes_away_does_not_change_the_exit_code(home: Path, upstream: FakeIndex) -> None:
    upstream.fault("/simple/beta/", Status(500))
    process = await asyncio.create_subprocess_shell(
        '"$PYTHON" -m heliostat mirror --once --json | true; exit "${PIPESTATUS[0]}"',
        cwd=home,
        env=environment(home, PYTHON=sys.executable),
        executable="/bin/bash",
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 3
    assert b"Traceback" not in err
    assert b"Broken" not in err
