"""A project with a large page lies aside while its files are fetched, and comes out as any other one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from heliostat.fakeindex import Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.project import Hashes
from heliostat.mirror.report import Counters
from support.equality import differences
from support.mirrors import Followed, following, owed_names

#: More than are read from, or written to, the disk at once.
COUNT = 600
VERSIONS = ">=3.6" + ",!=3.5.*" * 250


def files(release: str = "1.0", count: int = COUNT, hashes: Hashes = "all") -> list[UploadedFile]:
    """Small files, every tenth with a sidecar, whose page is large."""
    return [
        UploadedFile(
            f"whale-{release}.{n}.zip", b"%d" % n, requires_python=VERSIONS, hashes=hashes,
            sidecar=b"Name: whale %d\n" % n if n % 10 == 0 else None,
        )
        for n in range(count)
    ]  # fmt: skip


def whale(more: Sequence[UploadedFile] = ()) -> Index:
    index = Index()
    index.publish("whale", "1.0", [*files(), *more])
    return index


def assert_equal(one: Followed) -> None:
    assert differences(one.index, one.directory) == []
    assert list((one.directory / "partial").iterdir()) == []


async def test_what_was_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    async with following(whale([UploadedFile("whale-1.0.tar.gz", Virtual(3 << 20, 1))]), tmp_path) as one:
        counters = Counters()
        await one.sync(counters=counters)
        assert_equal(one)
        assert counters.files_done == counters.files_total == COUNT + COUNT // 10 + 1
        assert counters.bytes_done == counters.bytes_total
        one.index.publish("whale", "2.0", files("2.0", 10))
        one.server.reset_log()
        await one.sync()
        assert_equal(one)
        assert one.server.count("/packages/*") == 10 + 1
        one.index.remove_release("whale", "1.0")
        await one.sync()
        assert_equal(one)


async def test_one_file_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    async with following(whale(), tmp_path) as one:
        one.server.fault("/packages/*/whale-1.0.99.zip", Status(404))
        counters = Counters()
        assert owed_names(await one.attempt(counters=counters)) == ["whale"]
        assert counters.files_done < counters.files_total
        assert counters.bytes_done == counters.bytes_total
        one.server.clear_faults()
        one.server.reset_log()
        await one.sync()
        assert_equal(one)
        assert one.server.count("/packages/*") < 40  # it is the last one, and what was under way is given up with it


async def test_where_a_file_belongs_is_known_when_its_bytes_are_there(tmp_path: Path) -> None:
    """md5 alone; and two projects with all of their names in common."""
    index = Index()
    for name in ("whale", "orca"):
        index.publish(name, "1.0", files(hashes="md5"))
    async with following(index, tmp_path) as one:
        await one.sync()
        assert_equal(one)
        damaged = one.files("whale")["whale-1.0.7.zip"]
        one.index.publish("whale", "2.0", files("2.0", 10, hashes="md5"))
        damaged.unlink()
        await one.sync()
        assert_equal(one)
