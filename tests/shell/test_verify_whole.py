"""A mirror that is as it should be has no findings, whatever it went through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.config import MirrorConfig
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.faults import Status
from heliostat.fakeindex.synthetic import small_index
from heliostat.mirror.verify.again import Pace, beside_mirror
from support.mirrors import Followed, following, rebuild
from support.verified import findings, rich_index, verify


def remove(index: Index) -> None:
    index.remove_project("odd")


def quarantine(index: Index) -> None:
    index.quarantine("beta")


def quarantine_release(index: Index) -> None:
    index.quarantine_release("alpha", "1.1")


def quarantine_and_back(index: Index) -> None:
    index.quarantine("beta")
    index.clear_quarantine("beta")


def yank(index: Index) -> None:
    index.yank("beta", "1.0", 'a "reason" & <more>')


def archive(index: Index) -> None:
    index.archive("beta")


def lose_all_files(index: Index) -> None:
    index.remove_release("beta", "1.0")


def odd_names(index: Index) -> None:
    index.publish("gamma", "1.0", UploadedFile("something-else.zip", b"one"))
    index.publish("delta", "1!2.0+local.1", UploadedFile("delta-1!2.0+local.1.zip", b"two"))
    index.publish("epsilon", "1.0", UploadedFile("epsilon-1.0~a;b.zip", b"three"))


def same_file_twice(index: Index) -> None:
    for name in ("one", "two"):
        index.publish(name, "1.0", UploadedFile("shared-1.0.zip", b"shared"))


def weak_hashes(index: Index) -> None:
    index.publish("weak", "1.0", UploadedFile("weak-1.0.zip", b"one", hashes="md5"))
    index.publish("plain", "1.0", UploadedFile("plain-1.0.zip", b"one", path_form="sha256"))


def rename(index: Index) -> None:
    index.rename("beta", "better")


CHANGES: list[Callable[[Index], None]] = [
    remove,
    quarantine,
    quarantine_release,
    quarantine_and_back,
    yank,
    archive,
    lose_all_files,
    odd_names,
    same_file_twice,
    weak_hashes,
    rename,
]


async def is_whole(one: Followed) -> None:
    before = one.listing()
    for where in (one.config, one.web):
        seen, _ = await verify(where)
        assert seen.findings == [], where
        seen, _ = await verify(where, quick=True)
        assert seen.findings == []
    seen, _ = await verify(one.config, against_upstream=True)
    assert seen.findings == []
    assert one.listing() == before


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_after_a_change(change: Callable[[Index], None], tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        await one.sync()
        await is_whole(one)
        change(one.index)
        await one.sync()
        await is_whole(one)
        await rebuild(one.config)
        await one.attempt()
        await is_whole(one)


@pytest.mark.parametrize(
    "settings",
    [
        {"files": False},
        {"provenance": False},
        {"gzip_root": True},
        {"projects": ("alpha", "beta")},
        {"changes": "list"},
    ],
    ids=str,
)
async def test_with_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror", **settings) as one:
        await one.sync()
        await is_whole(one)
        quarantine(one.index)
        yank_alpha = one.index
        yank_alpha.yank("alpha", "1.0")
        await one.sync()
        await is_whole(one)


async def test_a_larger_index(tmp_path: Path) -> None:
    index = small_index()
    async with following(index, tmp_path / "mirror") as one:
        await one.attempt()
        await is_whole(one)


async def test_upstream_without_documents(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror") as one:
        one.server.fault("/pypi/*/json", Status(404))
        await one.attempt()
        seen, _ = await verify(one.config)
        assert [found for found in seen.findings if found.kind != "document"] == []


def test_what_it_waits_for_beside_a_mirror_are_some_of_its_batches() -> None:
    assert beside_mirror(MirrorConfig.batch_seconds) == Pace(settled=30.0, pause=3.0)
    assert beside_mirror(60.0) == Pace(settled=900.0, pause=90.0)
    assert beside_mirror(0.0) == Pace(settled=5.0, pause=1.0)


async def test_reasons_that_look_like_links_are_none(tmp_path: Path) -> None:
    """They are what an uploader writes."""
    index = rich_index()
    for number, reason in enumerate(('../../../see "url":"../../../there"', "<a href='../../../x'>", '"../../../"')):
        index.publish(f"yanked{number}", "1.0", UploadedFile(f"yanked{number}-1.0.zip", b"y"))
        index.yank(f"yanked{number}", "1.0", reason)
    async with following(index, tmp_path / "mirror") as one:
        await one.sync()
        assert await findings(one.config) == await findings(one.web) == []
        for name in ("index.html", "index.v1_html"):  # as of another mirror: what the page says is compared
            path = one.web / "simple/yanked0" / name
            path.unlink() if name != "index.html" else path.write_bytes(path.read_bytes() + b"\n")
        found = await findings(one.config)
        assert not [each for each in found if "leads above" in each.problem]
