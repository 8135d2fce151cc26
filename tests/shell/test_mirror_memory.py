"""What a pass has committed it lets go at once, so that memory does not wait for the garbage collector."""

import gc
from pathlib import Path

from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.item import Item
from heliostat.store.tree import Body, Publication
from support.mirrors import following


async def test_what_is_committed_is_let_go(tmp_path: Path) -> None:
    async with following(many_projects(150, 2, 1, 2000), tmp_path, batch_projects=8) as one:
        gc.collect()
        gc.disable()
        try:
            await one.sync()
            left = [type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, Item | Publication | Body)]
        finally:
            gc.enable()
        assert left == []
