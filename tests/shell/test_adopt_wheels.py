"""A plain directory of wheels and sdists: what is there and right is not fetched."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from heliostat.errors import ConfigError
from heliostat.mirror.adopt.report import Finding, Result
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from support.adopted import ALPHA, SDIST, WHEEL, fetched, old_index
from support.mirrors import Followed, following
from support.verified import findings as verify_findings


async def take_in(one: Followed) -> tuple[Result, list[Finding]]:
    async with Mirror.open(one.config) as mirror:
        result, record = await mirror.take_in(counters=Counters(), stop=asyncio.Event())
        return result, list(record)


async def test_a_plain_directory_of_wheels(tmp_path: Path) -> None:
    """Of projects in scope nothing is fetched that lies there and is right; what upstream does not know is left over."""
    async with following(old_index(), tmp_path / "mirror", projects=("alpha", "beta", "Foo.Bar_Baz")) as one:
        wheels = one.directory / "wheels/deep"
        wheels.mkdir(parents=True)
        wanted = {"alpha", "beta", "foo-bar-baz"}
        for name in one.index.projects():
            for each in one.index.expected_files(name):
                (wheels / each.file.filename).write_bytes(each.file.content.read(0, each.file.content.size))
        (wheels / "alpha-99-py3-none-any.whl").write_bytes(b"made here")
        (wheels / WHEEL).write_bytes(b"damaged")
        (wheels / "notes.txt").write_bytes(b"")

        result, found = await take_in(one)
        files = sum(len(one.index.expected_files(name)) for name in wanted) + 1
        assert (result.files, result.hashed, result.kinds["placed"]) == (files, files, files)
        assert {each.kind for each in found} == {"placed", "strange"}
        again, _ = await take_in(one)
        assert again.files == files

        await one.sync()
        assert fetched(one) == [WHEEL]
        assert set(one.files("alpha")) == {each.file.filename for each in one.index.expected_files("alpha")}
        assert await verify_findings(one.config) == []
        assert list((one.web / "packages").rglob("alpha-99*")) == []
        assert len(list(wheels.iterdir())) == sum(len(one.index.expected_files(n)) for n in one.index.projects()) + 2


async def test_a_directory_without_wheels_is_refused(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        with pytest.raises(ConfigError, match="no wheels or sdists"):
            await take_in(one)


async def test_of_projects_that_upstream_does_not_have_nothing_stays(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        names = ("made_here-1.0-py3-none-any.whl", "made-here-1.0.tar.gz", "zope-interface-0.9-1.tar.gz", "odd.zip")
        for name in names:
            (one.directory / name).write_bytes(name.encode())
        await take_in(one)
        assert {path.name for path in (one.web / "packages").rglob("*") if path.is_file()} == set(names)
        await one.sync()
        assert [(each.kind, Path(each.path).name) for each in await verify_findings(one.config)] == [
            ("unreferenced", "odd.zip"), ("unreferenced", "odd.zip"),
        ]  # fmt: skip


async def test_what_is_no_plain_file_is_told_and_left_alone(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        wheels = one.directory / "wheels"
        wheels.mkdir()
        (tmp_path / SDIST).write_bytes(b"elsewhere")
        (wheels / SDIST).symlink_to(tmp_path / SDIST)
        os.mkfifo(wheels / "beta-2.0.tar.gz")
        (wheels / "beta-3.0.tar.gz").mkdir()
        (wheels / ALPHA).write_bytes(b"here")
        with open(os.fsencode(wheels) + b"/beta-\xff.tar.gz", "wb") as file:
            file.write(b"named")
        result, found = await take_in(one)
        assert sorted((each.kind, each.path) for each in found) == [
            ("name", "wheels/beta-\\xff.tar.gz"),
            ("placed", f"wheels/{ALPHA}"),
            ("strange", f"wheels/{SDIST}"),
            ("strange", "wheels/beta-2.0.tar.gz"),
        ]
        assert result.files == 1


async def test_no_places_behind_links(tmp_path: Path) -> None:
    async with following(old_index(), tmp_path / "mirror") as one:
        (one.directory / ALPHA).write_bytes(b"here")
        place = one.web / "packages" / hashlib.sha256(b"here").hexdigest()[:2]
        outside = tmp_path / "outside"
        outside.mkdir()
        place.parent.mkdir(parents=True)
        place.symlink_to(outside)
        result, found = await take_in(one)
        assert [each.kind for each in found] == ["obstacle"]
        assert result.differences == 1
        assert list(outside.iterdir()) == []
