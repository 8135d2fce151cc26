"""However a log is rotated, copied, compressed and read: each line counts once."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.stats.database import opened
from heliostat.stats.logfile import LONGEST_LINE
from heliostat.stats.reading import Reading, read_logs
from support.access_logs import PLACE, TODAY, as_json, combined, count, counted, many
from support.places import not_root, open_directory

#: In the standard library from 3.14 on.
zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
    "bz2": bz2.compress,
}
DATABASE = "statistics.db"


def line(number: int) -> bytes:
    """Every one differs, also in its length, and in whether its format is the JSON one."""
    target = ("/simple/foo/", f"{PLACE}/foo-1.{number % 7}.zip", f"{PLACE}/bar-{number % 3}.zip")[number % 3]
    form = as_json if number % 5 == 0 else combined
    status = 206 if number % 4 == 1 else 200
    return form(
        number * 400, target, client=f"192.0.2.{number % 9}", status=status, sent=1000 if status == 200 else 350,
        agent=f"pip/{number % 3}.0",
    )  # fmt: skip


LINES = [line(number) for number in range(400)]


def expected(lines: list[bytes]) -> list[Any]:
    """What one run over one file counts."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(b"".join(lines))
        count(Path(folder, DATABASE), path)
        return counted(Path(folder, DATABASE))


