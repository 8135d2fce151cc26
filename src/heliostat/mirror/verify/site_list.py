"""A site's root list, kept on disk, beside the names that it should have."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import groupby

from heliostat.errors import Invalid, Missing, Refused, Unavailable, UpstreamError
from heliostat.mirror.verify.reference import Name
from heliostat.mirror.verify.sorter import Sorter
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.store.threads import Workers
from heliostat.upstream.client import Upstream

#: A name, what should be there, and whether the site's root list has it (None where that is no matter).
Item = tuple[ProjectName, Name | None, bool | None]


class SiteList:
    """The root list of ``client``'s site; until it is read, and where it cannot be, it is no matter."""

    def __init__(self, client: Upstream, folder: str, lister: Workers) -> None:
        self._client, self._lister = client, lister
        self._names = Sorter(folder, "root-site")
        self._is_there = False
        #: What it is complete to; None when nobody says.
        self._serial: int | None = None
        #: What the site says that it is complete to.
        self.site_serial: int | None = None

    async def read(self) -> str | None:
        """Read it, anew; the reason where it cannot be read.  Raises Unavailable."""
        self._names.discard()
        self._is_there = True
        try:
            async with self._client.root_list() as root:
                assert root is not None
                async for some in root:
                    self._names.add(_normal(one.display) for one in some)
                    if self._names.is_full:
                        await self._lister.run(self._names.flush)
                self._serial = root.serial
        except Unavailable:
            raise
        except (UpstreamError, Refused) as error:
            self._names.discard()
            self._is_there = False  # one finding, not one for every project
            return error.reason if isinstance(error, Invalid | Missing) else str(error)
        return None

    @property
    def is_current(self) -> bool:
        """It is rewritten at intervals: one that is older than the site says nothing of what changed since."""
        return self.site_serial is None or self._serial is None or self._serial >= self.site_serial

    def reaches(self, serial: int | None) -> bool:
        """Whether a project of that serial is to be in it."""
        return self._serial is None or serial is None or self._serial >= serial

    def beside(self, wanted: Iterator[Name], after: str) -> Iterator[Item]:
        """``wanted``, which come in order, and what the list has, ``after`` that name; in order."""
        if not self._is_there:
            yield from ((one.name, one, None) for one in wanted)
            return
        ours: Iterator[tuple[bytes, Name | None]] = ((one.name.encode(), one) for one in wanted)
        theirs: Iterator[tuple[bytes, Name | None]] = (
            (line, None) for line in self._names.sorted() if line > after.encode()
        )
        for key, group in groupby(heapq.merge(ours, theirs, key=_name_of), key=_name_of):
            items = list(group)
            first = next((one for _, one in items if one is not None), None)
            yield ProjectName(key.decode()), first, any(one is None for _, one in items)


def _normal(display: str) -> bytes:
    try:
        return normalise(display).encode()
    except Refused:
        raise Invalid("the root list", f"names {display[:100]!a}, which is no project's name") from None


def _name_of(item: tuple[bytes, Name | None]) -> bytes:
    return item[0]
