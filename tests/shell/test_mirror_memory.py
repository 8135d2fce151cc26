"""What a pass has committed it lets go at once, so that memory does not wait for the garbage collector."""

import gc
from pathlib import Path

from heliostat.errors import NotNow
from heliostat.fakeindex.synthetic import many_projects
from heliostat.mirror.budget import SMALL
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


async def test_a_document_that_was_too_large_for_now_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """What was raised for it, and the bytes that its frames hold, are gone at once."""
    index = many_projects(12, 1, 0, 100, description=2 * SMALL)
    async with following(index, tmp_path) as one:
        gc.collect()
        gc.disable()
        try:
            await one.sync()
            left = [found for found in gc.get_objects() if isinstance(found, NotNow) and one.server.url in str(found)]
        finally:
            gc.enable()
        assert len(left) == 0
