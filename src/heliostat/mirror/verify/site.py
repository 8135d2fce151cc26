"""A verify of a site over HTTP, from its beginning, or from where an earlier one was ended, to its findings."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import groupby, islice
from typing import Literal, TypeVar

import msgspec

from heliostat.errors import Invalid, Missing, Refused, StoreError, Unavailable, UpstreamError
from heliostat.mirror.report import Counters
from heliostat.mirror.sites.site import standing
from heliostat.mirror.verify.findings import Finding, Kind, as_line, from_line
from heliostat.mirror.verify.position import Desk
from heliostat.mirror.verify.reading import Stopping
from heliostat.mirror.verify.reference import Name, Reference, Right, Unknown
from heliostat.mirror.verify.run import Result
from heliostat.mirror.verify.site_case import Breaker, Gone, Seen, Share, SiteCase, Thing
from heliostat.mirror.verify.sorter import Sorter
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.store.threads import Workers
from heliostat.upstream.client import Upstream

T = TypeVar("T")
R = TypeVar("R")
#: Requests in a row without an answer that end the run, and seconds between two notes of the position.
_FAILURES, _EVERY = 20, 5.0
#: Names, and lines, that are read from disk in one go.
_AHEAD = 256
_NAMED, _UNNAMED = "the root list names the project, which has no page", "the root list does not name the project"
_THINGS = msgspec.json.Decoder(Thing)


#: A name, what should be there, and whether the site's root list has it (None where that is no matter).
_Item = tuple[ProjectName, Name | None, bool | None]


class SiteAsked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be verified of a site, and how closely."""

    #: Pages only, no files.
    quick: bool = False
    #: Only these; empty: all.
    projects: tuple[str, ...] = ()
    #: Only projects whose page has a greater serial, or was written at this time or later (seconds since the epoch).
    since_serial: int | None = None
    since_time: float | None = None
    #: Read this share of the files, or so many of them, and compare digests.
    share: float = 0.0
    most: int = 0
    against_upstream: bool = False

    @property
    def whole(self) -> bool:
        """Everything is looked at, so that the root list can be compared."""
        return not self.projects and self.since_serial is None and self.since_time is None

    def key(self, site: str) -> str:
        """Tells one question from another, for a position on disk."""
        return f"{site} {msgspec.json.encode(self).decode()}"


