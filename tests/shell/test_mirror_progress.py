"""The totals of a pass: what is done never exceeds them, and in the end they are what was done."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Cut, Fault, Hang, IgnoreRange, Status, Wrong, WrongLength
from heliostat.fakeindex.synthetic import provenance_for, small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.mirror.report import Counters
from heliostat.mirror.transfer import Transfer
from support.cli import environment
from support.mirrors import following


class Watched(Counters):
    """Looks at itself whenever something changes."""

    #: Of the bytes, whenever some came.
    totals: set[int] = msgspec.field(default_factory=set)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        assert 0 <= self.files_done <= self.files_total
        assert 0 <= self.bytes_done <= self.bytes_total
        if name == "bytes_done":
            self.totals.add(self.bytes_total)

    def figures(self) -> tuple[int, int, int, int]:
        return self.files_done, self.files_total, self.bytes_done, self.bytes_total


def mixed() -> Index:
    """A wheel with sidecar and provenance object, a large file, one without size, two with equal bytes."""
    index = Index()
    built = wheel("signed", "1.0")
    file = uploaded(built, sidecar=built.metadata + b"\n")  # which is not in the wheel, and has to be fetched
    index.publish("signed", "1.0", [file])
    index.set_provenance("signed", "1.0", file.filename, provenance_for(file))
    index.publish("large", "1.0", [UploadedFile("large-1.0.zip", Virtual(5 << 20, 1))])
    index.publish("twin", "1.0", [UploadedFile(f"twin-1.0.{end}", Virtual(3 << 20, 2)) for end in ("zip", "tar.gz")])
    return index


def everything_of(index: Index) -> int:
    """How many files and sidecars there are."""
    files = [one.file for name in index.projects() for one in index.expected_files(name)]
    return len(files) + sum(file.sidecar is not None for file in files)


async def test_totals_of_a_first_pass_are_files_sidecars_and_provenance_objects(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one:
        counters = Watched()
        summary = await one.sync(counters=counters)
        done, total, received, expected = counters.figures()
        assert done == total == summary.files_added
        assert received == expected == summary.bytes_fetched
        assert done == everything_of(one.index)  # with a provenance object, and a file that two projects share
        again = Watched()
        await one.sync(counters=again)
        assert again.figures() == (0, 0, 0, 0)


async def test_a_late_sidecar_alone_counts(tmp_path: Path) -> None:
    async with following(mixed(), tmp_path) as one:
        await one.sync()
        one.index.publish("bare", "1.0", [uploaded(wheel("bare", "1.0"), sidecar=None)])
        await one.sync()
        one.index.add_late_sidecar("bare", "1.0", "bare-1.0-py3-none-any.whl", b"Metadata-Version: 2.1\nName: bare\n")
        one.index.touch("bare")
        counters = Watched()
        await one.sync(counters=counters)
        assert counters.figures() == (1, 1, 33, 33)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/packages/*/large-1.0.zip", Cut(0.5)),
        ("/packages/*/large-1.0.zip", Wrong(4 << 20)),
        ("/packages/*/large-1.0.zip", WrongLength(100)),
        ("/packages/*/signed-1.0-py3-none-any.whl", Cut(0.5)),
        ("/packages/*/signed-1.0-py3-none-any.whl", Wrong(3)),
        ("/packages/*.metadata", Wrong(3)),
        ("/integrity/*", Wrong(3)),
    ],
)
async def test_what_comes_twice_is_expected_twice(tmp_path: Path, path: str, fault: Any) -> None:
    async with following(mixed(), tmp_path) as one:
        met = one.server.fault(path, fault, times=1)
        counters = Watched()
        summary = await one.sync(counters=counters)
        assert met.fired == 1
        done, total, received, expected = counters.figures()
        assert done == total == summary.files_added
        assert received == expected >= summary.bytes_fetched


@pytest.mark.parametrize("ignored", [False, True])
async def test_what_is_there_already_is_not_expected_again(tmp_path: Path, ignored: bool) -> None:
    async with following(mixed(), tmp_path, retries=1) as one:
        one.server.fault("/packages/*/large-1.0.zip", Cut(4 << 20), times=1)
        broken = one.server.fault("/packages/*/large-1.0.zip", Status(404), skip=1)
        first = Watched()
        summary = await one.attempt(counters=first)
        assert len(summary.owed) == 1
        assert first.files_done == first.files_total - 1
        assert first.bytes_done == first.bytes_total  # what failed is not waited for
        broken.remove()
        if ignored:
            one.server.fault("/packages/*/large-1.0.zip", IgnoreRange())
        second = Watched()
        await one.sync(counters=second)
        assert second.files_done == second.files_total == 1
        assert second.bytes_done == second.bytes_total
        assert (second.bytes_done >= 5 << 20) is ignored
        assert max(second.totals) == second.bytes_done  # also while it came


async def test_files_that_a_failing_project_did_not_begin_are_not_waited_for(tmp_path: Path) -> None:
    index = Index()
    files = [UploadedFile(f"many-1.{number}.zip", Virtual(50_000, number)) for number in range(60)]
    index.publish("many", "1.0", files)
    async with following(index, tmp_path, retries=1) as one:
        one.server.fault("/packages/*", Status(404), times=1)
        counters = Watched()
        assert len((await one.attempt(counters=counters)).owed) == 1
        assert counters.files_done < counters.files_total == 60
        assert counters.bytes_done == counters.bytes_total


def test_a_transfer_ends_once_and_whatever_it_was_told() -> None:
    counters = Watched()
    known, unknown = Transfer(counters, 100), Transfer(counters, None)
    assert counters.figures() == (0, 2, 0, 100)
    known.arrived(30)
    known.expect(100)  # begun anew
    assert counters.figures() == (0, 2, 30, 130)
    known.arrived(110)
    assert counters.figures() == (0, 2, 140, 140)
    unknown.arrived(7)
    unknown.done()
    for _ in range(2):
        known.end()
    assert counters.figures() == (1, 2, 147, 147)


# -- on a terminal -----------------------------------------------------------------------------------------------

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_FILES = re.compile(r"files +(\d+) of (\d+), ([\d.]+) (\w+) of ([\d.]+) (\w+)")


async def test_the_display_of_a_pass_makes_sense(tmp_path: Path) -> None:
    """Everything but one file is fetched while its picture is looked at."""
    async with following(mixed(), tmp_path / "pypi", Options()) as one:
        (tmp_path / "heliostat.toml").write_text(
            f'[mirror]\ndirectory = "pypi"\neverything = true\n[upstream]\nurl = "{one.server.url}"\nallow-http = true\n'
        )
        hanging: Fault = one.server.fault("/packages/*/large-1.0.zip", Hang(4 << 20))
        terminal, end = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "heliostat", "mirror", "--once",
            cwd=tmp_path, env=environment(tmp_path, TERM="xterm", COLUMNS="100"), stderr=end,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.close(end)
        shown = ""
        while not re.search(r"files +5 of 6, 10.0 MiB", plain(shown)):
            shown += (await asyncio.to_thread(os.read, terminal, 65536)).decode()
        hanging.release()
        await asyncio.to_thread(drain, terminal)
        out, _ = await process.communicate()
        os.close(terminal)
    assert process.returncode == 0, out
    pictures = _FILES.findall(plain(shown))
    for done, total, received, unit, expected, of in pictures:
        assert int(done) <= int(total)
        assert 0 <= float(received) * _UNITS[unit] <= float(expected) * _UNITS[of]
    assert ("5", "6") in {picture[:2] for picture in pictures}
    assert pictures[-1][4:] == ("11.0", "MiB")
    assert re.search(r"pace +(?!0 B)[\d.]+ \w+/s", plain(shown))


def plain(shown: str) -> str:
    """What a terminal was sent, without what moves and colours it."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)


def drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # the other end was closed
        pass
