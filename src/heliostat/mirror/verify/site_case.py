"""One project of a site, looked at over HTTP beside the page that is right: its page, its files, their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from heliostat.errors import IntegrityError, Invalid, Missing, Refused, Unavailable, UpstreamError
from heliostat.mirror.sites.compare import compare, told_differently
from heliostat.mirror.verify.findings import SITE_ADVICE, Finding, Kind, finding
from heliostat.mirror.verify.reference import Right
from heliostat.mirror.wanted import strongest
from heliostat.model import CoreMetadata, DistFile, ProjectName, ProjectPage
from heliostat.names import METADATA_SUFFIX
from heliostat.pages.links import package_of
from heliostat.policy.removal import MARK
from heliostat.store.incoming import new_hash
from heliostat.upstream.client import Upstream

#: Differences of one project that are listed one by one, and file names in one message.
_MOST, _SHOWN = 20, 5
#: The largest file that is read on the word of the site alone (bytes).
_MOST_BYTES = 64 << 30
T = TypeVar("T")


class Thing(msgspec.Struct, frozen=True):
    """A file, or a sidecar, as the right page tells it, and where the site has it."""

    project: str
    url: str
    size: int | None
    algorithm: str | None
    digest: str | None


class Seen(msgspec.Struct):
    """What came of looking at a project, or at one thing; the figures are of what was asked for."""

    findings: list[Finding] = []
    #: Things of the project that were not read.
    unread: list[Thing] = []
    files: int = 0
    hashed: int = 0
    bytes: int = 0


class Share:
    """Which files are read as a whole: a share of them, the same ones whenever they are looked at in one verify."""

    def __init__(self, share: float, seed: int) -> None:
        self._bound, self._seed = share * 2.0**64, seed

    def takes(self, path: str) -> bool:
        return self._bound > 0 and self.key(path) < self._bound

    def key(self, path: str) -> int:
        """A number that looks drawn at random, of 64 bits."""
        return int.from_bytes(blake2b(path.encode(), key=self._seed.to_bytes(8, "big"), digest_size=8).digest(), "big")


class Gone(Exception):
    """The site gives no answer; ``reason`` is the last one."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Breaker:
    """Counts requests in a row without an answer; after ``most`` of them the site counts as unreachable."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer.  Raises UpstreamError; Gone once there are too many without an answer."""
        try:
            answer = await request()
        except Unavailable as error:
            self._count += 1
            if self._count >= self._most:
                raise Gone(str(error)) from None
            raise
        except (UpstreamError, Refused):
            self._count = 0
            raise
        self._count = 0
        return answer


