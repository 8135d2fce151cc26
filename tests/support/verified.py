"""Verifies in tests: of a mirror or of a bare web root, with and without repair."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from heliostat.config import Config
from heliostat.fakeindex import Index
from heliostat.fakeindex.synthetic import provenance_for
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.mirror.verify.again import Pace
from heliostat.mirror.verify.asked import Asked
from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.ground import Ground, bare_ground, mirror_ground
from heliostat.mirror.verify.position import Position, desk
from heliostat.mirror.verify.reading import Budget
from heliostat.mirror.verify.result import Repaired, Result
from heliostat.mirror.verify.run import Verification
from heliostat.upstream.client import Upstream
from support.mirrored import sample_index

#: Nobody is at work: what is wrong twice is wrong.
AT_ONCE = Pace(0.0, 0.0)


class Verified(NamedTuple):
    """What a verify saw, and what was wrong."""

    result: Result
    findings: list[Finding]

    @property
    def kinds(self) -> set[tuple[str, str]]:
        """(kind, path below the web root) of each finding."""
        return {(one.kind, one.path.removeprefix("web/")) for one in self.findings}


def rich_index() -> Index:
    """The sample index, and in it provenance objects, and a project without files."""
    index = sample_index()
    file = index.expected_files("beta")[0]
    index.set_provenance("beta", file.version, file.file.filename, provenance_for(file.file))
    index.create("empty")
    return index


async def verify(
    where: Config | Path,
    *,
    folder: Path | None = None,
    restart: bool = False,
    stop: asyncio.Event | None = None,
    counters: Counters | None = None,
    pace: Pace | None = AT_ONCE,
    rate: int | None = None,
    workers: int = 2,
    repair: dict[str, Any] | None = None,
    **asked: Any,
) -> tuple[Verified, Repaired | None]:
    """One verify, resumable at ``folder``, with repair as ``repair`` asks it."""
    budget = Budget(rate)
    ground: Ground = (
        mirror_ground(where, budget) if isinstance(where, Config) else bare_ground(os.fspath(where), budget)
    )
    question = Asked(**asked)
    position = Position(asked=question.key(ground.web), started=time.time(), seed=7)
    stop, counters = stop or asyncio.Event(), counters or Counters()
    with desk(os.fspath(folder) if folder else None, position, restart=restart) as opened:
        upstream = None
        if question.against_upstream:
            assert isinstance(where, Config)
            upstream = Upstream(where.upstream, version="0", counters=counters)
            await upstream.__aenter__()
        try:
            one = Verification(ground, question, opened, counters, stop, upstream=upstream, workers=workers, pace=pace)
            result = await one.run()
        finally:
            if upstream is not None:
                await upstream.__aexit__(None, None, None)
        repaired = None
        if repair is not None:
            assert isinstance(where, Config)
            async with Mirror.open(where) as mirror:
                repaired = await mirror.repair(
                    one.findings, counters=counters, stop=stop, unreadable=result.unreadable, **repair
                )
        return Verified(result, [] if result.interrupted else list(one.findings())), repaired


async def findings(where: Config | Path, **asked: Any) -> list[Finding]:
    """What a verify finds."""
    seen, _ = await verify(where, **asked)
    assert not seen.result.interrupted
    return seen.findings
