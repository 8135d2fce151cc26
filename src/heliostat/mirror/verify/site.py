"""A verify of a site over HTTP, from its beginning, or from where an earlier one was ended, to its findings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from itertools import groupby, islice
from typing import Literal, TypeVar

import msgspec

from heliostat.errors import Missing, Refused, StoreError, Unavailable, UpstreamError
from heliostat.mirror.report import Counters
from heliostat.mirror.sites.site import standing
from heliostat.mirror.verify.asked import SiteAsked
from heliostat.mirror.verify.findings import Finding, Kind, as_line, from_line
from heliostat.mirror.verify.in_order import in_order
from heliostat.mirror.verify.position import Desk
from heliostat.mirror.verify.reading import Stopping
from heliostat.mirror.verify.reference import Name, Reference, Right, Unknown
from heliostat.mirror.verify.result import Result
from heliostat.mirror.verify.site_case import Breaker, Gone, Seen, Share, SiteCase, Thing
from heliostat.mirror.verify.site_list import Item, SiteList
from heliostat.mirror.verify.sorter import Sorter
from heliostat.model import ProjectName
from heliostat.policy.removal import is_retained
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
            kept=reference.kept, files=not asked.quick, at_once=at_once, max_sidecar=max_sidecar,
        )  # fmt: skip
        #: Reads lists, one item after the other.
        self._lister = Workers("heliostat-verify-lists", 1)
        self._list = SiteList(client, desk.folder, self._lister)
        self._final = Sorter(desk.folder, "final")
        self._reference_breaker = Breaker(_FAILURES)
        self._saved = time.monotonic()
        self.result = Result(kinds={}, unknown=[], resumed=desk.resumed)

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
        self._list.site_serial = found.serial
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
        if (reason := await self._list.read()) is not None:
            self._desk.suspect([self._case.finding("root", "simple/", "", reason)])

    # -- pages --------------------------------------------------------------------------------------------------------

    def _names(self, after: str = "") -> Iterator[Name]:
        if self._asked.projects:
            return (Name(ProjectName(name)) for name in sorted(set(self._asked.projects)) if name > after)
        return self._reference.names(after)

    async def _pages(self) -> None:
        self._counters.phase = "asking for pages"
        position = self._desk.position

        async def one(item: Item) -> Seen:
            name, wanted, is_listed = item
            return await self._one(name, wanted, is_listed)

        def taken(item: Item, seen: Seen) -> None:
            self._note(seen)
            if self._asked.most:
                self._desk.claims.add(self._claim(thing) for thing in seen.unread)
            position.name = item[0]
            position.projects += 1
            self._counters.projects_done += 1
            self._counters.projects_total = max(self._counters.projects_total, self._counters.projects_done)

        await in_order(
            self._ahead(self._list.beside(self._names(position.name), position.name)),
            one,
            taken,
            at_once=self._at_once,
            noted=self._noted,
        )

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
        should = wanted is not None and wanted.listed and not right.page.quarantined
        if is_listed is False and should and self._list.is_current and self._list.reaches(right.serial):
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
            answer = await self._breaker.ask(lambda: self._client.page(name))
        except Missing:
            if is_listed and self._list.is_current:
                return [self._case.finding("root", "simple/", name, _NAMED)]
            return []
        except Unavailable as error:
            return [self._case.finding("unreadable", f"simple/{name}/", name, error.reason)]
        except (UpstreamError, Refused):
            pass
        else:
            if self._reference.kept and answer is not None and is_retained(answer.page):
                return []
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

        await in_order(
            self._ahead(islice(things, self._asked.most)), one, taken, at_once=self._at_once, noted=self._noted
        )

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

        await in_order(self._ahead(groups), one, taken, at_once=self._at_once, noted=self._flush)
        found = {one.project for one in self.findings()} if self._asked.projects else set()
        for name in map(ProjectName, sorted(set(self._asked.projects) - found)):
            if await self._right(name) is None:  # nor does the site have it
                self.result.unknown.append(name)
        for each in self.findings():  # a line that comes twice counts once
            self.result.kinds[each.kind] = self.result.kinds.get(each.kind, 0) + 1

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

    async def _noted(self) -> None:
        full = self._desk.claims.is_full or self._desk.suspects.is_full
        if full or time.monotonic() - self._saved >= _EVERY:
            await self._save()

    async def _flush(self) -> None:
        if self._final.is_full:
            await self._lister.run(self._final.flush)

    async def _save(self) -> None:
        await asyncio.to_thread(self._desk.save)
        self._saved = time.monotonic()
