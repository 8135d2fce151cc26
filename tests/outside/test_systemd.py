"""The units and snippets below ``systemd/``, under systemd's own tools, and what they start under a supervisor.

systemd is not the first process where tests run: the program is started as the unit says, with a real notification
socket, the unit's umask, limits, environment and filters of system calls.
"""

import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from support.sandbox import allowed_calls, confined
from support.small_index import mirror_home
from support.supervisor import PROGRAM, UNITS, Unit, analyze, as_run, installed, supervised

pytestmark = pytest.mark.outside

SERVICES = ["heliostat.service", "heliostat@.service", "heliostat-verify.service"]


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("alpha", "1.0", [UploadedFile("alpha-1.0.tar.gz", b"a"), UploadedFile("älpha-1.0.zip", b"b")])
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, upstream: FakeIndex) -> Path:
    return mirror_home(tmp_path, upstream, mirror="interval = 1")


# --- systemd's own opinion ----------------------------------------------------------------------------------------


def test_every_unit_is_looked_at() -> None:
    assert {path.name for path in UNITS.iterdir()} == {
        *SERVICES, "heliostat-verify.timer", "heliostat.sysusers", "heliostat.tmpfiles",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*SERVICES, "heliostat-verify.timer"])
def test_verify_finds_nothing(tmp_path: Path, name: str) -> None:
    copies = {path.name: installed(path, tmp_path) for path in UNITS.iterdir()}
    done = analyze("verify", "--man=no", str(copies[name]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_would_find_a_mistake(tmp_path: Path) -> None:
    copy = installed(UNITS / "heliostat.service", tmp_path)
    copy.write_text(copy.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", "--man=no", str(copy)).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_below_two(name: str) -> None:
    done = analyze("security", "--offline=true", "--threshold=19", str(UNITS / name))
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) < 2.0


def test_the_timer_comes_once_a_week() -> None:
    done = analyze("calendar", "--iterations=2", Unit(UNITS / "heliostat-verify.timer").one("OnCalendar"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Sun ") >= 2


def test_the_user_and_the_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "srv").mkdir()
    for program, snippet in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        words = [program, f"--root={tmp_path}", *(["--create"] if snippet == "tmpfiles" else [])]
        done = subprocess.run([*words, UNITS / f"heliostat.{snippet}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("heliostat:"))
    _, _, uid, gid, _, directory, shell = user.split(":")
    assert (directory, shell.rpartition("/")[2]) == ("/srv/pypi", "nologin")
    made = (tmp_path / "srv/pypi").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (int(uid), int(gid), 0o755)


# --- what they say ------------------------------------------------------------------------------------------------


def test_the_template_is_the_same_but_for_its_names() -> None:
    one, many = ((UNITS / name).read_text().splitlines() for name in ("heliostat.service", "heliostat@.service"))
    plain = [line for line in one if not line.startswith("#")]
    instance = [line.replace("-%i", "").replace("%i.toml", "heliostat.toml").replace(" %i", "") for line in many]
    assert [line for line in instance if not line.startswith("#")] == plain


@pytest.mark.parametrize("name", SERVICES)
def test_one_directory_is_writable_and_the_program_is_where_the_documentation_puts_it(name: str) -> None:
    unit = Unit(UNITS / name)
    assert unit.one("ProtectSystem") == "strict"
    assert unit.one("ReadWritePaths").removeprefix("-") == unit.one("RequiresMountsFor")
    assert " " not in unit.one("ReadWritePaths")
    assert unit.one("ExecStart").split()[0] == PROGRAM
    assert unit.one("User") == unit.one("Group") == "heliostat"


def test_what_does_not_get_better_is_not_tried_again() -> None:
    unit = Unit(UNITS / "heliostat.service")
    assert unit.one("RestartPreventExitStatus").split() == ["2", "4"]
    assert (unit.one("Restart"), unit.one("StartLimitIntervalSec")) == ("on-failure", "0")


def test_the_check_keeps_out_of_the_way() -> None:
    unit = Unit(UNITS / "heliostat-verify.service")
    assert unit.one("IOSchedulingClass") == unit.one("CPUSchedulingPolicy") == "idle"
    assert unit.one("ExecStart").split()[1] == "verify"


# --- what they start ----------------------------------------------------------------------------------------------


async def test_the_daemon_as_the_unit_starts_it(home: Path, upstream: FakeIndex) -> None:
    unit = Unit(UNITS / "heliostat.service")
    arguments = as_run(unit, home / "heliostat.toml")
    place = home / "elsewhere"
    place.mkdir()
    async with supervised(*arguments, cwd=place, env=unit.environment, watchdog=900, before=confined(unit)) as service:
        await service.until_said("READY")
        at = await service.until(lambda said: "0 behind" in said.get("STATUS", ""))
        done = await _reload(unit, service.process.pid)
        assert done == 0
        at = await service.until_said("RELOADING", after=at)
        await service.until_said("READY", after=at)
        reached = upstream.seen("/packages/*/beta-1.0.tar.gz")
        upstream.index.publish("beta", "1.0", UploadedFile("beta-1.0.tar.gz", b"b" * 3_000_000))
        await reached
        await service.until(lambda said: f"serial {upstream.index.serial}; 0 behind" in said.get("STATUS", ""))
        assert await service.stop() == 0
    assert [line for line in service.lines if not line.startswith("<6>")] == []
    assert not service.starved
    _check_rights(home / "pypi/web")
    names = {name for _, _, files in os.walk(os.fsencode(home / "pypi/web/packages")) for name in files}
    assert names == {b"alpha-1.0.tar.gz", "älpha-1.0.zip".encode(), b"beta-1.0.tar.gz"}


def _check_rights(web: Path) -> None:
    """Everything that is served is readable by everyone, which is what UMask= is for."""
    for directory, names, files in os.walk(web):
        for name in (*names, *files):
            found = os.stat(os.path.join(directory, name))
            wanted = 0o755 if stat.S_ISDIR(found.st_mode) else 0o644
            assert stat.S_IMODE(found.st_mode) == wanted, name


async def _reload(unit: Unit, pid: int) -> int:
    words = unit.one("ExecReload").replace("$MAINPID", str(pid)).split()
    return subprocess.run(words, check=False).returncode


async def test_a_second_instance_and_a_wrong_configuration_end_as_the_unit_expects(home: Path) -> None:
    unit = Unit(UNITS / "heliostat.service")
    arguments = as_run(unit, home / "heliostat.toml")
    async with supervised(*arguments, cwd=home, env=unit.environment) as first:
        await first.until_said("READY")
        async with supervised(*arguments, cwd=home, env=unit.environment) as second:
            assert await second.process.wait() == 4
        assert [line for line in second.lines if line.startswith("<3>heliostat: ")]
        assert not [said for said in second.messages if "READY" in said]
        assert second.messages[-1]["STATUS"].startswith("ended: ")
        assert await first.stop() == 0
    (home / "heliostat.toml").write_text("[mirror]\ndirectry = 1\n")
    async with supervised(*arguments, cwd=home, env=unit.environment) as wrong:
        assert await wrong.process.wait() == 2
    assert all(line.startswith("<3>") for line in wrong.lines)
    assert len(wrong.lines) == 2


async def test_the_check_as_the_unit_starts_it(home: Path) -> None:
    daemon, check = Unit(UNITS / "heliostat.service"), Unit(UNITS / "heliostat-verify.service")
    async with supervised(*as_run(daemon, home / "heliostat.toml"), cwd=home, env=daemon.environment) as service:
        await service.until(lambda said: "0 behind" in said.get("STATUS", ""))
        words, confine = as_run(check, home / "heliostat.toml"), confined(check)
        async with supervised(*words, cwd=home, env=check.environment, before=confine) as good:  # beside the daemon
            assert await good.process.wait() == 0
        (damaged,) = (home / "pypi/web/packages").rglob("alpha-1.0.tar.gz")
        damaged.write_bytes(b"x")
        async with supervised(*words, cwd=home, env=check.environment, before=confine) as bad:
            assert await bad.process.wait() == 3
        assert await service.stop() == 0
    for lines in (good.lines, bad.lines):
        assert [line for line in lines if not line.startswith(("<6>", "<4>"))] == []


# --- the sandbox itself: what it is meant to refuse it does refuse --------------------------------------------------


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC | mmap.PROT_READ)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "Address family not supported"),
        ("import os; os.chroot('/')", "PermissionError"),
        ("import os; os.setuid(1)", "PermissionError"),
        ("open('/proc/self/fd')", "IsADirectoryError"),  # it runs at all
    ],
)
def test_the_sandbox_refuses(script: str, error: str) -> None:
    confine = confined(Unit(UNITS / "heliostat.service"))
    done = subprocess.run(
        [sys.executable, "-c", script], preexec_fn=confine, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert error in done.stderr


def test_the_lists_of_calls_are_systemds() -> None:
    allowed = allowed_calls(Unit(UNITS / "heliostat.service").all("SystemCallFilter"))
    assert {"openat", "renameat2", "syncfs", "clone3", "socket", "flock"} <= allowed
    assert not allowed & {"chroot", "setuid", "chown", "mount", "ptrace", "setpriority", "kexec_load"}
