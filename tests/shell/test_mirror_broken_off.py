"""Large files that break off: nothing of them stays in memory, and on the disk only what can be resumed."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from heliostat.fakeindex.fault import Action
from heliostat.fakeindex.faults import Cut, Reset, Status
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.download import SMALL
from heliostat.upstream.bulk import Bulk
from support.equality import differences
from support.mirrors import following


@pytest.mark.parametrize("fault", [Reset(), Cut(0.5), Status(503), Status(404)], ids=repr)
async def test_what_broke_off_holds_no_memory(tmp_path: Path, fault: Action) -> None:
    async with following(many_projects(20, 2, 0, 3 * SMALL), tmp_path, retries=2) as one:
        one.server.fault("/packages/*", fault)
        gc.collect()
        gc.disable()
        try:
            summary = await one.attempt()
            # What was cancelled last is perhaps still in somebody's hands.
            assert sum(isinstance(thing, Bulk) for thing in gc.get_objects()) <= 4
        finally:
            gc.enable()
        assert len(summary.owed) == 20
        left = [path for path in (tmp_path / "partial").iterdir() if path.suffix == ".part"]
        assert [path for path in left if not path.stat().st_size] == []
        assert bool(left) == (not isinstance(fault, Status))
        one.server.clear_faults()
        await one.sync()
        assert differences(one.index, tmp_path) == []
