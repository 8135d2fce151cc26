"""Adoptions in tests: an index with everything that old trees have, and what becomes of a tree made from it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.adopt.files import Check
from heliostat.mirror.adopt.layouts import recognise
from heliostat.mirror.adopt.report import Finding, Result
from heliostat.mirror.adopt.survey import look_over
from heliostat.mirror.places import scope_of
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.store.disk import Operations
from support.equality import differences
from support.mirrored import sample_index
from support.mirrors import Followed
from support.verified import findings as verify_findings

WHEEL, SDIST = "beta-1.0-py3-none-any.whl", "beta-1.0.tar.gz"
ALPHA = "alpha-1.0-py3-none-any.whl"


def old_index() -> Index:
    """Names in all spellings, those of single letters too, and everything that installers ask of an index."""
    index = sample_index()
    for name in ("Foo.Bar_Baz", "r", "R2-D2", "versions", "packages", "Zope.Interface"):
        built = wheel(name, "1.0")
        index.publish(name, "1.0", UploadedFile(built.filename, built.data, sidecar=built.metadata))
        old = sdist(name, "0.9")
        index.publish(name, "0.9", UploadedFile(old.filename, old.data))
    return index


async def adopt(
    one: Followed,
    check: Check = "size",
    *,
    disk: Operations | None = None,
    stop: asyncio.Event | None = None,
) -> tuple[Result, list[Finding]]:
    async with Mirror.open(one.config, adopting=True, disk=disk) as mirror:
        result, record = await mirror.adopt(None, check, counters=Counters(), stop=stop or asyncio.Event())
        return result, list(record)


def dry_run(one: Followed, check: Check = "size") -> tuple[Result, list[Finding]]:
    root = os.fspath(one.directory)
    result, record = look_over(
        root, recognise(root, None), check, elsewhere=False, in_scope=scope_of(one.config).__contains__,
        counters=Counters(), stopped=lambda: False,
    )  # fmt: skip
    return result, list(record)


def fetched(one: Followed) -> list[str]:
    """The names of release files, sidecars left out, that the index was asked for."""
    return sorted(
        request.path.rpartition("/")[2]
        for request in one.server.requests
        if request.path.startswith("/packages/") and not request.path.endswith(".metadata")
    )


async def complete(one: Followed) -> None:
    """One ordinary pass, and everything is as a mirror of our own would have it."""
    await one.sync()
    assert differences(one.index, one.directory, also=("local-stats/*",)) == []
    assert await verify_findings(one.config) == []


def path_of(one: Followed, filename: str) -> Path:
    (found,) = one.web.glob(f"packages/*/*/*/{filename}")
    return found
