"""Asking several sources of one index: who fails is left for the next one, and every request gets its answer.

Used only where several are configured.  A request has, at each source, as many tries as anywhere; one that proves a
source dead (refused, or without an answer in time, while nobody else is answered) ends that at once for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from heliostat.config import UpstreamConfig
from heliostat.errors import Invalid, Missing, RateLimited, Unavailable, UpstreamError
from heliostat.upstream import retry
from heliostat.upstream.changes import Changes
from heliostat.upstream.feed import Feed
from heliostat.upstream.gate import Gate
from heliostat.upstream.metadata import Metadata
from heliostat.upstream.pace import Pace
from heliostat.upstream.session import Session
from heliostat.upstream.sources import BoundGate, Left, Sources, Standing, shows_death
from heliostat.upstream.urls import Checked

T = TypeVar("T")

#: Lists that break off in a row until their source is left.
_BROKEN = 2


class Way:
    """How one source is asked."""

    def __init__(self, base: str, feed: Feed, changes: Changes, metadata: Metadata) -> None:
        self.base, self.feed, self.changes, self.metadata = base, feed, changes, metadata


class Failover:
    """Asks the sources in turn.  ``back_off`` waits before another try, see :meth:`Upstream.back_off`."""

    def __init__(
        self,
        sources: Sources,
        session: Session,
        pace: Pace,
        config: UpstreamConfig,
        back_off: Callable[[int, UpstreamError | None], Awaitable[None]],
    ) -> None:
        self._sources, self._session, self._pace, self._config = sources, session, pace, config
        self._back_off, self._tries = back_off, config.retries
        self._ways = [self._way(one) for one in sources.standings]
        #: For small objects beside files, by host.
        self._beside: dict[str, Metadata] = {}

    def _way(self, one: Standing) -> Way:
        gate, stand_in = BoundGate(self._pace.metadata, one), one.number > 0
        feed = Feed(self._session, gate, one.base)
        changes = Changes(self._session, gate, one.base, most=self._config.max_root, stand_in=stand_in)
        return Way(one.base, feed, changes, Metadata(self._session, gate, one.base, self._config, stand_in=stand_in))

    # The index.

    async def anywhere(self, once: Callable[[Way], Awaitable[T]]) -> T:
        """The answer of the first source that has one.  Raises Unavailable, with what each said, when none has."""
        tries = [0] * len(self._ways)
        errors: dict[int, UpstreamError] = {}
        failed: set[int] = set()
        rounds = 0
        while True:
            one = self._sources.choose(failed)
            if one is not None:
                trial = one.rests_until is not None
                try:
                    return await self._at(one, once, tries, trial=trial)
                except (Invalid, Unavailable) as error:
                    if not trial and not _is_failure(error):
                        raise
                    errors[one.number] = error
                    failed.add(one.number)
                continue
            rounds += 1
            failed = {number for number, error in errors.items() if not self._worth(error, tries[number])}
            if rounds >= self._tries or len(failed) == len(self._ways):
                raise _all_of(errors)
            await self._back_off(rounds - 1, None)

    def _worth(self, error: UpstreamError, tries: int) -> bool:
        return isinstance(error, Left) or retry.worth_retrying(error, tries, self._tries)

    async def _at(self, one: Standing, once: Callable[[Way], Awaitable[T]], tries: list[int], *, trial: bool) -> T:
        """All tries at one source; a ``trial`` of one that rests is a single one."""
        way, number = self._ways[one.number], one.number
        answers, times_left = one.answers, one.times_left
        while True:
            before = one.answers
            try:
                answer = await once(way)
            except (Invalid, Unavailable) as error:
                # Its frames hold the body, which is not to be kept while others have their turn.
                error.__traceback__ = error.__context__ = error.__cause__ = None
                tries[number] += not isinstance(error, Left)
                if isinstance(error, Left):
                    raise
                dead = shows_death(error) and one.answers == before
                over = not retry.worth_retrying(error, tries[number], self._tries)
                if trial or dead or (over and _is_failure(error) and one.answers == answers):
                    self._leave(one, error, times_left)
                    raise
                if over or shows_death(error):  # elsewhere it may be quick
                    raise
                failure = error
            except UpstreamError as error:
                self._sources.answered(one)
                if isinstance(error, Missing):
                    error.stand_in = number > 0
                raise
            else:
                self._sources.answered(one)
                return answer
            await self._back_off(tries[number] - 1, failure)
            if one.times_left != times_left:
                raise one.error()

    def _leave(self, one: Standing, error: UpstreamError, times_left: int) -> None:
        """Of several requests that fail together, one is enough to leave the source."""
        if one.times_left == times_left:
            if one.rests_until is None:
                self._pace.metadata.another_server()
            self._sources.failed(one, error)

    @contextmanager
    def list_of(self, one: Standing) -> Iterator[None]:
        """While a list of ``one`` is read: it is not tried again here, but a source whose lists break off is left."""
        times_left = one.times_left
        try:
            yield
        except Unavailable as error:
            if _is_failure(error) and not isinstance(error, Left):
                one.broken += 1
                if shows_death(error) or one.broken >= min(_BROKEN, self._tries):
                    one.broken = 0
                    self._leave(one, error, times_left)
            raise
        one.broken = 0

    def for_list(self) -> tuple[Standing, Way]:
        """The source to ask for a list, in a single try."""
        one = self._sources.choose()
        assert one is not None
        return one, self._ways[one.number]

    # Files.

    def files_gate(self, url: str) -> BoundGate:
        return BoundGate(self._pace.files, self._sources.host(url))

    def route(self, url: Checked, others: Sequence[Checked]) -> Route:
        return Route(self._sources, self._pace.files, [url, *others])

    async def beside(self, route: Route, limit: int) -> bytes:
        """A small object beside a file, from wherever it can be had."""
        rounds = 0
        while True:
            url = route.take()
            try:
                body = await self._metadata_of(url).object(url, "*/*", limit)
                route.answered()
                return body
            except (Missing, Invalid, Unavailable) as error:
                error.__traceback__ = error.__context__ = error.__cause__ = None
                failure = route.failed(error)
            if failure is None:
                continue
            rounds += 1
            if not retry.worth_retrying(failure, rounds, self._tries):
                raise failure
            await self._back_off(rounds - 1, failure)

    def _metadata_of(self, url: Checked) -> Metadata:
        host = self._sources.host(url)
        found = self._beside.get(host.base)
        if found is None:
            found = self._beside[host.base] = Metadata(self._session, self.files_gate(url), host.base, self._config)
        return found


class Route:
    """Where one file can be had: its own URL, and its places at other sources; its digest says which bytes count."""

    def __init__(self, sources: Sources, gate: Gate, urls: Sequence[Checked]) -> None:
        self._sources, self._gate = sources, gate
        self._urls = list(urls)
        #: Those that failed since all were tried.
        self._failed: dict[Checked, UpstreamError] = {}
        #: Whether the try continues what another one began, and so may not be to blame for wrong bytes.
        self.resumes = False
        self.url = self._urls[0]
        self._host = sources.host(self.url)
        self._before = self._times_left = 0

    def take(self) -> Checked:
        """The URL of the next try: the first one that did not fail yet, and whose host does not rest."""
        left = [url for url in self._urls if url not in self._failed]
        hosts = ((url, self._sources.host(url)) for url in left)
        self.url = next((url for url, host in hosts if self._sources.may_be_asked(host)), left[0])
        self._host, self.resumes = self._sources.host(self.url), False
        self._before, self._times_left = self._host.answers, self._host.times_left
        return self.url

    def answered(self) -> None:
        """The try brought the file."""
        self._sources.host_answered(self._host)

    def failed(self, error: UpstreamError) -> UpstreamError | None:
        """None when another URL is worth a try at once; else what came of trying all of them."""
        if isinstance(error, RateLimited) or (self.resumes and not isinstance(error, Missing | Unavailable)):
            return error
        host = self._host
        if shows_death(error) and host.answers == self._before and host.times_left == self._times_left:
            self._sources.failed(host, error)
            self._gate.another_server()
        self._failed[self.url] = error
        if len(self._failed) < len(self._urls):
            return None
        errors, self._failed = self._failed, {}
        # One that has no such file is not asked again, while another one may have it.
        there = [url for url in self._urls if not isinstance(errors[url], Missing)]
        self._urls = there or self._urls
        return errors[self._urls[0]]


def _is_failure(error: UpstreamError) -> bool:
    """Whether it says that the source cannot serve; asking to wait is no failure, nor is a wrong answer."""
    return isinstance(error, Unavailable) and not isinstance(error, RateLimited)


def _all_of(errors: Mapping[int, UpstreamError]) -> Unavailable:
    """What each source said, the first one first."""
    first, *others = (error for _, error in sorted(errors.items()))
    status = first.status if isinstance(first, Unavailable) else None
    return Unavailable(first.url, "; ".join([first.reason, *map(str, others)]), status=status)
