"""What is new is looked at just before it is written, however much there is of it, and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Hang, Status
from support.daemon_process import until
from support.equality import differences
from support.mirrors import following, listing

#: So many projects in such batches that another process writes them.
MANY: Any = {"batch_projects": 2, "projects_at_once": 4, "retries": 1}
SOMEBODYS = b"somebody's"


def brought(index: Index, files: int) -> Index:
    """Many projects, the last one of which has so many files."""
    for number in range(24):
        index.publish(f"new-{number:02}", "1.0", UploadedFile(f"new-{number:02}-1.0.tar.gz", b"new %d" % number))
    uploads = [UploadedFile(f"the_one-1.0-{one}-py3-none-any.whl", b"the one's %d" % one) for one in range(files)]
    index.publish("the-one", "1.0", uploads)
    return index


async def place_of_first(directory: Path, files: int) -> str:
    """Where the first file of that project lies in a mirror."""
    async with following(brought(Index(), files), directory, **MANY) as other:
        await other.sync()
        return other.files("the-one")["the_one-1.0-0-py3-none-any.whl"].relative_to(directory).as_posix()


class Log(logging.Handler):
    """The mirror's log, to be waited for."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def found(self, pattern: str) -> list[re.Match[str]]:
        return [found for line in self.lines if (found := re.search(pattern, line))]


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("heliostat")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def put(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(SOMEBODYS)


@pytest.mark.parametrize("files", [1, 60, 70, 200], ids=["one", "some", "many", "very-many"])
async def test_a_file_in_the_place_of_one_of_its_files_stays(files: int, tmp_path: Path, log: Log) -> None:
    """So many that they are placed ahead of their pages, too."""
    place = await place_of_first(tmp_path / "other", files)
    log.lines.clear()
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        put(one.directory / place)
        brought(one.index, files)
        summary = await one.attempt()
        assert len(log.found("process [0-9]+ writes")) == 1
        assert [(owed.project, owed.state) for owed in summary.owed] == [("the-one", "blocked")]
        assert (one.directory / place).read_bytes() == SOMEBODYS
        (one.directory / place).unlink()
        assert (await one.attempt(full=True)).complete
        assert differences(one.index, one.directory) == []


async def test_a_link_to_itself_above_a_place_concerns_its_own_project(tmp_path: Path) -> None:
    place = await place_of_first(tmp_path / "other", 2)
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        loop = (one.directory / place).parents[2]
        loop.symlink_to(loop.name)
        brought(one.index, 2)
        summary = await one.attempt()
        assert "the-one" in [owed.project for owed in summary.owed]
        assert summary.added + len(summary.owed) == 25
        assert summary.store_error is None
        loop.unlink()
        assert (await one.attempt(full=True)).complete
        assert differences(one.index, one.directory) == []


async def test_it_stays_where_another_file_of_the_project_fails(tmp_path: Path, log: Log) -> None:
    place = await place_of_first(tmp_path / "other", 2)
    log.lines.clear()
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        put(one.directory / place)
        brought(one.index, 2)
        fault = one.server.fault("/packages/*the_one-1.0-1-*", Status(404))
        summary = await one.attempt()
        assert len(log.found("process [0-9]+ writes")) == 1
        assert [owed.project for owed in summary.owed] == ["the-one"]
        assert (one.directory / place).read_bytes() == SOMEBODYS
        fault.remove()
        (one.directory / place).unlink()
        assert (await one.attempt(full=True)).complete
        assert differences(one.index, one.directory) == []


async def test_it_stays_where_the_process_that_writes_is_lost_meanwhile(tmp_path: Path, log: Log) -> None:
    place = await place_of_first(tmp_path / "other", 2)
    log.lines.clear()
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        brought(one.index, 2)
        held = one.server.fault("/packages/*the_one-1.0-0-*", Hang())
        rest = one.server.fault("/packages/*new_23*", Hang())
        attempt = asyncio.create_task(one.attempt())
        await until(lambda: one.server.count("/packages/*the_one-1.0-0-*"))
        put(one.directory / place)
        (begun,) = log.found("process ([0-9]+) writes")
        os.kill(int(begun[1]), signal.SIGKILL)
        rest.release()
        await until(lambda: log.found("the process that writes has ended"))
        held.release()
        summary = await attempt
        assert [(owed.project, owed.state) for owed in summary.owed] == [("the-one", "blocked")]
        assert (one.directory / place).read_bytes() == SOMEBODYS
        assert listing(one.directory)[place].size == len(SOMEBODYS)
