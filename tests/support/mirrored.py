"""Mirrors made by the real engine of a small index that installers can use."""

from __future__ import annotations

import asyncio
from pathlib import Path

from heliostat.config.load import load_config
from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.wheels import Built, sdist, wheel
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror

#: Uploads of the sample index are a day apart from here on, so that a cut-off can fall between them.
_DAYS = "2026-03-{day:02d}T12:00:00.000000Z"


def cutoff(day: int) -> str:
    """The start of that day of the sample index, as ``uv --exclude-newer`` and pip take it."""
    return f"2026-03-{day:02d}T00:00:00Z"


def sample_index() -> Index:
    """Projects that between them show everything that installers ask of an index.

    - ``alpha`` needs ``beta``; 1.0 (day 1), 1.1 (day 3), 2.0 yanked with a reason, 3.0 for a Python that does not exist yet
    - ``beta`` 1.0 (day 2) as wheel and sdist; ``Sdist.Only`` 1.0 as sdist; ``odd`` with a local version (``+`` in file names)
    - ``bare`` 1.0 as wheel without ``.metadata``
    """
    index = Index()
    index.publish("alpha", "1.0", upload(wheel("alpha", "1.0", ["beta"]), day=1))
    index.publish("beta", "1.0", [upload(wheel("beta", "1.0"), day=2), upload(sdist("beta", "1.0"), day=2)])
    index.publish("alpha", "1.1", upload(wheel("alpha", "1.1", ["beta>=1"]), day=3))
    index.publish("alpha", "2.0", upload(wheel("alpha", "2.0", ["beta"]), day=4))
    index.yank("alpha", "2.0", YANKED)
    future = upload(wheel("alpha", "3.0", requires_python=">=9"), day=5)
    index.publish("alpha", "3.0", future, requires_python=">=9")
    index.publish("Sdist.Only", "1.0", upload(sdist("Sdist.Only", "1.0"), day=6))
    index.publish("odd", "1.0+local.1", upload(wheel("odd", "1.0+local.1"), day=7))
    index.publish("bare", "1.0", upload(wheel("bare", "1.0"), day=8, sidecar=False))
    return index


#: Why ``alpha`` 2.0 was yanked: markup and quotes must reach the user as they are.
YANKED = 'eats <data> & "more"'


def upload(built: Built, *, day: int, sidecar: bool = True) -> UploadedFile:
    """A built distribution as an upload; wheels get their ``.metadata``."""
    return UploadedFile(
        built.filename,
        built.data,
        sidecar=built.metadata if sidecar and built.filename.endswith(".whl") else None,
        upload_time=_DAYS.format(day=day),
    )


def sha256_of(index: Index, name: str, filename: str) -> str:
    """The digest of a file, from the index itself."""
    return next(one.file.content.digests.sha256 for one in index.expected_files(name) if one.file.filename == filename)


async def mirror_once(upstream: str, directory: Path, *, mirror: str = "", more: str = "") -> Summary:
    """One pass of the engine over everything that ``upstream`` has, into ``directory``.

    ``mirror`` and ``more`` are further lines for the configuration's two sections.
    """
    directory.mkdir(exist_ok=True)
    text = (
        f'[mirror]\ndirectory = "{directory}"\neverything = true\nshrink-seconds = 0\n{mirror}\n'
        f'[upstream]\nurl = "{upstream}"\nallow-http = true\n{more}\n'
    )
    config = load_config(text, source=str(directory.parent / "heliostat.toml"))
    async with Mirror.open(config) as opened:
        return await opened.run(counters=Counters(), stop=asyncio.Event())


def mirror_of(index: Index, directory: Path) -> Path:
    """Mirror ``index`` over HTTP into ``directory``, completely; gives the web root."""

    async def run() -> Summary:
        async with FakeIndex(index) as server:
            return await mirror_once(server.url, directory)

    summary = asyncio.run(run())
    assert summary.complete, summary
    return directory / "web"