class SiteVerification:
    """One verify of one site; :meth:`run` once, then :meth:`findings` as long as its desk is there."""

    def __init__(
        self,
        client: Upstream,
        reference: Reference,
        asked: SiteAsked,
        desk: Desk,
        counters: Counters,
        stop: asyncio.Event,
        *,
        at_once: int = 8,
        max_sidecar: int = 16 << 20,
    ) -> None:
        self.site = client.base
        self._client, self._reference, self._asked = client, reference, asked
        self._desk, self._counters, self._stop, self._at_once = desk, counters, stop, at_once
        self._breaker = Breaker(_FAILURES)
        self._share = Share(asked.share, desk.position.seed)
        self._case = SiteCase(
            client, reference.whose, self._breaker, self._share,
            files=not asked.quick, at_once=at_once, max_sidecar=max_sidecar,
        )  # fmt: skip
        #: Reads lists, one item after the other.
        self._lister = Workers("heliostat-verify-lists", 1)
        self._listed, self._final = Sorter(desk.folder, "root-site"), Sorter(desk.folder, "final")
        self._has_list = False
        self._reference_breaker = Breaker(_FAILURES)
        #: What the root list is complete to; None when nobody says.
        self._list_serial: int | None = None
        self._site_serial: int | None = None
        self._saved = time.monotonic()
        self.result = Result(kinds={}, resumed=desk.resumed)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, in the order of projects and paths."""
        return map(from_line, self._final.sorted())

    async def run(self) -> Result:
        """Verify; ``stop`` ends it, and the next one at that desk goes on from there.

        Raises StoreError when the desk's disk refuses, StateError when the ledger cannot be read.
        """
        began, result = time.monotonic(), self.result
        ended = asyncio.ensure_future(self._stop.wait())
        work = asyncio.ensure_future(self._work())
        try:
            await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():  # nothing in flight is worth waiting for
                work.cancel()
                await asyncio.wait([work])
            if work.cancelled():
                result.interrupted = True
                await self._save()
            else:
                work.result()
        except (Stopping, Gone) as error:
            result.interrupted = True
            if isinstance(error, Gone):
                result.unreachable = error.reason
            await self._save()
        except UpstreamError as error:
            result.interrupted, result.unreachable = True, str(error)
            await self._save()
        except OSError as error:
            raise StoreError("write to", error.filename or self._desk.folder, error.strerror or str(error)) from error
        finally:
            ended.cancel()
            work.cancel()
            await asyncio.gather(ended, work, return_exceptions=True)
            await asyncio.to_thread(self._lister.close)
        position = self._desk.position
        result.projects, result.files = position.projects, position.files
        result.hashed, result.bytes = position.hashed, position.bytes
        result.seconds = time.monotonic() - began
        return result

    async def _work(self) -> None:
        position = self._desk.position
        found = await standing(self._client)
        if found.error is not None and found.serial is None and not await self._has_pages():
            raise Gone(found.error)
        self._site_serial = found.serial
        await self._reference.prepare()
        if not position.names_done:
            await self._read_list()
            await self._pages()
            position.names_done = True
            await self._save()
        if self._asked.most and not position.files_done:
            await self._sample()
            position.files_done = True
            await self._save()
        await self._look_again()

    async def _has_pages(self) -> bool:
        """Whether the site answers for one of the projects, though it has neither feed nor root list."""
        names = self._names()
        first = await self._lister.run(lambda: next(names, None))
        if first is None:
            return False
        with contextlib.suppress(UpstreamError, Refused):
            return await self._client.page(first.name) is not None
        return False

    # -- the root list ------------------------------------------------------------------------------------------------

    async def _read_list(self) -> None:
        """The site's names in order, on disk.  Where it has no list that can be read, that is a finding."""
        if not self._asked.whole:
            return
        self._counters.phase = "reading the root list"
        self._listed.discard()
        self._has_list = True
        try:
            async with self._client.root_list() as root:
                assert root is not None
                async for some in root:
                    self._listed.add(self._normal(one.display) for one in some)
                    if self._listed.is_full:
                        await self._lister.run(self._listed.flush)
                self._list_serial = root.serial
        except Unavailable:
            raise
        except (UpstreamError, Refused) as error:
            reason = error.reason if isinstance(error, Invalid | Missing) else str(error)
            self._listed.discard()
            self._has_list = False  # one finding, not one for every project
            self._desk.suspect([self._case.finding("root", "simple/", "", reason)])

    @staticmethod
    def _normal(display: str) -> bytes:
        try:
            return normalise(display).encode()
        except Refused:
            raise Invalid("the root list", f"names {display[:100]!a}, which is no project's name") from None

    @property
    def _is_list_current(self) -> bool:
        """It is rewritten at intervals: one that is older than the site says nothing of what changed since."""
        return self._site_serial is None or self._list_serial is None or self._list_serial >= self._site_serial

    # -- pages --------------------------------------------------------------------------------------------------------

    def _names(self, after: str = "") -> Iterator[Name]:
        if self._asked.projects:
            return (Name(ProjectName(name)) for name in sorted(set(self._asked.projects)) if name > after)
        return self._reference.names(after)

    def _both(self, after: str) -> Iterator[_Item]:
        """Names in order."""
        if not self._has_list:
            yield from ((one.name, one, None) for one in self._names(after))
            return
        ours: Iterator[tuple[bytes, Name | None]] = ((one.name.encode(), one) for one in self._names(after))
        theirs: Iterator[tuple[bytes, Name | None]] = (
            (line, None) for line in self._listed.sorted() if line > after.encode()
        )
        for key, group in groupby(heapq.merge(ours, theirs, key=_name_of), key=_name_of):
            items = list(group)
            wanted = next((one for _, one in items if one is not None), None)
            yield ProjectName(key.decode()), wanted, any(one is None for _, one in items)

    async def _pages(self) -> None:
        self._counters.phase = "asking for pages"
        position = self._desk.position

        async def one(item: _Item) -> Seen:
            name, wanted, is_listed = item
            return await self._one(name, wanted, is_listed)

        def taken(item: _Item, seen: Seen) -> None:
            self._note(seen)
            if self._asked.most:
                self._desk.claims.add(self._claim(thing) for thing in seen.unread)
            position.name = item[0]
            position.projects += 1
            self._counters.projects_done += 1
            self._counters.projects_total = max(self._counters.projects_total, self._counters.projects_done)

        await self._in_order(self._both(position.name), one, taken)

    async def _one(
        self, name: ProjectName, wanted: Name | None, is_listed: bool | None, always: frozenset[str] = frozenset()
    ) -> Seen:
        right = await self._right(name)
        if isinstance(right, str):
            self.result.unreadable += 1
            return Seen()
        if right is None:
            return Seen(await self._too_much(name, is_listed=is_listed))
        if not self._is_asked_for(right):
            return Seen()
        seen = await self._case.look(name, right, always)
        if is_listed is False and wanted is not None and wanted.listed and not right.page.quarantined:
            known = self._list_serial is None or right.serial is None or self._list_serial >= right.serial
            if known and self._is_list_current:
                seen.findings.append(self._case.finding("root", "simple/", name, _UNNAMED))
        return seen

    async def _right(self, name: ProjectName) -> Right | Literal["unknown"] | None:
        """What is right, if somebody can tell.  Raises Gone when upstream does not answer any more."""
        try:
            return await self._reference_breaker.ask(lambda: self._reference.page(name))
        except Unavailable as error:
            self.result.unreachable = self.result.unreachable or str(error)
        except (Unknown, UpstreamError, Refused):
            pass
        return "unknown"

    async def _too_much(self, name: ProjectName, *, is_listed: bool | None) -> list[Finding]:
        """A project that should not be at the site: is it served?"""
        try:
            await self._breaker.ask(lambda: self._client.page(name))
        except Missing:
            if is_listed and self._is_list_current:
                return [self._case.finding("root", "simple/", name, _NAMED)]
            return []
        except Unavailable as error:
            return [self._case.finding("unreadable", f"simple/{name}/", name, error.reason)]
        except (UpstreamError, Refused):
            pass
        problem = f"served, although {self._reference.whose} does not have the project"
        return [self._case.finding("unreferenced", f"simple/{name}/", name, problem)]

    def _is_asked_for(self, right: Right) -> bool:
        asked = self._asked
        if asked.since_serial is not None:
            return right.serial is None or right.serial > asked.since_serial
        if asked.since_time is not None:
            return right.written is None or right.written >= asked.since_time
        return True

    # -- a sample of files --------------------------------------------------------------------------------------------

    def _claim(self, thing: Thing) -> bytes:
        """Sorted, the first ones are a sample."""
        return b"%016x\t%s" % (self._share.key(self._case.path_of(thing)), msgspec.json.encode(thing))

    async def _sample(self) -> None:
        self._counters.phase = "reading files"
        things = (_THINGS.decode(line.partition(b"\t")[2]) for line in self._desk.claims.sorted())

        async def one(thing: Thing) -> Seen:
            seen = Seen()
            await self._case.check(thing, seen, read=True)
            seen.files = 0  # it was asked for before
            return seen

        def taken(_: Thing, seen: Seen) -> None:
            self._note(seen)

        await self._in_order(islice(things, self._asked.most), one, taken)

    # -- what seems wrong ---------------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        """A site may be in the middle of an update, and so may we: only what is wrong twice is wrong."""
        self._counters.phase = "looking again"
        self._final.discard()
        suspects = map(from_line, self._desk.suspects.sorted())
        groups = ((name, list(group)) for name, group in groupby(suspects, key=lambda one: one.project))

        async def one(item: tuple[str, list[Finding]]) -> list[Finding]:
            name, before = item
            if not name:
                return before
            kinds: set[Kind] = {"digest", "size", "unreadable"}
            always = frozenset(one.file for one in before if one.kind in kinds)
            roots = [one.problem for one in before if one.kind == "root"]
            listed = _NAMED in roots if roots else None
            return (await self._one(ProjectName(name), Name(ProjectName(name)), listed, always)).findings

        def taken(_: object, found: list[Finding]) -> None:
            self._final.add(map(as_line, found))

        await self._in_order(groups, one, taken, save=False)
        for each in self.findings():  # a line that comes twice counts once
            self.result.kinds[each.kind] = self.result.kinds.get(each.kind, 0) + 1

    # -- work side by side, results in order --------------------------------------------------------------------------

    async def _in_order(
        self,
        items: Iterator[T],
        work: Callable[[T], Awaitable[R]],
        taken: Callable[[T, R], None],
        *,
        save: bool = True,
    ) -> None:
        """A few at a time; what they bring is taken in order, and noted."""
        window: deque[tuple[T, asyncio.Future[R]]] = deque()
        try:
            async for item in self._ahead(items):
                window.append((item, asyncio.ensure_future(work(item))))
                if len(window) >= self._at_once:
                    await self._oldest(window, taken, save=save)
            while window:
                await self._oldest(window, taken, save=save)
        finally:
            for _, task in window:
                task.cancel()
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)

    async def _oldest(
        self, window: deque[tuple[T, asyncio.Future[R]]], taken: Callable[[T, R], None], *, save: bool
    ) -> None:
        item, task = window[0]
        result = await task
        window.popleft()
        taken(item, result)
        full = self._desk.claims.is_full or self._desk.suspects.is_full
        if save and (full or time.monotonic() - self._saved >= _EVERY):
            await self._save()
        elif self._final.is_full:
            await self._lister.run(self._final.flush)

    async def _ahead(self, items: Iterator[T]) -> AsyncIterator[T]:
        """Items of a list that blocks."""
        while some := await self._lister.run(lambda: list(islice(items, _AHEAD))):
            for one in some:
                yield one

    def _note(self, seen: Seen) -> None:
        """What was seen counts from now on."""
        self._desk.suspect(seen.findings)
        position = self._desk.position
        position.files += seen.files
        position.hashed += seen.hashed
        position.bytes += seen.bytes
        self._counters.files_done, self._counters.bytes_done = position.files, position.bytes

    async def _save(self) -> None:
        await asyncio.to_thread(self._desk.save)
        self._saved = time.monotonic()


def _name_of(item: tuple[bytes, Name | None]) -> bytes:
    return item[0]
