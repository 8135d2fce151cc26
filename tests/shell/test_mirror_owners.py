"""Whose a file is, where its name does not tell it; and its time, where it was uploaded more than once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import Refused
from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.faults import Status
from heliostat.mirror.owners import possible_owners, tells_owner
from heliostat.names import normalise
from support.disks import WatchedDisk
from support.equality import differences
from support.mirrors import Followed, following, rebuild, rewritten
from support.suffering import assert_owed

MOMENT, LATER = "2026-02-03T04:05:06.000000Z", "2026-03-04T05:06:07.000000Z"

Change = Callable[[Index], object]


def animals() -> Index:
    index = Index()
    for name in ("ant", "bee", "cat", "dog", "eel", "fox"):
        index.publish(name, "1.0", UploadedFile(f"{name}-1.0.zip", f"the bytes of {name}".encode()))
    for version in ("1.0", "2.0"):
        index.publish("old", version, UploadedFile(f"old-{version}.zip", version.encode(), sidecar=b"Name: old\n"))
    return index


def odd(time: str = MOMENT, *, sidecar: bytes | None = None) -> UploadedFile:
    """A file whose name tells of no project."""
    return UploadedFile("odd.zip", b"the same bytes", upload_time=time, sidecar=sidecar)


def handed_over(index: Index, giver: str, taker: str) -> None:
    index.remove_release(giver, "3.0")
    index.publish(taker, "3.0", odd())


STORIES: dict[str, list[Change]] = {
    "renamed": [
        lambda index: index.rename("old", "new"),
        lambda index: index.remove_release("new", "1.0"),
        lambda index: index.remove_project("new"),
    ],
    "renamed-twice": [
        lambda index: index.rename("old", "new"),
        lambda index: index.rename("new", "newest"),
        lambda index: index.remove_release("newest", "1.0"),
        lambda index: index.remove_project("newest"),
    ],
    "renamed-and-back": [
        lambda index: index.rename("old", "new"),
        lambda index: index.rename("new", "newest"),
        lambda index: index.rename("newest", "old"),
        lambda index: index.remove_project("old"),
    ],
    "twins": [
        lambda index: [index.publish(name, "3.0", odd()) for name in ("ant", "bee")],
        lambda index: index.remove_release("ant", "3.0"),
        lambda index: index.remove_release("bee", "3.0"),
    ],
    "twins-one-after-the-other": [
        lambda index: index.publish("ant", "3.0", odd()),
        lambda index: index.publish("bee", "3.0", odd()),
        lambda index: index.publish("cat", "3.0", odd()),
        lambda index: index.remove_release("bee", "3.0"),
        lambda index: index.remove_project("cat"),
        lambda index: index.remove_project("ant"),
    ],
    "twins-with-sidecars": [
        lambda index: [index.publish(name, "3.0", odd(sidecar=b"Name: odd\n")) for name in ("ant", "bee")],
        lambda index: index.quarantine("ant"),
        lambda index: index.remove_project("bee"),
        lambda index: index.clear_quarantine("ant"),
        lambda index: index.remove_project("ant"),
    ],
    "handed-over": [
        lambda index: index.publish("ant", "3.0", odd()),
        lambda index: handed_over(index, "ant", "bee"),
        lambda index: handed_over(index, "bee", "ant"),
        lambda index: index.remove_release("ant", "3.0"),
    ],
}


@pytest.mark.parametrize("rebuilt", [False, True], ids=["", "rebuilt"])
@pytest.mark.parametrize("story", list(STORIES))
async def test_bytes_go_with_their_last_page(story: str, rebuilt: bool, tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        for change in STORIES[story]:
            change(one.index)
            await one.sync()
            assert differences(one.index, tmp_path) == []
            if rebuilt:
                await rebuild(one.config)


async def test_what_one_gives_up_another_takes_in_the_same_pass(tmp_path: Path) -> None:
    """Each looks when the other has finished: bytes that a page is about to name are not removed."""
    async with following(animals(), tmp_path, batch_seconds=0.2) as one:
        for number in range(20):
            one.index.publish(
                "ant", f"3.{number}", UploadedFile(f"odd-{number}.zip", b"%d" % number, upload_time=MOMENT)
            )
        await one.sync()
        for number in range(20):
            one.index.remove_release("ant", f"3.{number}")
            one.index.publish(
                "bee", f"3.{number}", UploadedFile(f"odd-{number}.zip", b"%d" % number, upload_time=MOMENT)
            )
        await one.sync()
        assert differences(one.index, tmp_path) == []


async def test_upstreams_without_digests_of_places_have_twins_too(tmp_path: Path) -> None:
    """MD5 alone and no path made of a digest: where a file belongs is known only when its bytes are there."""
    async with following(animals(), tmp_path, batch_seconds=0.2) as one:
        for name in ("ant", "bee"):
            file = UploadedFile(
                "odd.zip", Virtual(1000, 7), upload_time=MOMENT, hashes="md5", path_form=f"/f/{name}/odd.zip",
                sidecar=b"Name: odd\n",
            )  # fmt: skip
            one.index.publish(name, "3.0", file)
        await one.sync()
        assert len(list((tmp_path / "web/packages").rglob("odd.zip"))) == 1
        one.index.remove_project("ant")
        await one.sync()
        assert len(list((tmp_path / "web/packages").rglob("odd.zip*"))) == 2
        one.index.remove_project("bee")
        await one.sync()
        assert list((tmp_path / "web/packages").rglob("odd.zip*")) == []


# The time of the upload.


def mtime_of(directory: Path, file: UploadedFile) -> int:
    return os.stat(directory / "web" / file.path.lstrip("/")).st_mtime_ns


@pytest.mark.parametrize("whole", [False, True], ids=["file", "project"])
async def test_the_same_bytes_uploaded_again(whole: bool, tmp_path: Path) -> None:
    index = animals()
    async with following(index, tmp_path) as one:
        await one.sync()
        before = one.listing()
        if whole:
            index.remove_project("ant")
        else:
            index.remove_file("ant", "1.0", "ant-1.0.zip")
        index.publish("ant", "1.0", UploadedFile("ant-1.0.zip", b"the bytes of ant"))
        one.server.reset_log()
        await one.sync()
        assert differences(index, tmp_path) == []
        assert one.server.count("/packages/*") == 0
        changed = {path for path in rewritten(before, one.listing()) if path.startswith("web/packages/")}
        assert changed == {"web" + index["ant"].releases["1.0"].files[0].path}


async def test_out_of_reach_and_uploaded_again_meanwhile(tmp_path: Path) -> None:
    index = animals()
    async with following(index, tmp_path) as one:
        await one.sync()
        index.quarantine_release("ant", "1.0")
        await one.sync()
        index.clear_release_quarantine("ant", "1.0")
        index.remove_file("ant", "1.0", "ant-1.0.zip")
        index.publish("ant", "1.0", UploadedFile("ant-1.0.zip", b"the bytes of ant"))
        await one.sync()
        assert differences(index, tmp_path) == []


async def test_a_file_of_two_projects_keeps_its_time_until_one_goes(tmp_path: Path) -> None:
    index = animals()
    first = odd(MOMENT)
    index.publish("ant", "3.0", first)
    async with following(index, tmp_path) as one:
        await one.sync()
        before = mtime_of(tmp_path, first)
        index.publish("bee", "3.0", odd(LATER))
        await one.sync()
        index.touch("bee")
        index.touch("ant")
        await one.sync()
        assert mtime_of(tmp_path, first) == before
        index.remove_project("ant")
        await one.sync()
        assert differences(index, tmp_path) == []
        assert mtime_of(tmp_path, first) != before


async def test_a_file_of_two_projects_that_both_upload_again(tmp_path: Path) -> None:
    index = animals()
    for name in ("ant", "bee"):
        index.publish(name, "3.0", odd(MOMENT))
    async with following(index, tmp_path) as one:
        await one.sync()
        for name in ("ant", "bee"):
            index.remove_release(name, "3.0")
            index.publish(name, "3.0", odd(LATER))
            await one.sync()
            assert differences(index, tmp_path) == []


async def test_a_time_that_a_file_system_keeps_in_whole_seconds_is_left_alone(tmp_path: Path) -> None:
    index = animals()
    async with following(index, tmp_path) as one:
        await one.sync()
        (path,) = one.files("ant").values()
        second = path.stat().st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(second, second))
        index.touch("ant")
        await one.sync()
        assert path.stat().st_mtime_ns == second


async def test_a_time_is_set_before_the_page_says_it(tmp_path: Path) -> None:
    """Where the project cannot be published, its files stay as they are."""
    index = animals()
    async with following(index, tmp_path, Options()) as one:
        await one.sync()
        before = one.listing()
        index.remove_file("ant", "1.0", "ant-1.0.zip")
        index.publish("ant", "1.0", UploadedFile("ant-1.0.zip", b"the bytes of ant"))
        index.publish("ant", "2.0", UploadedFile("ant-2.0.zip", b"more"))
        one.server.fault("/packages/*/ant-2.0.zip", Status(404))
        assert_owed(await one.attempt(), "failing", "404", project="ant")
        same = {path for path in before if path.startswith("web/packages/")}
        assert not same & rewritten(before, one.listing())
        one.server.clear_faults()
        await one.sync()
        assert differences(index, tmp_path) == []


@given(st.text("aB-_.1", min_size=1, max_size=8), st.text("aB-_.1", max_size=8))
def test_a_file_name_tells_its_project_or_does_not(given_name: str, rest: str) -> None:
    try:
        name = normalise(given_name)
    except Refused:
        return
    for filename in (f"{given_name}-{rest}", given_name + rest, f"{name}-{rest}", rest):
        path = f"web/packages/aa/bb/cc/{filename}"
        assert tells_owner(path, name) == any(owner == name for owner in possible_owners(path))


# Asking the neighbours.


class CountingDisk(WatchedDisk):
    """How often each path was read as a whole."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, path: str) -> bytes | None:
        self.reads[path] += 1
        return super().read(path)


