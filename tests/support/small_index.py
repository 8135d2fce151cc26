"""A small index on loopback, for tests that run the program as a process beside it, and a home that mirrors it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual


def publish(index: Index, name: str, version: str = "1.0") -> None:
    """A release of one small file."""
    index.publish(name, version, UploadedFile(f"{name}-{version}.tar.gz", Virtual(1000, len(name + version))))


@contextlib.asynccontextmanager
async def serving(*names: str) -> AsyncIterator[FakeIndex]:
    """An index with a release of each of these projects."""
    index = Index()
    for name in names:
        publish(index, name)
    async with FakeIndex(index) as server:
        yield server


def mirror_home(home: Path, upstream: FakeIndex, *, mirror: str = "", limits: str = "", more: str = "") -> Path:
    """``home``, configured to mirror everything; further lines for ``[mirror]``, for ``[upstream]``, and after those."""
    (home / "pypi").mkdir(exist_ok=True)
    (home / "heliostat.toml").write_text(
        f'[mirror]\ndirectory = "pypi"\neverything = true\n{mirror}\n'
        f'[upstream]\nurl = "{upstream.url}"\nallow-http = true\n{limits}\n{more}\n'
    )
    return home
