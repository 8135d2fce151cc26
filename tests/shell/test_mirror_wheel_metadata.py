"""Sidecars that are in their wheels are not asked for; all others are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex.index import Index
from heliostat.fakeindex.project import UploadedFile
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import Built, wheel
from heliostat.mirror.download import SMALL
from support.equality import differences
from support.mirrors import Followed, following
from support.suffering import lie

SIDECARS = "/packages/*.metadata"


def large_wheel(name: str, version: str) -> Built:
    """More than is taken in memory, with a list of its content longer than what is read at first."""
    lines = "\n".join(f"x{number} = '{os.urandom(50).hex()}'" for number in range(SMALL // 60))
    built = wheel(name, version, code=lines)
    assert len(built.data) > SMALL
    return built


def index_of(*built: Built) -> Index:
    index = Index()
    index.publish("demo", "1.0", [uploaded(one) for one in built])
    return index


async def asked(one: Followed) -> int:
    """How many sidecars were asked for in a pass, which must make the mirror equal."""
    one.server.reset_log()
    await one.sync()
    assert differences(one.index, one.directory) == []
    return one.server.count(SIDECARS)


@pytest.mark.parametrize("build", [wheel, large_wheel])
async def test_it_is_taken_out_of_the_wheel(tmp_path: Path, build: Callable[[str, str], Built]) -> None:
    built = build("demo", "1.0")
    async with following(index_of(built), tmp_path) as one:
        assert await asked(one) == 0
        (sidecar,) = tmp_path.glob("web/packages/*/*/*/*.metadata")
        assert sidecar.read_bytes() == built.metadata


async def test_something_else_than_in_the_wheel_is_asked_for(tmp_path: Path) -> None:
    built = wheel("demo", "1.0")
    index = Index()
    index.publish("demo", "1.0", [uploaded(built, sidecar=built.metadata + b"\n")])
    async with following(index, tmp_path) as one:
        assert await asked(one) == 1


async def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    index = Index()
    index.publish("demo", "1.0", [UploadedFile("demo-1.0-py3-none-any.whl", b"PK", sidecar=b"Name: demo\n")])
    async with following(index, tmp_path) as one:
        assert await asked(one) == 1


@pytest.mark.parametrize("build", [wheel, large_wheel])
async def test_one_that_comes_late_is_in_the_wheel_that_is_here(
    tmp_path: Path, build: Callable[[str, str], Built]
) -> None:
    built = build("demo", "1.0")
    index = Index()
    index.publish("demo", "1.0", [uploaded(built, sidecar=None)])
    async with following(index, tmp_path) as one:
        await one.sync()
        index.add_late_sidecar("demo", "1.0", built.filename, built.metadata)
        index.yank("demo", "1.0")
        one.server.reset_log()
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert one.server.count(SIDECARS) == 0
        assert one.server.count("/packages/*.whl") == 0


async def test_upstream_that_gives_no_digest_is_asked(tmp_path: Path) -> None:
    def without_digests(page: Any) -> None:
        for file in page["files"]:
            file["core-metadata"] = file["data-dist-info-metadata"] = True

    async with following(index_of(wheel("demo", "1.0")), tmp_path) as one:
        lie(one.server, without_digests)
        await one.sync()
        assert one.server.count(SIDECARS) == 1