def without_times(one: Followed) -> None:
    """As after ``cp -r``."""
    for path in (one.web / "packages").rglob("*.zip"):
        os.utime(path, ns=(1, 1))


def with_other_bytes(one: Followed) -> None:
    """Damaged, and listed by no page of ours yet, so that they are to be replaced."""
    for path in (one.web / "packages").rglob("x-y-*.zip"):
        path.write_bytes(b"damaged")


@pytest.mark.parametrize("spoil", [without_times, with_other_bytes])
async def test_a_page_is_read_once_however_many_files_it_is_asked_about(
    spoil: Callable[[Followed], None], tmp_path: Path
) -> None:
    """``x-y-1.zip`` may be a file of ``x``: its page is asked about each of them, and is read once for all."""
    index, count = Index(), 40
    for name in ("x", "x-y"):
        index.publish(name, "1.0", [UploadedFile(f"{name}-1.{n}.zip", f"{name}{n}".encode()) for n in range(count)])
    async with following(index, tmp_path) as one:
        if spoil is with_other_bytes:  # the others are in place then, ahead of the page
            one.server.fault("/packages/*/x-y-1.39.zip", Status(404))
        await one.attempt()
        one.server.clear_faults()
        spoil(one)
        for name in ("x", "x-y"):
            index.touch(name)
        disk = CountingDisk(str(tmp_path))
        await one.sync(disk=disk)
        assert differences(index, tmp_path) == []
        assert disk.reads["web/simple/x/index.v1_json"] <= 4
        assert disk.reads["web/simple/x-y/index.v1_json"] <= 4
