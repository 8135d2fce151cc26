"""One upstream index as the mirror sees it: what changed, what a project says of itself, and the bytes of files."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Self, TypeVar

from heliostat.config import UpstreamConfig
from heliostat.config.environment import missing_in, not_set
from heliostat.errors import ConfigError, Invalid, Refused, Unavailable, UpstreamError
from heliostat.model import Event, Listed, ProjectName
from heliostat.pages.changes import Head
from heliostat.upstream import retry
from heliostat.upstream.changes import Changes, HeadAnswer, Place, Rows
from heliostat.upstream.clock import Clock, SystemClock
from heliostat.upstream.failover import Failover, Route, Way
from heliostat.upstream.feed import Feed
from heliostat.upstream.files import FileStream, fetch_whole, size_of
from heliostat.upstream.metadata import DocumentAnswer, Metadata, PageAnswer, RootAnswer
from heliostat.upstream.pace import Pace, PaceFigures
from heliostat.upstream.session import OwnTally, Session, Tally
from heliostat.upstream.sources import Sources
from heliostat.upstream.traffic import Kind, Traffic
from heliostat.upstream.urls import Checked, UrlPolicy

__all__ = ["DocumentAnswer", "FileStream", "PageAnswer", "RootAnswer", "Route", "Sources", "Upstream"]

T = TypeVar("T")

#: Answers of the feed in a row: more rows than the public index has ever written.
_MOST_ANSWERS = 2000
#: Of a root list that is asked for its serial only, so many bytes are read.
_BEGINNING = 1 << 20


def _refuse_incomplete(config: UpstreamConfig) -> None:
    """What stands for a secret that is not set must never leave this machine.  Raises ConfigError."""
    for key, value in [*(("url", url) for url in config.url), ("proxy", config.proxy or "")]:
        if name := missing_in(value):
            raise ConfigError([f"[upstream] {key}: {not_set(name)}"])


class Upstream:
    """An index, reached over one HTTP session; use as ``async with``.

    It may have several sources; ``sources`` knows which of them rest, and can be handed to the next Upstream, as can
    ``traffic``, which counts.

    Calls for metadata retry what passes, up to ``retries`` tries, and never a 404.  Everything raises UpstreamError
    (Missing, Unavailable, RateLimited, Invalid, FeedUnsupported), and Refused for URLs that must not be requested.
    No message holds credentials or a query.  Entering it raises ConfigError when secrets are
    not set.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        version: str,
        counters: Tally | None = None,
        sources: Sources | None = None,
        traffic: Traffic | None = None,
        clock: Clock | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._tally: Tally = counters or OwnTally()
        self._clock: Clock = clock or SystemClock()
        self._random = rng
        self.sources = sources or Sources(config, self._clock)
        #: The first source's base URL, without credentials: which index this is, whichever source is asked.
        self.identity = first = self.sources.all[0].base
        self._policy = UrlPolicy(self.sources.all, config.file_hosts, allow_http=config.allow_http)
        self.traffic = traffic or Traffic()
        self._session = Session(
            config, self._policy, version=version, tally=self._tally, clock=self._clock, traffic=self.traffic
        )
        self._pace = Pace(
            config.metadata_at_once,
            config.files_at_once,
            clock=self._clock,
            pauses=self.sources.pauses,
        )
        self.traffic.follow(self._pace.figures)
        self._way = Way(
            first,
            Feed(self._session, self._pace.metadata, first),
            Changes(self._session, self._pace.metadata, first, most=config.max_root),
            Metadata(self._session, self._pace.metadata, first, config),
        )
        #: The same for small objects that stand beside files.
        self._beside_files = Metadata(self._session, self._pace.files, first, config)
        #: None where there is one source: then nothing below is paid for.
        self._failover: Failover | None = None
        if len(self.sources.all) > 1:
            self._failover = Failover(self.sources, self._session, self._pace, config, self.back_off)

    async def __aenter__(self) -> Self:
        _refuse_incomplete(self._config)
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.__aexit__(*error)

    @property
    def base(self) -> str:
        """The base URL of the source in use, without credentials."""
        return self.identity if self._failover is None else self.sources.in_use.base

    @property
    def several(self) -> bool:
        """Whether this index has more than one source."""
        return self._failover is not None

    @property
    def stand_in(self) -> str | None:
        """The source in use when it is not the first one, which it may be behind."""
        return self.base if self.base != self.identity else None

    def figures(self) -> PaceFigures:
        """Limits, requests in flight, and waits as they are now."""
        return self._pace.figures()

    def check_url(self, url: str) -> Checked:
        """``url`` as it may be requested; raises Refused (see UrlPolicy.check)."""
        return self._policy.check(url)

    # Changes.

    async def last_serial(self) -> int:
        """The feed's highest serial; raises FeedUnsupported where there is no feed."""
        return await self._retried(lambda way: way.feed.last_serial())

    async def events_since(self, serial: int) -> AsyncIterator[list[Event]]:
        """The rows above ``serial``, in ascending order, answer by answer until there are no more.

        Each list is complete: every row above the former list's last one and up to its own last one is in it.
        Raises FeedUnsupported where there is no feed.
        """
        cursor = serial
        for _ in range(_MOST_ANSWERS):
            events = await self._changelog(cursor)
            if not events:
                return
            cursor = events[-1].serial
            yield events
        raise Invalid(self.base, f"the change feed does not end: {_MOST_ANSWERS} answers in a row")

    async def _changelog(self, cursor: int) -> list[Event]:
        return await self._retried(lambda way: way.feed.changelog(cursor))

    async def changes_head(self, etag: str | None = None) -> HeadAnswer | None:
        """The head of another heliostat's static change feed; None when it is still the one with ``etag``.

        Raises FeedUnsupported where there is no such feed.
        """
        return await self._retried(lambda way: way.changes.head(etag))

    async def changes_after(self, head: Head, place: Place) -> Rows:
        """Some rows of that feed behind ``place``; none when not all that ``head`` says is there yet."""
        return await self._retried(lambda way: way.changes.rows(head, place))

    def serials_by_xmlrpc(self) -> AbstractAsyncContextManager[AsyncIterator[list[Listed]]]:
        """All projects with their serials (``list_packages_with_serial``), quarantined ones included, as a stream.

        One try: what came before an error does not count.
        """
        if self._failover is not None:
            return self._projects_of(self._failover)
        return self._way.feed.projects(self._config.max_root)

    @asynccontextmanager
    async def _projects_of(self, failover: Failover) -> AsyncIterator[AsyncIterator[list[Listed]]]:
        one, way = failover.for_list()
        with failover.list_of(one):
            async with way.feed.projects(self._config.max_root) as lists:
                yield lists
        self.sources.answered(one)

    @asynccontextmanager
    async def root_list(self, etag: str | None = None) -> AsyncIterator[RootAnswer | None]:
        """The root list, as a stream; None when it is still the one with ``etag``.

        Opening it is retried; an error while it is read is not, and leaves it to the caller to begin again.
        """
        root = await self._retried(lambda way: way.metadata.root(etag))
        reading = self._failover.list_of(self.sources.last) if self._failover is not None else nullcontext()
        with reading:
            try:
                yield root.answer
            except BaseException as error:
                await root.close(error)
                raise
            await root.close(None)

    async def list_serial(self) -> int | None:
        """The serial of the root list, of which only the beginning is read; None when that does not say it."""
        async with self.root_list() as root:
            assert root is not None
            return await root.beginning(_BEGINNING)

    # Projects.

    async def page(self, name: ProjectName, *, etag: str | None = None, most: int | None = None) -> PageAnswer | None:
        """A project's Simple page; None when it is still the one with ``etag``.  Raises NotNow above ``most`` bytes."""
        return await self._retried(lambda way: way.metadata.page(name, etag, most))

    async def document(
        self, name: ProjectName, *, etag: str | None = None, most: int | None = None
    ) -> DocumentAnswer | None:
        """A project's JSON document, as :meth:`page`."""
        return await self._retried(lambda way: way.metadata.document(name, etag, most))

    # Files.

    def file_url(self, url: str) -> Checked:
        """``url`` of a file, or its place at a source where that may not be requested; raises Refused (see check)."""
        try:
            return self.check_url(url)
        except Refused:
            for other in self.sources.same_file(url) if self._failover is not None else ():
                with suppress(Refused):
                    return self.check_url(other)
            raise

    def route(self, url: Checked) -> Route | None:
        """Where else the file at ``url`` can be had; None where there is only this one place."""
        if self._failover is None:
            return None
        others = []
        for other in self.sources.same_file(url):
            with suppress(Refused):
                others.append(self.check_url(other))
        return self._failover.route(url, others) if others else None

    async def fetch(
        self,
        url: str,
        *,
        limit: int,
        accept: str | None = None,
        route: Route | None = None,
        kind: Kind = Kind.SIDECAR,
    ) -> bytes:
        """A small object of at most ``limit`` bytes: with ``accept`` one of the index's, else one beside a file.

        With a ``route`` it comes from wherever that leads.  Raises Refused for a URL that must not be requested.
        """
        if route is not None and self._failover is not None:
            return await self._failover.beside(route, limit)
        checked = self.check_url(url)
        if accept is None:
            return await self._retried(lambda _: self._beside_files.object(checked, "*/*", limit, kind), here=True)
        rest = self.sources.below(checked) if self._failover is not None else None
        if rest is not None:
            return await self._retried(
                lambda way: way.metadata.object(self.check_url(f"{way.base}{rest}"), accept, limit, kind)
            )
        return await self._retried(lambda way: way.metadata.object(checked, accept, limit, kind), here=True)

    async def size(self, url: Checked) -> int | None:
        """The size of a file as HEAD tells it; None when the server does not say."""
        return await self._retried(lambda _: size_of(self._session, self._pace.files, url), here=True)

    async def whole(self, url: Checked, size: int) -> bytes:
        """One try to fetch a small file of exactly ``size`` bytes; raises as a FileStream does."""
        gate = self._pace.files if self._failover is None else self._failover.files_gate(url)
        return await fetch_whole(self._session, gate, url, size)

    def stream(self, url: str, *, offset: int = 0, validator: str | None = None, size: int | None = None) -> FileStream:
        """One try to fetch a file from ``offset`` on: ``async with`` it (see FileStream).  Raises Refused.

        ``validator`` is the ETag that the first part came with; ``size`` what the whole file must have.  A server that
        ignores the range, has another file now (If-Range), or finds the range beyond the end (416) sends all of it:
        look at the stream's ``offset``.
        """
        checked = self.check_url(url)
        return FileStream(
            self._session,
            self._pace.files if self._failover is None else self._failover.files_gate(checked),
            checked,
            offset=offset,
            validator=validator,
            size=size,
            max_file=self._config.max_file,
        )

    # Trying again.

    async def back_off(self, attempt: int, error: UpstreamError | None) -> None:
        """Wait before the next try; ``attempt`` counts from 0.  What upstream asked for is obeyed by everyone."""
        self._tally.retries += 1
        self.traffic.retries += 1
        wait = retry.pause(
            attempt,
            error,
            first=self._config.retry_delay,
            most=self._config.retry_delay_most,
            random=self._random,
        )
        await self._clock.sleep(wait)

    async def _retried(self, once: Callable[[Way], Awaitable[T]], *, here: bool = False) -> T:
        """The answer, after as many tries as it takes; ``here``: from nowhere else."""
        if self._failover is not None and not here:
            return await self._failover.anywhere(once)
        tries = 0
        while True:
            try:
                return await once(self._way)
            except (Invalid, Unavailable) as error:
                # Its frames hold the body, which is not to be kept while others have their turn.
                error.__traceback__ = error.__context__ = error.__cause__ = None
                tries += 1
                if not retry.worth_retrying(error, tries, self._config.retries):
                    raise
                failure = error
            await self.back_off(tries - 1, failure)