class Host:
    """A web server's log in its own folder, and what logrotate does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.log = folder / "access.log"
        self.log.touch()

    def write(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)

    def _shift(self) -> None:
        """Numbers of older files grow by one, whatever they are compressed with."""
        older = sorted(self.folder.glob("access.log.*"), key=lambda path: -int(path.name.split(".")[2]))
        for path in older:
            parts = path.name.split(".")
            parts[2] = str(int(parts[2]) + 1)
            path.rename(self.folder / ".".join(parts))

    def rotate(self) -> None:
        self._shift()
        self.log.rename(self.folder / "access.log.1")
        self.log.touch()

    def copytruncate(self) -> None:
        self._shift()
        shutil.copy(self.log, self.folder / "access.log.1")
        os.truncate(self.log, 0)

    def compress(self, suffix: str) -> None:
        for path in self.folder.glob("access.log.*"):
            if path.name.split(".")[-1].isdigit():
                Path(f"{path}.{suffix}").write_bytes(COMPRESSORS[suffix](path.read_bytes()))
                path.unlink()

    def move(self) -> None:
        """Old logs go into a folder of their own, under dates, as `dateext` and `olddir` have it."""
        old = self.folder / "old"
        old.mkdir(exist_ok=True)
        for path in self.folder.glob("access.log.*"):
            stem, _, suffix = path.name.removeprefix("access.log.").partition(".")
            moved = len(list(old.iterdir()))
            path.rename(old / f"access-2026{moved:04}{stem}.log{'.' if suffix else ''}{suffix}")


def read(folder: Path) -> Reading:
    patterns = (f"{folder}/*/access.log*", f"{folder}/*/old/*")
    found = [pattern for pattern in patterns if list(Path("/").glob(pattern[1:]))]
    return count(folder / DATABASE, *found)


EVENTS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), st.integers(1, 40)),
    st.tuples(st.just("rotate"), st.integers(0, 1)),
    st.tuples(st.just("copytruncate"), st.integers(0, 1)),
    st.tuples(st.just("compress"), st.integers(0, 1), st.sampled_from(sorted(COMPRESSORS))),
    st.tuples(st.just("move"), st.integers(0, 1)),
    st.tuples(st.just("read"), st.just(0)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=25))
def test_any_rotation_of_two_hosts_logs_counts_as_one_file_does(events: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory(prefix="heliostat-logs-") as folder:
        hosts = Host(Path(folder, "a")), Host(Path(folder, "b"))
        written = 0
        for what, which, *more in events:
            if what == "write":
                hosts[which].write(b"".join(LINES[written : written + more[0]]))
                written = min(written + more[0], len(LINES))
            elif what == "read":
                read(Path(folder))
            else:
                getattr(hosts[which], what)(*more)
        read(Path(folder))
        assert counted(Path(folder, DATABASE)) == expected(LINES[:written])
        again = read(Path(folder))
        assert (again.lines, again.unreadable) == (0, [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2000), max_size=12))
def test_a_log_that_grows_by_any_number_of_bytes(cuts: list[int]) -> None:
    """Also by a part of a line: it counts when it is whole."""
    data = b"".join(LINES[:30])
    with TemporaryDirectory(prefix="heliostat-logs-") as folder:
        host, at = Host(Path(folder, "a")), 0
        for cut in cuts:
            host.write(data[at : at + cut])
            at += cut
            read(Path(folder))
        host.write(data[at:])
        read(Path(folder))
        assert counted(Path(folder, DATABASE)) == expected(LINES[:30])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS))
def test_a_file_that_is_compressed_beside_itself(tmp_path: Path, host: Host, suffix: str) -> None:
    host.write(b"".join(LINES[:50]))
    host.rotate()
    read(tmp_path)
    plain = host.folder / "access.log.1"
    whole = COMPRESSORS[suffix](plain.read_bytes())
    Path(f"{plain}.{suffix}").write_bytes(whole)
    assert read(tmp_path).lines == 0
    assert read(tmp_path).lines == 0
    plain.unlink()
    assert read(tmp_path).lines == 0
    assert counted(tmp_path / DATABASE) == expected(LINES[:50])


def test_a_copy_that_is_just_being_made(tmp_path: Path, host: Host) -> None:
    """copytruncate, before the truncation: the copy is shorter than the log, then as long."""
    data = b"".join(LINES[:100])
    host.write(data)
    read(tmp_path)
    copy = host.folder / "access.log.1"
    for length in (10, 100, 5000, len(data) // 2, len(data)):
        copy.write_bytes(data[:length])
        assert read(tmp_path).lines == 0
    host.write(b"".join(LINES[100:120]))
    copy.write_bytes(host.log.read_bytes())
    os.truncate(host.log, 0)
    assert read(tmp_path).lines == 20
    host.write(b"".join(LINES[120:300]))
    assert read(tmp_path).lines == 180
    assert counted(tmp_path / DATABASE) == expected(LINES[:300])


def test_a_log_whose_compression_is_under_way_is_read_on_when_it_is_whole(tmp_path: Path, host: Host) -> None:
    data = b"".join(LINES)
    packed = gzip.compress(data)
    path = host.folder / "access.log.1.gz"
    path.write_bytes(packed[: len(packed) // 2])
    first = read(tmp_path)
    assert 0 < first.lines < len(LINES)
    (message,) = first.unreadable
    assert message == f"{path}: its compressed data end in the middle; what is before that was counted"
    path.write_bytes(packed)
    assert read(tmp_path).lines == len(LINES) - first.lines
    assert counted(tmp_path / DATABASE) == expected(LINES)


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS))
def test_a_damaged_log_is_named_and_the_others_are_counted(tmp_path: Path, host: Host, suffix: str) -> None:
    packed = bytearray(COMPRESSORS[suffix](b"".join(LINES)))
    packed[len(packed) // 2 :] = b"\xff" * 2000
    (host.folder / f"access.log.1.{suffix}").write_bytes(packed)
    host.write(b"".join(LINES[:10]))
    reading = read(tmp_path)
    (message,) = reading.unreadable
    assert f"access.log.1.{suffix}: its compressed data " in message
    assert reading.lines >= 10
    assert read(tmp_path).lines == 0


def test_two_hosts_whose_logs_begin_alike(tmp_path: Path) -> None:
    one, two = Host(tmp_path / "a"), Host(tmp_path / "b")
    one.write(b"".join(LINES[:60]))
    two.write(LINES[0] + b"".join(LINES[60:80]))
    assert read(tmp_path).lines == 81
    one.write(b"".join(LINES[80:90]))
    two.write(b"".join(LINES[90:200]))
    assert read(tmp_path).lines == 120
    assert counted(tmp_path / DATABASE) == expected([LINES[0], *LINES[:200]])


def test_a_log_under_two_names_is_one(tmp_path: Path, host: Host) -> None:
    host.write(b"".join(LINES[:10]))
    (host.folder / "access.log.link").symlink_to("access.log")
    os.link(host.log, host.folder / "access.log.hard")
    reading = read(tmp_path)
    assert (reading.files, reading.lines) == (1, 10)


def test_a_log_is_not_opened_again_while_nothing_changed(tmp_path: Path, host: Host) -> None:
    host.write(b"".join(LINES[:10]))
    host.rotate()
    assert read(tmp_path).files == 2
    reading = read(tmp_path)
    assert (reading.files, reading.unchanged) == (1, 1)  # the empty one has nothing to be known by


class Killed(BaseException):
    """What ends a run at a place of its own choosing."""


def test_a_run_that_is_ended_anywhere_is_gone_on_with(tmp_path: Path, host: Host) -> None:
    lines = list(many(60_000))
    host.write(b"".join(lines))
    database, seen = tmp_path / DATABASE, []

    def kill(reading: Reading) -> None:
        seen.append(reading.lines)
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed), opened(str(database)) as connection:
            read_logs(connection, [str(host.log)], today=TODAY, directory=None, progress=kill)
    rest = read(tmp_path).lines
    assert all(seen)
    assert rest
    assert sum(seen) + rest == len(lines)
    assert counted(database) == expected(lines)


# --- what strangers write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        b"\x00" * 100 + b"\n",
        b"\xff\xfe\n",
        b"x" * (3 * LONGEST_LINE) + b"\n",
        combined(agent="x" * (1 << 20)),
        as_json(agent="[" * (1 << 20)),
        b"{" * 100_000 + b"\n",
        combined(agent="pip/24.0 " + '{"installer":' * 2000),
        combined(target="/packages/" + "../" * 300),
        combined(target=f"{PLACE}/../../../../statistics.db"),
        combined(target=f"{PLACE}/..%2f..%2f..%2flocal-stats%2fdays%2fx.bz2"),
        combined(client="../../etc/passwd"),
        combined(client="x" * 300),
        combined().replace(b"20/Nov/2026", b"../../../.."),
        as_json().replace(b"2026-11-20", b"../../../x"),
        b'{"agent":"\\ud800","time":"2026-11-20T10:00:00Z"}\n',
    ],
    ids=range(15),
)
def test_hostile_lines_among_good_ones(tmp_path: Path, host: Host, odd: bytes) -> None:
    host.write(LINES[0] + odd + LINES[1] + odd + odd)
    reading = read(tmp_path)
    assert reading.lines == 5
    assert read(tmp_path).lines == 0
    host.write(LINES[2] + odd)
    assert read(tmp_path).lines == 2
    assert reading.unreadable == []
    good = {row[1] for row in counted(tmp_path / DATABASE)[0]}
    assert good - {"foo-bar"} == {"foo", "bar"}


def test_a_line_without_an_end_waits_for_it(tmp_path: Path, host: Host) -> None:
    host.write(LINES[0] + b"x" * (5 * LONGEST_LINE))
    assert read(tmp_path).lines == 1
    host.write(b"y" * LONGEST_LINE)
    assert read(tmp_path).lines == 0
    host.write(b"\n" + LINES[1])
    reading = read(tmp_path)
    assert (reading.lines, reading.odd) == (2, 1)
    assert read(tmp_path).lines == 0
    assert counted(tmp_path / DATABASE) == expected(LINES[:2])


def test_what_may_not_be_read() -> None:
    with open_directory() as folder:
        folder.chmod(0o777)
        log = folder / "access.log"
        log.write_bytes(LINES[0])
        log.chmod(0)
        with not_root():
            reading = count(folder / DATABASE, log)
    assert reading.unreadable == [
        f"{log}: Permission denied; let heliostat's user read it (on Debian: usermod -aG adm heliostat)"
    ]


def test_what_is_no_log(tmp_path: Path, host: Host) -> None:
    os.mkfifo(host.folder / "access.log.1")
    (host.folder / "access.log.2").symlink_to("nowhere")
    (host.folder / "access.log.3").mkdir()
    (host.folder / "access.log.4").write_bytes(bytes(range(256)) * 400)
    host.write(LINES[0])
    reading = read(tmp_path)
    assert sorted(message.rpartition(": ")[2] for message in reading.unreadable) == [
        "No such file or directory",
        "is no regular file",
    ]
    missing = count(tmp_path / DATABASE, tmp_path / "missing", f"{tmp_path}/no*thing")
    assert missing.unreadable == [
        f"{tmp_path}/no*thing: nothing matches",
        f"{tmp_path}/missing: No such file or directory",
    ]
