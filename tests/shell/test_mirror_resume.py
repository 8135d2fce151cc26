"""What becomes of a download in progress: resumed, begun again, or not needed; its digest always decides."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat import names
from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Cut, Headers, IgnoreRange, Wrong
from support.equality import differences
from support.mirrors import complete_pass, config_for, run_pass

SIZE = 6 << 20
CONTENT = Virtual(SIZE, 11)
FILE = "/packages/*/large-1.0.tar.gz"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeIndex]:
    index = Index()
    index.publish("large", "1.0", UploadedFile("large-1.0.tar.gz", CONTENT))
    async with FakeIndex(index) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, upstream: FakeIndex) -> Config:
    return config_for(tmp_path / "pypi", upstream)


@pytest.fixture
def part(config: Config) -> Path:
    """Where the download lies while it is in progress."""
    path = Path(config.mirror.directory, names.partial_path("sha256", CONTENT.digests.sha256))
    path.parent.mkdir()
    return path


async def interrupted(config: Config, upstream: FakeIndex, after: float = 0.9) -> None:
    """A pass in which the file never comes further than that."""
    fault = upstream.fault(FILE, Cut(after=after))
    summary = await run_pass(config)
    assert not summary.complete
    fault.remove()
    upstream.reset_log()


async def completed(config: Config, upstream: FakeIndex) -> tuple[list[str | None], int]:
    """A pass that completes; the ranges that it asked for, and the bytes that they cost."""
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []
    assert list(Path(config.mirror.directory, "partial").iterdir()) == []
    asked = [request for request in upstream.requests if request.path.endswith("/large-1.0.tar.gz")]
    return [request.range for request in asked], sum(request.sent for request in asked)


async def test_the_next_pass_goes_on(config: Config, upstream: FakeIndex, part: Path) -> None:
    await interrupted(config, upstream, 0.5)
    there = part.stat().st_size
    assert there >= SIZE // 3  # one try is enough to get further than a third
    ranges, cost = await completed(config, upstream)
    assert ranges == [f"bytes={there}-"]
    assert cost == SIZE - there


async def test_every_try_adds_to_what_the_last_one_brought(config: Config, upstream: FakeIndex) -> None:
    """A try that brought a good part does not count as a failed one, however many it takes."""
    upstream.fault(FILE, Cut(after=float(3 << 19)))
    ranges, cost = await completed(config, upstream)
    assert len(ranges) > config.upstream.retries
    assert SIZE <= cost < 1.3 * SIZE


async def test_the_etag_is_what_resuming_depends_on(config: Config, upstream: FakeIndex, part: Path) -> None:
    await interrupted(config, upstream)
    saved = part.with_suffix(".etag")
    assert saved.read_text() == f'"{CONTENT.digests.md5}"'
    saved.write_text('"of other bytes"')  # to upstream it looks as if the file had changed in between
    ranges, cost = await completed(config, upstream)
    assert (len(ranges), cost) == (1, SIZE)
    assert ranges[0] is not None


async def test_without_etags_the_digest_alone_decides(config: Config, upstream: FakeIndex, part: Path) -> None:
    upstream.options.etags = False
    await interrupted(config, upstream)
    assert not part.with_suffix(".etag").exists()
    _, cost = await completed(config, upstream)
    assert cost < SIZE // 2


async def test_a_weak_etag_is_none(config: Config, upstream: FakeIndex, part: Path) -> None:
    upstream.fault(FILE, Headers({"ETag": 'W/"weak"', "Content-Length": str(SIZE)}), times=1)
    await interrupted(config, upstream)
    assert not part.with_suffix(".etag").exists() or not part.with_suffix(".etag").read_text().startswith("W/")
    await completed(config, upstream)


@pytest.mark.parametrize("how", ["fault", "option"])
async def test_a_server_that_ignores_ranges(config: Config, upstream: FakeIndex, how: str) -> None:
    await interrupted(config, upstream)
    if how == "fault":
        upstream.fault(FILE, IgnoreRange())
    else:
        upstream.options.ranges = False
    ranges, cost = await completed(config, upstream)
    assert (len(ranges), cost) == (1, SIZE)


async def test_damaged_bytes_are_found_and_fetched_again(config: Config, upstream: FakeIndex, part: Path) -> None:
    await interrupted(config, upstream)
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    ranges, cost = await completed(config, upstream)
    assert ranges == [f"bytes={len(data)}-", None]
    assert cost == SIZE - len(data) + SIZE


async def test_a_damaged_file_that_has_its_size_is_fetched_again(
    config: Config, upstream: FakeIndex, part: Path
) -> None:
    data = bytearray(CONTENT.read(0, SIZE))
    data[-1] ^= 1
    part.write_bytes(data)
    assert await completed(config, upstream) == ([None], SIZE)


async def test_a_complete_download_costs_nothing(config: Config, upstream: FakeIndex, part: Path) -> None:
    part.write_bytes(CONTENT.read(0, SIZE))
    assert await completed(config, upstream) == ([], 0)


async def test_a_download_that_was_finished_and_never_placed_costs_nothing(
    config: Config, upstream: FakeIndex, part: Path
) -> None:
    finished = names.finished_path(f"partial/{part.name}", 7)
    Path(config.mirror.directory, finished).write_bytes(CONTENT.read(0, SIZE))
    assert await completed(config, upstream) == ([], 0)


async def test_more_bytes_than_the_file_has(config: Config, upstream: FakeIndex, part: Path) -> None:
    part.write_bytes(CONTENT.read(0, SIZE) + b"more")
    assert await completed(config, upstream) == ([None], SIZE)


async def test_wrong_bytes_are_never_built_upon(config: Config, upstream: FakeIndex, part: Path) -> None:
    wrong = upstream.fault(FILE, Wrong())
    summary = await run_pass(config)
    assert [one.project for one in summary.owed] == ["large"]
    assert wrong.fired == 2
    assert not part.exists()
    wrong.remove()
    upstream.reset_log()
    assert await completed(config, upstream) == ([None], SIZE)


@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "dangling", "circle"])
async def test_what_is_no_file_is_no_download(config: Config, upstream: FakeIndex, part: Path, kind: str) -> None:
    outside = part.parent.parent.parent / "outside"
    outside.write_bytes(b"not ours")
    with contextlib.chdir(part.parent), socket.socket(socket.AF_UNIX) as bound:
        if kind == "pipe":
            os.mkfifo(part)
        elif kind == "socket":
            bound.bind(part.name)
        else:
            part.symlink_to({"link": str(outside), "dangling": "../../nothing", "circle": part.name}[kind])
    assert await completed(config, upstream) == ([None], SIZE)
    assert outside.read_bytes() == b"not ours"
    assert not outside.with_name("nothing").exists()


async def test_what_nobody_wants_any_more_goes(config: Config, upstream: FakeIndex, part: Path) -> None:
    upstream.index.publish("other", "1.0", UploadedFile("other-1.0.tar.gz", b"other"))
    await interrupted(config, upstream)
    assert part.exists()
    upstream.index.remove_file("large", "1.0", "large-1.0.tar.gz")
    assert await completed(config, upstream) == ([], 0)


async def test_two_files_with_the_same_bytes(config: Config, upstream: FakeIndex) -> None:
    """Within one project and in another one: they share what a download is called, and must not share the download."""
    twins = [UploadedFile(f"large-1.0.post{number}.tar.gz", CONTENT) for number in range(3)]
    upstream.index.publish("large", "1.0.post", twins)
    upstream.index.publish("another", "1.0", UploadedFile("another-1.0.tar.gz", CONTENT))
    upstream.index.publish("yet-another", "1.0", UploadedFile("yet_another-1.0.tar.gz", CONTENT))
    await complete_pass(config)
    assert differences(upstream.index, config.mirror.directory) == []
