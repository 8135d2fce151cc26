"""``heliostat stats`` as a process: what it prints and writes, exit codes, kills, memory."""

from __future__ import annotations

import bz2
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.stats.database import opened
from support.access_logs import as_json, combined, count, counted, many
from support.cli import command, environment, run
from support.places import open_directory

LIST = "/simple/foo-bar/", "/simple/foo-bar/", "/simple/foo-bar/", "/simple/other/"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    """A configuration, an empty mirror, and a log of five lines."""
    (folder / "mirror").mkdir()
    (folder / "logs").mkdir()
    (folder / "heliostat.toml").write_text(
        '[mirror]\ndirectory = "mirror"\nprojects = ["six"]\n[stats]\nlogs = ["logs/access.log*"]\n'
    )
    lines = [
        combined(0),
        as_json(1, client="::2"),
        combined(2, "/simple/other/"),
        b"nonsense\n",
        combined(3, "/", status=404),
    ]
    (folder / "logs/access.log").write_bytes(b"".join(lines))
    return folder


def test_words(home: Path) -> None:
    done = run("stats", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("read: 5 lines, 1 of them not understood, ")
    assert lines[1] == "written: 1 day, the last is web/local-stats/days/2026-11-20.bz2"
    assert lines[2].startswith("from 2026-11-20 to 2026-11-20: 2 downloads of 1 file, 4 requests, 2 projects, ")
    assert lines[2].endswith("at most 2 clients a day")
    assert [line.split() for line in lines if line.startswith(("foo-bar ", "other "))] == [
        ["foo-bar", "2", "2", "2.0", "KiB"],
        ["other", "0", "1", "1000", "B"],
        ["foo-bar", "1.0", "2", "2", "2.0", "KiB"],
    ]
    assert lines[-1].startswith("list: 2 of 2 projects make up 99% of the requests")
    again = run("stats", cwd=home)
    assert again.stdout.splitlines()[0] == "read: 0 lines, 0 B, of 0 files; 1 file as before"
    assert "written" not in again.stdout
    (home / "logs/access.log").rename(home / "logs/access.log.1")
    with (home / "logs/access.log").open("wb") as file:
        file.write(combined(10))
    assert run("stats", "--quiet", cwd=home).stdout == ""
    day = bz2.decompress((home / "mirror/web/local-stats/days/2026-11-20.bz2").read_bytes())
    assert day.splitlines()[1:] == [b"foo-bar,foo_bar-1.0-py3-none-any.whl,pip/24.0,3"]


def test_json(home: Path) -> None:
    done = run("stats", "--json", "--share", "50%", "--top", "1", cwd=home)
    found = json.loads(done.stdout)
    assert found["read"] == {
        "files": 1, "unchanged": 0, "lines": 5, "not_understood": 1, "bytes": found["read"]["bytes"],
    }  # fmt: skip
    assert (found["downloads"], found["requests"], found["project_count"], found["exit_code"]) == (2, 4, 2, 0)
    assert found["projects"] == [{"project": "foo-bar", "downloads": 2, "requests": 2, "bytes": 2000}]
    assert found["installers"][0]["installer"] == "pip"
    assert found["pythons"][0]["python"] == "3.11"
    assert found["share"] == 0.5
    assert found["traffic"] == [{"project": "foo-bar", "requests": 2, "downloads": 2, "bytes": 2000}]
    assert found["days"] == [{"date": "2026-11-20", "downloads": 2, "requests": 4, "bytes": 4000, "clients": 2}]
    nothing = json.loads(run("stats", "--json", "--since", "2026-11-21", cwd=home).stdout)
    assert (nothing["first"], nothing["downloads"], nothing["traffic"]) == (None, 0, [])


def test_the_list(home: Path) -> None:
    with (home / "logs/access.log").open("ab") as file:
        file.writelines(combined(10 + number, target) for number, target in enumerate(LIST))
    assert run("stats", "--list", "popular.txt", "--share", "60%", cwd=home).returncode == 0
    assert (home / "popular.txt").read_text() == "foo-bar\n"
    assert run("stats", "--list", "-", "--share", "100%", cwd=home).stdout == "foo-bar\nother\n"
    nothing = run("stats", "--list", "popular.txt", "--until", "2020-01-01", cwd=home)
    assert nothing.returncode == 3
    assert nothing.stdout.startswith("popular.txt: left as it is")
    assert (home / "popular.txt").read_text() == "foo-bar\n"


def test_no_write(home: Path) -> None:
    before = sorted(home.rglob("*"))
    for arguments in (("--no-write",), ("--no-write", "logs/access.log")):
        done = run("stats", *arguments, cwd=home)
        assert done.returncode == 0
        assert "2 downloads" in done.stdout
    assert sorted(home.rglob("*")) == before
    (home / "heliostat.toml").unlink()
    assert "2 downloads" in run("stats", "--no-write", "logs/access.log", cwd=home).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--since", "yesterday"), 2, "'yesterday' is no date like 2026-01-31"),
        (("--since", "2026-02-01", "--until", "2026-01-01"), 2, "--since is after --until"),
        (("--share", "0%"), 2, "is no share like 99%"),
        (("--share", "101%"), 2, "of at most 100%"),
        (("--share", "99"), 2, "is no share like 99%"),
        (("--no-write", "--list", "x"), 2, "--no-write writes no list"),
        (("--json", "--list", "-"), 2, "--json has the list in it"),
        (("missing.log",), 3, "missing.log: No such file or directory"),
        (("logs",), 3, "logs: is no regular file"),
        (("logs/*.gz",), 3, "logs/*.gz: nothing matches"),
        (("--list", "no/such/folder/list"), 6, "cannot write no/such/folder/list: its directory is missing"),
    ],
)
def test_what_is_wrong_is_said(home: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run("stats", *arguments, cwd=home)
    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_logs_or_mirror(home: Path) -> None:
    text = (home / "heliostat.toml").read_text()
    (home / "heliostat.toml").write_text(text.replace('"logs/access.log*"', ""))
    done = run("stats", cwd=home)
    assert done.returncode == 2
    assert "[stats] logs: names no logs; name them there, or as arguments" in done.stderr
    (home / "heliostat.toml").write_text(text.replace('"mirror"', '"nowhere"'))
    done = run("stats", cwd=home)
    assert done.returncode == 6
    assert "nowhere: no mirror there" in done.stderr


def test_what_may_not_be_written() -> None:
    """As an ordinary user, since root may."""
    with open_directory() as folder:
        home = furnished(folder)
        (home / "mirror").chmod(0o555)
        done = run("stats", cwd=home, unprivileged=True)
        assert done.returncode == 6
        assert "statistics.db: Permission denied; run this as" in done.stderr


def test_zstd_without_its_library(home: Path) -> None:
    (home / "logs/access.log.1").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    code = (
        "import sys; sys.modules.update({'compression.zstd': None, 'backports.zstd': None});"
        "from heliostat.cli.main import main; sys.exit(main(['stats']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "access.log.1: is compressed with zstd" in done.stdout
    assert "pip install 'heliostat[zstd]'" in done.stdout
    assert "2 downloads" in done.stdout


def test_another_one_at_work(home: Path) -> None:
    with opened(str(home / "mirror/statistics.db")):
        done = run("stats", cwd=home)
    assert done.returncode == 4
    assert "statistics.db: locked by another heliostat stats" in done.stderr


def large(path: Path, lines: int) -> None:
    with path.open("wb") as file:
        file.writelines(many(lines))


def stamp(path: Path) -> int:
    """When it was last written, in nanoseconds."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_killed_anywhere_it_goes_on(home: Path) -> None:
    log, database = home / "logs/access.log", home / "mirror/statistics.db"
    large(log, 120_000)
    written = home / "mirror/statistics.db-wal"
    for number, commits in ((signal.SIGKILL, 1), (signal.SIGTERM, 2), (signal.SIGKILL, 3)):
        seen = {stamp(written)}
        process = subprocess.Popen(
            command("stats"), cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and len(seen) <= commits:
            seen.add(stamp(written))
        process.send_signal(number)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 143, 0)
    assert run("stats", "--quiet", cwd=home).returncode == 0
    fresh = home / "fresh.db"
    count(fresh, log)
    assert counted(database) == counted(fresh)
    (row,) = [
        line
        for line in bz2.decompress((home / "mirror/web/local-stats/days/2026-11-20.bz2").read_bytes()).splitlines()
        if b"p-1.7.zip" in line
    ]
    assert row == b"p,p-1.7.zip,pip/24.0,2400"


_PEAK = """
import resource, sys
from heliostat.cli.main import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def peak(home: Path, *arguments: str) -> int:
    """KiB."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], cwd=home, env=environment(home), capture_output=True, check=True, text=True,
    )  # fmt: skip
    return int(done.stderr)


def test_memory_does_not_grow_with_the_logs(home: Path) -> None:
    log = home / "logs/access.log"
    large(log, 30_000)
    small = peak(home, "stats", "--quiet")
    large(log, 240_000)
    assert peak(home, "stats", "--quiet") - small < 24 << 10


def test_nothing_is_written_elsewhere(home: Path) -> None:
    run("stats", cwd=home)
    files = [path.relative_to(home / "mirror").as_posix() for path in (home / "mirror").rglob("*") if path.is_file()]
    assert sorted(files) == ["statistics.db", "web/local-stats/days/2026-11-20.bz2"]
