"""A small index, and what a mirror of it holds, for tests of what is removed."""

from __future__ import annotations

import contextlib

from heliostat.fakeindex import Index
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.state.database import open_readonly
from heliostat.state.queries import Queries
from heliostat.state.rows import Tombstone
from support.mirrors import Followed, Found

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def animals() -> Index:
    """Two releases each, wheel and sdist; ``ant`` has a provenance object too."""
    index = Index()
    for name in NAMES:
        for version in ("1.0", "2.0"):
            index.publish(name, version, [uploaded(wheel(name, version)), uploaded(sdist(name, version))])
    file = index["ant"].releases["1.0"].files[0]
    index.set_provenance("ant", "1.0", file.filename, provenance_for(file))
    return index


def tombstones(one: Followed) -> list[Tombstone]:
    with contextlib.closing(open_readonly(str(one.directory / "heliostat.db"))) as connection:
        return Queries(connection).tombstones()


def store(one: Followed, part: str, top: str = "web") -> dict[str, Found]:
    """What lies in the store, or out of reach, of paths that contain ``part``; by paths below ``packages/``."""
    prefix = f"{top}/packages/"
    return {
        path.removeprefix(prefix): found
        for path, found in one.listing().items()
        if path.startswith(prefix) and part in path
    }