class SiteCase:
    """Looks at projects of one site."""

    def __init__(
        self,
        site: Upstream,
        whose: str,
        breaker: Breaker,
        share: Share,
        *,
        kept: bool,
        files: bool,
        at_once: int,
        max_sidecar: int,
    ) -> None:
        """``files``: whether to look at them at all, and not only at pages; ``whose`` pages are right, in messages.

        ``kept``: files that only the site lists are right where it says that upstream removed them.
        """
        self._kept = kept
        self._site, self._whose, self._breaker, self._share = site, whose, breaker, share
        self._files, self._at_once, self._max_sidecar = files, at_once, max_sidecar

    async def look(self, name: ProjectName, right: Right, always: frozenset[str] = frozenset()) -> Seen:
        """What is wrong with a project.

        The files at the paths in ``always`` are read, whatever the share is.  Raises Gone.
        """
        place = f"simple/{name}/"
        try:
            answer = await self._breaker.ask(lambda: self._site.page(name))
        except Missing:
            return Seen([self.finding("page", place, name, "not there (404)")])
        except Unavailable as error:
            return Seen([self.finding("unreadable", place, name, error.reason)])
        except UpstreamError as error:
            return Seen([self.finding("page", place, name, error.reason)])
        except Refused as error:
            return Seen([self.finding("page", place, name, str(error))])
        assert answer is not None
        seen = Seen(list(self._compare(name, right, answer.page, answer.serial)))
        things = list(self._things(name, right.page, answer.page, seen.findings)) if self._files else []
        await self._all(things, always, seen)
        seen.unread = [one for one in things if not self._is_read(one, always)]
        return seen

    def finding(self, kind: Kind, path: str, name: str, problem: str) -> Finding:
        """With the advice that is for sites."""
        return finding(kind, path, name, problem, SITE_ADVICE[kind])

    # -- the page -----------------------------------------------------------------------------------------------------

    def _compare(self, name: ProjectName, right: Right, page: ProjectPage, serial: int | None) -> Iterator[Finding]:
        if self._kept:
            known = _by_name(right.page)
            files = tuple(file for file in page.files if file.yanked != MARK or file.filename in known)
            page = msgspec.structs.replace(page, files=files)
        place, different = f"simple/{name}/", compare(right.page, page)
        if right.serial is not None and serial is not None and serial != right.serial:
            if serial > right.serial:
                problem = f"serial {serial}, newer than {self._whose} has ({right.serial}): not compared"
                yield self.finding("disagreement", place, name, problem)
                return
            parts = [f"serial {serial}, where {self._whose} has {right.serial}"]
            for names, what in (
                (different.missing, "missing"),
                (different.extra, "too many"),
                (different.changed, "described otherwise"),
            ):
                if names:
                    more = ", ..." if len(names) > _SHOWN else ""
                    parts.append(f"{len(names)} files {what} ({', '.join(map(ascii, names[:_SHOWN]))}{more})")
            yield self.finding("behind", place, name, "; ".join(parts))
            return
        if right.serial is not None and serial is None:
            yield self.finding("disagreement", place, name, f"no serial, where {self._whose} has {right.serial}")
        if right.page.status != page.status:
            problem = f"status {page.status!a}, where {self._whose} has {right.page.status!a}"
            yield self.finding("disagreement", place, name, problem)
        problems = [f"{one!a} is missing, which {self._whose} lists" for one in different.missing]
        problems += [f"{one!a} is listed, which {self._whose} does not list" for one in different.extra]
        ours, theirs = _by_name(right.page), _by_name(page)
        problems += [f"{one!a}: {'; '.join(told_differently(ours[one], theirs[one]))}" for one in different.changed]
        problems += [
            f"{one!a}: another metadata sidecar" for one, file in theirs.items()
            if one in ours and not _same_sidecar(ours[one].core_metadata, file.core_metadata)
        ]  # fmt: skip
        for problem in problems[:_MOST]:
            yield self.finding("disagreement", place, name, problem)
        if len(problems) > _MOST:
            yield self.finding("disagreement", place, name, f"{len(problems) - _MOST} more differences")

    # -- its files ----------------------------------------------------------------------------------------------------

    def _things(self, name: str, right: ProjectPage, page: ProjectPage, found: list[Finding]) -> Iterator[Thing]:
        """Files of the site's page that are the right page's as well, and their sidecars."""
        ours = _by_name(right)
        elsewhere = 0
        for file in page.files if not page.quarantined else ():
            known = ours.get(file.filename)
            if known is None:
                continue
            try:
                url = str(self._site.check_url(file.url))
            except Refused:
                if package_of(known.url) is None and known.url == file.url:
                    continue  # it is not the site's to have it
                elsewhere += 1
                if elsewhere <= _MOST:
                    problem = f"the link to {file.filename!a} leads elsewhere: {file.url[:200]!a}"
                    found.append(self.finding("page", f"simple/{name}/", name, problem))
                continue
            algorithm = strongest(known.hashes)
            yield Thing(name, url, known.size, algorithm, known.hashes[algorithm] if algorithm else None)
            if known.core_metadata and file.core_metadata:
                hashes = known.core_metadata if isinstance(known.core_metadata, dict) else {}
                algorithm = strongest(hashes)
                sidecar = f"{url.partition('?')[0]}{METADATA_SUFFIX}"
                yield Thing(name, sidecar, None, algorithm, hashes[algorithm] if algorithm else None)

    async def _all(self, things: Iterable[Thing], always: frozenset[str], seen: Seen) -> None:
        queue = iter(things)

        async def drain() -> None:
            for thing in queue:
                await self.check(thing, seen, read=self._is_read(thing, always))

        workers = [asyncio.ensure_future(drain()) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _is_read(self, thing: Thing, always: frozenset[str]) -> bool:
        path = self.path_of(thing)
        return path in always or self._share.takes(path)

    def path_of(self, thing: Thing) -> str:
        """Below the site's base."""
        return unquote(urlsplit(thing.url.removeprefix(self._site.base)).path).removeprefix("/")

    async def check(self, thing: Thing, seen: Seen, *, read: bool) -> None:
        """Whether it is there, of the right size, and where it is ``read`` of the right digest.  Raises Gone."""
        seen.files += 1
        if problem := await self._answer(thing, seen, read=read):
            kind, text = problem
            seen.findings.append(self.finding(kind, self.path_of(thing), thing.project, text))

    async def _answer(self, thing: Thing, seen: Seen, *, read: bool) -> tuple[Kind, str] | None:
        try:
            return await self._breaker.ask(lambda: self._problem(thing, seen, read=read))
        except Missing as error:
            return "missing", f"not there ({error.reason})"
        except IntegrityError as error:
            kind: Kind = "size" if error.what == "size" else "digest"
            return kind, f"its {error.what} is {error.actual}, where {error.expected} is right"
        except UpstreamError as error:
            return "unreadable", error.reason
        except Refused as error:
            return "unreadable", str(error)

    async def _problem(self, thing: Thing, seen: Seen, *, read: bool) -> tuple[Kind, str] | None:
        if not read:
            size = await self._site.size(self._site.check_url(thing.url))
            if size is not None:
                if thing.size is not None and size != thing.size:
                    return "size", f"its size is {size}, where {thing.size} is right"
                return None
        if thing.url.endswith(METADATA_SUFFIX) and thing.size is None:
            data = await self._site.fetch(thing.url, limit=self._max_sidecar)
            seen.bytes += len(data)
            digest = _digest(thing, data)
        else:
            digest = await self._read(thing, seen)
        seen.hashed += 1
        if digest is not None and digest != thing.digest:
            return "digest", f"its {thing.algorithm} is {digest}, where {thing.digest} is right"
        return None

    async def _read(self, thing: Thing, seen: Seen) -> str | None:
        state, size = new_hash(thing.algorithm) if thing.algorithm else None, thing.size
        if size is None:  # then the site itself has to say where it ends
            size = await self._site.size(self._site.check_url(thing.url))
            if size is None or size > _MOST_BYTES:
                raise Invalid(thing.url, "its size is not known, and the site does not tell it")
        async with self._site.stream(thing.url, size=size) as stream:
            async for batch in stream:
                seen.bytes += len(batch)
                if state is not None:
                    state.update(batch)
        return str(state.hexdigest()) if state is not None else None


def _digest(thing: Thing, data: bytes) -> str | None:
    if thing.algorithm is None:
        return None
    state = new_hash(thing.algorithm)
    state.update(data)
    return str(state.hexdigest())


def _by_name(page: ProjectPage) -> dict[str, DistFile]:
    return {} if page.quarantined else {file.filename: file for file in page.files}


def _same_sidecar(right: CoreMetadata, shown: CoreMetadata) -> bool:
    if isinstance(right, dict) and isinstance(shown, dict):
        return all(shown.get(kind, digest) == digest for kind, digest in right.items())
    return bool(right) == bool(shown)
