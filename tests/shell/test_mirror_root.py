"""The root pages: whatever way they were written, they are what the ledger says, and so are their gzipped copies."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import sdist
from heliostat.mirror.root import entries
from heliostat.pages.render import root_html, root_json
from heliostat.state.ledger import Ledger
from support.mirrors import Followed, following

JSON, HTML, PACKED = "index.v1_json", ("index.html", "index.v1_html"), ("index.html.gz", "index.v1_html.gz")


def some_projects(count: int = 40) -> Index:
    index = Index()
    for number in range(count):
        index.create(f"Some.Project-{number}")
    return index


def check(one: Followed) -> None:
    """The pages are byte for byte what is rendered from the ledger."""
    ledger = Ledger(str(one.directory / "heliostat.db"))
    try:
        root = one.web / "simple"
        assert (root / JSON).read_bytes() == b"".join(root_json(entries(ledger), ledger.root_serial()))
        assert (root / HTML[0]).read_bytes() == b"".join(root_html(entries(ledger)))
        assert (root / HTML[0]).stat().st_ino == (root / HTML[1]).stat().st_ino
        assert ledger.root_changed(9) == []
    finally:
        ledger.close()


async def test_changes_of_every_kind_are_put_into_the_pages_that_are_there(tmp_path: Path) -> None:
    index, chance = some_projects(), random.Random(1)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        check(one)
        for step in range(12):
            names = sorted(index.projects())
            index.publish(chance.choice(names), f"1.{step}", uploaded(sdist("x", f"1.{step}")))
            index.create(f"new-{chance.randrange(10**6)}")
            index.remove_project(chance.choice(names))
            index.publish(chance.choice(sorted(index.projects())).upper(), f"2.{step}")
            index.quarantine(chance.choice(sorted(index.projects())))
            await one.attempt(allow_removals=2)
            check(one)


@pytest.mark.parametrize("name", ["zebra", "aardvark"])
async def test_a_new_project_among_very_many_changed_ones_is_listed(tmp_path: Path, name: str) -> None:
    index = some_projects(150)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        for number in range(100):
            index.publish(f"Some.Project-{number}", "1.0")
        index.create(name)
        await one.sync()
        assert f'href="{name}/"' in (one.web / "simple" / HTML[0]).read_text()
        check(one)
        index.remove_project(name)
        for number in range(100):
            index.publish(f"Some.Project-{number}", "1.1")
        await one.sync(allow_removals=1)
        assert f'href="{name}/"' not in (one.web / "simple" / HTML[0]).read_text()
        check(one)


async def test_serials_alone_leave_the_html_page_alone(tmp_path: Path) -> None:
    index = some_projects(3)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        before = one.listing()
        index.touch("some-project-1")
        await one.sync()
        after = one.listing()
        assert after["web/simple/index.html"] == before["web/simple/index.html"]
        assert after["web/simple/index.v1_json"].inode != before["web/simple/index.v1_json"].inode
        seconds = [found["web/simple/index.v1_json"].mtime_ns // 10**9 for found in (before, after)]
        assert seconds[0] < seconds[1]
        check(one)


@pytest.mark.parametrize("odd", [b"", b"{}", b'{"meta":{},"projects":[{"name":"a"}]}\n', None])
async def test_a_page_that_somebody_else_wrote_is_written_as_a_whole(odd: bytes | None, tmp_path: Path) -> None:
    index = some_projects(5)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        for name in (JSON, *HTML):
            page = one.web / "simple" / name
            body = page.read_bytes()
            page.unlink()
            page.write_bytes(body.replace(b"roject-2", b"roject-7") if odd is None else odd)
        os.unlink(one.web / "simple" / HTML[1])
        os.link(one.web / "simple" / HTML[0], one.web / "simple" / HTML[1])
        index.create("one-more")
        await one.sync()
        check(one)


async def test_gzipped_copies_follow_their_pages_and_go_when_they_are_not_wanted(tmp_path: Path) -> None:
    index = some_projects(5)
    async with following(index, tmp_path / "mirror") as one:
        root = one.web / "simple"
        await one.sync()
        plain = one.listing()
        assert not list(root.glob("*.gz"))

        one.configure(gzip_root=True)
        await one.sync()
        first = one.listing()
        assert first.items() >= {key: value for key, value in plain.items() if key.startswith("web/")}.items()
        check_copies(root)

        await one.sync()
        assert one.listing() == first

        index.touch("some-project-1")
        await one.sync()
        second = one.listing()
        check(one)
        check_copies(root)
        assert second[f"web/simple/{PACKED[0]}"] == first[f"web/simple/{PACKED[0]}"]
        assert second[f"web/simple/{JSON}.gz"].mtime_ns > first[f"web/simple/{JSON}.gz"].mtime_ns

        (root / f"{JSON}.gz").unlink()
        os.utime(root / PACKED[0], (1, 1))
        await one.sync()
        check_copies(root)

        one.configure(gzip_root=False)
        await one.sync()
        assert not list(root.glob("*.gz"))
        check(one)


def check_copies(root: Path) -> None:
    """Each is of its page, has its time, and says nothing of when it was made."""
    for name in (JSON, *HTML):
        page, copy = root / name, root / f"{name}.gz"
        assert gzip.decompress(copy.read_bytes()) == page.read_bytes()
        assert copy.stat().st_mtime_ns == page.stat().st_mtime_ns
        assert copy.read_bytes()[4:8] == bytes(4)
    assert (root / PACKED[0]).stat().st_ino == (root / PACKED[1]).stat().st_ino


async def test_a_poll_that_finds_nothing_asks_once_and_leaves_no_trace(tmp_path: Path) -> None:
    async with following(some_projects(3), tmp_path / "mirror", gzip_root=True) as one:
        await one.sync()
        before, folders = one.listing(), folder_times(one.directory)
        one.server.reset_log()
        summary = await one.sync()
        assert (summary.requests, len(one.server.requests)) == (1, 1)
        assert one.server.total_bytes < 1024
        assert one.listing() == before
        # Not even for a moment: a file made and removed again would show in its directory's time.
        assert folder_times(one.directory) == folders


def folder_times(directory: Path) -> dict[str, int]:
    return {folder: os.stat(folder).st_mtime_ns for folder, _, _ in os.walk(directory)}


@pytest.mark.parametrize("name", ["web/last-modified", "status"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path.name), Path.mkdir])
async def test_what_lies_where_a_small_file_belongs_holds_nothing_up(
    make: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    async with following(some_projects(3), tmp_path / "mirror") as one:
        await one.sync()
        path = one.directory / name
        path.unlink()
        make(path)
        if path.is_dir():
            (path / "kept").write_text("somebody's")
        one.index.publish("new", "1.0", UploadedFile("new-1.0.zip", b"new"))
        await one.sync()
        assert path.is_file()
        assert not path.is_symlink()
