"""Quarantine: the page stays and offers nothing, the bytes are moved out of reach, and come back when it is lifted."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.fakeindex import Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from support.equality import differences
from support.mirrors import Followed, Found, following


def animals() -> Index:
    index = Index()
    for name in ("ant", "bee", "cat", "dog"):
        for version in ("1.0", "2.0"):
            index.publish(name, version, [uploaded(wheel(name, version)), uploaded(sdist(name, version))])
    file = index["ant"].releases["1.0"].files[0]
    index.set_provenance("ant", "1.0", file.filename, provenance_for(file))
    return index


def bytes_of(one: Followed, part: str, top: str = "web") -> dict[str, Found]:
    """What lies in the store, or out of reach, of paths that contain ``part``; by paths below ``packages/``."""
    prefix = f"{top}/packages/"
    return {
        path.removeprefix(prefix): found
        for path, found in one.listing().items()
        if path.startswith(prefix) and part in path
    }


@pytest.mark.parametrize("options", [Options(), Options.static()], ids=["feed", "list"])
async def test_the_bytes_are_moved_and_come_back(tmp_path: Path, options: Options) -> None:
    async with following(animals(), tmp_path, options) as one:
        await one.sync()
        bytes_before, others = bytes_of(one, "ant-"), bytes_of(one, "bee-")
        assert len(bytes_before) == 6
        one.index.quarantine("ant")
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert summary.removed == 0
        assert bytes_of(one, "ant-") == {}
        assert bytes_of(one, "ant-", "withheld") == bytes_before  # the same inodes: moved, not copied
        page = one.page("ant")
        assert (page["files"], page["project-status"]["status"]) == ([], "quarantined")
        assert b"quarantined" in (tmp_path / "web/simple/ant/index.html").read_bytes()
        assert not (tmp_path / "web/json/ant").exists()
        assert not (tmp_path / "web/pypi/ant").exists()
        assert "ant" not in one.root()

        one.server.reset_log()
        one.index.clear_quarantine("ant")
        summary = await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-") == bytes_before
        assert bytes_of(one, "ant-", "withheld") == {}
        assert one.server.count("/packages/*") == 0
        assert bytes_of(one, "bee-") == others
        assert "ant" in one.root()
        assert not any(path.startswith("withheld/") for path in one.listing())


async def test_the_bytes_of_one_release(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before, kept = bytes_of(one, "ant-2.0"), bytes_of(one, "ant-1.0")
        one.index.quarantine_release("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0") == {}
        assert bytes_of(one, "ant-2.0", "withheld") == before
        assert bytes_of(one, "ant-1.0") == kept
        assert one.page("ant")["versions"] == ["1.0"]
        one.index.touch("ant")
        await one.sync()
        assert bytes_of(one, "ant-2.0", "withheld") == before
        one.server.reset_log()
        one.index.clear_release_quarantine("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0") == before
        assert one.server.count("/packages/*") == 0


async def test_two_releases_one_of_which_is_cleared(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = bytes_of(one, "ant-")
        one.index.quarantine_release("ant", "2.0")
        await one.sync()
        one.index.quarantine_release("ant", "1.0")
        await one.sync()
        assert bytes_of(one, "ant-", "withheld") == before
        one.server.reset_log()
        one.index.clear_release_quarantine("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.index.clear_release_quarantine("ant", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-") == before
        assert one.server.count("/packages/*") == 0


async def test_a_release_in_quarantine_among_other_news(tmp_path: Path) -> None:
    """The quarantine is not the last thing that happened between two polls."""
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = bytes_of(one, "ant-2.0")
        one.index.quarantine_release("ant", "2.0")
        one.index.publish("ant", "3.0", [uploaded(wheel("ant", "3.0"))])
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0", "withheld") == before
        one.server.reset_log()
        one.index.clear_release_quarantine("ant", "2.0")
        one.index.yank("ant", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0") == before
        assert one.server.count("/packages/*") == 0


async def test_a_release_in_quarantine_that_is_removed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.quarantine_release("ant", "2.0")
        await one.sync()
        one.index.remove_release("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0", "withheld") == {}


async def test_a_quarantined_release_of_a_quarantined_project(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = bytes_of(one, "ant-")
        one.index.quarantine_release("ant", "2.0")
        await one.sync()
        one.index.quarantine("ant")
        await one.sync()
        assert bytes_of(one, "ant-", "withheld") == before
        one.server.reset_log()
        one.index.clear_quarantine("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0") == {}
        one.index.clear_release_quarantine("ant", "2.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-") == before
        assert one.server.count("/packages/*") == 0


async def test_quarantined_and_then_removed(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        one.index.quarantine("ant")
        await one.sync()
        one.index.remove_project("ant")
        summary = await one.sync()
        assert summary.removed == 1
        assert differences(one.index, tmp_path) == []
        assert not any("ant-" in path for path in one.listing())


async def test_quarantined_and_then_removed_where_there_is_only_a_list(tmp_path: Path) -> None:
    """Absent before and after: the slow sweep finds it, and the absence is its second sign."""
    async with following(animals(), tmp_path, Options(xmlrpc=False), heartbeat=0.0) as one:
        await one.sync()
        one.index.quarantine("ant")
        await one.sync()
        one.index.remove_project("ant")
        one.configure(sweep_days=1e-12)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert not any("ant-" in path for path in one.listing())


async def test_quarantined_and_lifted_with_a_file_less(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        kept = bytes_of(one, "ant-2.0")
        one.index.quarantine("ant")
        await one.sync()
        one.index.remove_release("ant", "1.0")
        one.index.clear_quarantine("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-") == kept
        assert bytes_of(one, "", "withheld") == {}


def withheld(one: Followed) -> set[str]:
    """The files that are kept out of reach."""
    return {path.rpartition("/")[2] for path in one.listing() if path.startswith("withheld/packages/")}


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_release_that_is_removed_in_quarantine_is_not_kept(tmp_path: Path, release_first: bool) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        if release_first:
            one.index.quarantine_release("ant", "1.0")
            await one.sync()
        one.index.quarantine("ant")
        if not release_first:
            await one.sync()
            assert len(withheld(one)) == 6
        one.index.remove_release("ant", "1.0")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.index.clear_quarantine("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert len(one.files("ant")) == 2


async def test_a_file_that_is_removed_in_quarantine_is_not_kept(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        file = one.index["ant"].releases["1.0"].files[0]
        one.index.quarantine("ant")
        one.index.remove_file("ant", "1.0", file.filename)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        one.index.remove_file("ant", "2.0", one.index["ant"].releases["2.0"].files[0].filename)
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert len(withheld(one)) == 2


async def test_a_release_that_is_removed_and_comes_back_in_quarantine_is_kept(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        files = one.index["ant"].releases["1.0"].files
        one.index.remove_release("ant", "1.0")
        one.index.publish("ant", "1.0", files)
        one.index.quarantine("ant")
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert len(withheld(one)) == 6


async def test_without_a_feed_what_is_removed_in_quarantine_is_kept_until_it_ends(tmp_path: Path) -> None:
    async with following(animals(), tmp_path, Options.static()) as one:
        await one.sync()
        one.index.quarantine("ant")
        await one.sync()
        one.index.remove_release("ant", "1.0")
        await one.sync()
        assert len(withheld(one)) == 6
        one.index.clear_quarantine("ant")
        await one.sync()
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []
        assert withheld(one) == set()


async def test_quarantined_before_it_was_ever_mirrored(tmp_path: Path) -> None:
    index = animals()
    index.quarantine("ant")
    async with following(index, tmp_path) as one:
        await one.sync()
        index.touch("bee")
        await one.sync()
        assert differences(index, tmp_path) == []
        index.clear_quarantine("ant")
        await one.sync()
        assert differences(index, tmp_path) == []
        assert len(one.files("ant")) == 4


async def test_quarantined_and_lifted_between_two_polls(tmp_path: Path) -> None:
    async with following(animals(), tmp_path) as one:
        await one.sync()
        before = bytes_of(one, "ant-")
        one.index.quarantine("ant")
        one.index.clear_quarantine("ant")
        one.server.reset_log()
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-") == before
        assert one.server.count("/packages/*") == 0


async def test_bytes_that_another_project_offers_stay(tmp_path: Path) -> None:
    index = animals()
    for name in ("twin", "twin-1"):
        index.publish(name, "1.0", [UploadedFile("twin-1-0.zip", Virtual(500, 7), upload_time="2024-05-06T07:08:09Z")])
    async with following(index, tmp_path) as one:
        await one.sync()
        before = bytes_of(one, "twin-")
        index.quarantine("twin")
        await one.sync()
        assert differences(index, tmp_path) == []
        assert bytes_of(one, "twin-") == before
        index.clear_quarantine("twin")
        await one.sync()
        assert differences(index, tmp_path) == []
        index.remove_project("twin")
        await one.sync()
        assert differences(index, tmp_path) == []
        assert bytes_of(one, "twin-") == before


@pytest.mark.parametrize("changes", ["auto", "feed"])
async def test_what_happens_beside_a_full_comparison_is_not_lost(tmp_path: Path, changes: str) -> None:
    """No list tells of a release in quarantine, or of what becomes of a project in quarantine."""
    async with following(animals(), tmp_path, changes=changes) as one:
        await one.sync()
        one.index.quarantine("bee")
        await one.sync()
        before = bytes_of(one, "ant-2.0")
        one.index.quarantine_release("ant", "2.0")
        one.index.remove_project("bee")
        await one.sync(full=True)
        assert differences(one.index, tmp_path) == []
        assert bytes_of(one, "ant-2.0", "withheld") == before


async def test_a_file_of_many_megabytes_is_not_fetched_again(tmp_path: Path) -> None:
    index = animals()
    index.publish("elk", "1.0", [UploadedFile("elk-1.0.zip", Virtual(6 << 20, 5))])
    async with following(index, tmp_path) as one:
        await one.sync()
        index.quarantine("elk")
        await one.sync()
        index.clear_quarantine("elk")
        one.server.reset_log()
        summary = await one.sync()
        assert one.server.total_bytes < 100_000
        assert summary.bytes_fetched == 0
        assert differences(index, tmp_path) == []
