"""What a site is held against: a mirror's own pages on disk, or upstream's over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import msgspec

from heliostat import names
from heliostat.errors import Invalid, Missing, Refused
from heliostat.mirror.verify.denied import Denied
from heliostat.mirror.verify.founds import Names
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.reading import Odd
from heliostat.mirror.verify.sorter import Sorter
from heliostat.model import ProjectName, ProjectPage
from heliostat.pages.links import local_page_url, package_of
from heliostat.pages.parse_json import parse_project
from heliostat.upstream.client import Upstream


class Name(NamedTuple):
    """A project that should be at the site."""

    name: ProjectName
    #: Whether the root list should name it.
    listed: bool = True


class Right(NamedTuple):
    """What its page should say; ``written``: when it was, where that is known (seconds since the epoch)."""

    page: ProjectPage
    serial: int | None
    written: float | None = None


class Reference(Protocol):
    """Where to look up what is right."""

    #: Whose it is, in messages.
    whose: str
    #: A mirror may go on showing, marked as such, what this one does not have any more.
    kept: bool

    async def prepare(self) -> None:
        """Before names are asked for.  Raises UpstreamError."""

    def names(self, after: str) -> Iterator[Name]:
        """In order, behind ``after``; blocks."""

    async def page(self, name: ProjectName) -> Right | None:
        """None for a project that should not be there.  Raises UpstreamError, Unknown."""


class Unknown(Exception):
    """Nobody knows what is right, since our own page cannot be read."""


class LocalPages:
    """A mirror, or a bare web root, on disk."""

    whose, kept = "this mirror", False

    def __init__(self, ground: Ground, scratch: str) -> None:
        self._ground, self._names = ground, Names(ground, scratch)

    async def prepare(self) -> None:
        """Nothing to do."""

    def names(self, after: str) -> Iterator[Name]:
        if self._ground.books is not None:
            for row in self._ground.books.rows(after):
                if row.published:
                    yield Name(ProjectName(row.name), not (row.hidden or row.root_due))
            return
        for found in self._names.all(after):
            if found.simple:
                yield Name(ProjectName(found.name))

    async def page(self, name: ProjectName) -> Right | None:
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: ProjectName) -> Right | None:
        path = f"{names.page_directory(name).removeprefix('web/')}/index.v1_json".encode()
        try:
            body, stamp = self._ground.reader.small(path, self._ground.max_page)
            page = parse_project(body, url=local_page_url(name), name=name)
        except FileNotFoundError:
            return None
        except (Odd, Invalid, Refused) as error:
            raise Unknown from error
        return Right(self._with_sizes(page), page.serial, stamp.modified)

    def _with_sizes(self, page: ProjectPage) -> ProjectPage:
        """Where the page does not tell the size of a file, that of our own counts."""
        if all(file.size is not None for file in page.files):
            return page
        files = []
        for file in page.files:
            package = package_of(file.url) if file.size is None else None
            stamp = self._ground.reader.stamp(package.removeprefix("web/").encode()) if package else None
            files.append(msgspec.structs.replace(file, size=stamp.size) if stamp else file)
        return msgspec.structs.replace(page, files=tuple(files))


class UpstreamPages:
    """Upstream's pages, of the projects that ``ground``'s ledger has; without one, of all in upstream's root list."""

    whose, kept = "upstream", True

    def __init__(self, upstream: Upstream, ground: Ground | None, scratch: str) -> None:
        self._upstream, self._ground = upstream, ground
        self._listed, self._denied = Sorter(scratch, "root-upstream"), Denied(ground)

    async def prepare(self) -> None:
        if self._ground is None:
            self._listed.discard()
            async with self._upstream.root_list() as root:
                assert root is not None
                async for some in root:
                    self._listed.add(
                        name.encode() for name in filter(None, map(_normal, (one.display for one in some)))
                    )
                    if self._listed.is_full:
                        await asyncio.to_thread(self._listed.flush)

    def names(self, after: str) -> Iterator[Name]:
        if self._ground is not None and self._ground.books is not None:
            for row in self._ground.books.rows(after):
                if row.published:
                    yield Name(ProjectName(row.name), not row.hidden)
            return
        for line in self._listed.sorted():
            if line.decode() > after:
                yield Name(ProjectName(line.decode()))

    async def page(self, name: ProjectName) -> Right | None:
        if self._denied.has_project(name):
            return None
        try:
            answer = await self._upstream.page(name)
        except Missing:
            return None
        assert answer is not None
        return Right(self._denied.without(answer.page), answer.serial)


def _normal(display: str) -> str | None:
    try:
        return names.normalise(display)
    except Refused:
        return None
