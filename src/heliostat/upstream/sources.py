"""Which source of an index is asked, and which ones rest because they failed or are behind.

The sources stand in the order of the configuration: the first one that does not rest is in use.  One that failed rests
for a while; when that is over, one request tries it, and an answer puts it back into its place.  A source that is
*behind* answers well, but its serial is below one that was seen already: only a look at its serial takes it back.
Hosts of files have a standing of their own.  All this outlives a pass: the mirror keeps it as long as it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator

from heliostat import names
from heliostat.config import UpstreamConfig
from heliostat.errors import Unavailable, UpstreamError
from heliostat.upstream.clock import Clock, SystemClock
from heliostat.upstream.faults import NotConnected, TimedOut
from heliostat.upstream.gate import Gate, Permit
from heliostat.upstream.pauses import Hold, Pauses
from heliostat.upstream.urls import source

log = logging.getLogger(__name__)


class Left(Unavailable):
    """The request was not sent: while it waited for its turn, another one showed that this source is to be left."""


class Standing:
    """How one source, or one host of files, behaves.  Only :class:`Sources` changes it."""

    __slots__ = ("answers", "base", "behind", "broken", "number", "reason", "rests_until", "speaks", "times_left")

    def __init__(self, number: int, base: str) -> None:
        self.number, self.base = number, base
        #: When it may be tried again, on the clock; None while it does not rest.
        self.rests_until: float | None = None
        #: Why it rests, or rested last.
        self.reason = ""
        self.behind = False
        #: It failed with an answer, if one that is of no use: another question may have a better one.
        self.speaks = False
        #: Requests that it answered: whether others succeed tells a dead source from one page that fails.
        self.answers = 0
        #: Lists that broke off in a row.
        self.broken = 0
        self.times_left = 0

    def __str__(self) -> str:
        return self.base if self.number >= 0 else f"{self.base} (files)"

    def error(self) -> Left:
        """Why it is not asked now."""
        return Left(self.base, self.reason)


class Sources:
    """The sources of one index, and the hosts of its files."""

    def __init__(self, config: UpstreamConfig, clock: Clock | None = None) -> None:
        self.all = tuple(source(url) for url in config.url)
        self._clock: Clock = clock or SystemClock()
        self._rest = config.source_rest
        self.standings = tuple(Standing(number, one.base) for number, one in enumerate(self.all))
        self._hosts: dict[str, Standing] = {}
        #: What they asked to wait.
        self.pauses = Pauses(self._clock, first=config.retry_delay, most=config.retry_delay_most, only=self.all[0].base)
        #: The source that answered last.
        self.last = self.standings[0]

    def take_over(self, old: Sources) -> None:
        """What a source that was one before asked to wait still counts."""
        self.pauses.take_over(old.pauses, [one.base for one in self.all])

    @property
    def in_use(self) -> Standing:
        """The source that is asked now; when all of them rest, the one that answered last."""
        return next((one for one in self.standings if one.rests_until is None), self.last)

    @property
    def hold(self) -> Hold | None:
        """What the source in use asked to wait, where that is long enough to be told of."""
        return self.pauses.hold_of(self.in_use.base if len(self.all) > 1 else None)

    def choose(self, without: Collection[int] = ()) -> Standing | None:
        """The source to ask, except those; None when none is left.

        A rest that is over is begun anew for whoever gets the source now: one request tries it, the others do not.
        When all rest, there is nothing better to do than to try them, first those that are merely behind.
        """
        for one in self.standings:
            if one.number in without:
                continue
            if one.rests_until is None:
                return one
            if not one.behind and one.rests_until <= self._clock.now():
                one.rests_until = self._clock.now() + self._rest
                return one
        left = [one for one in self.standings if one.number not in without]
        return min(left, key=lambda one: (not one.behind, one.number), default=None)

    def answered(self, one: Standing) -> None:
        """A source answered."""
        self.last = one
        self._alive(one)

    def _alive(self, one: Standing) -> None:
        one.answers += 1
        if one.rests_until is not None and not one.behind:
            one.rests_until = None
            log.warning("%s answers again: it is asked again", one)

    def failed(self, one: Standing, error: UpstreamError) -> None:
        """A source, or a host, is to be left: who waits to ask it goes elsewhere."""
        self._leave(one, error.reason, known=one.rests_until is not None and not one.behind)
        one.behind, one.speaks = False, isinstance(error, Unavailable) and error.status is not None

    def is_behind(self, one: Standing, reason: str) -> bool:
        """A source is not to be used, because it is behind; whether there is another one that does not rest."""
        known, one.behind = one.behind, True
        self._leave(one, reason, known=known)
        return any(other.rests_until is None for other in self.standings)

    def _leave(self, one: Standing, reason: str, *, known: bool) -> None:
        one.times_left += 1
        one.rests_until, one.reason = self._clock.now() + self._rest, reason
        if known:
            log.debug("%s still rests: %s", one, reason)
            return
        others = self.standings if one in self.standings else ()
        following = next((other.base for other in others if other.rests_until is None), None)
        instead = f"; {following} is asked instead" if following else ""
        log.warning("%s is left for %g s: %s%s", one, self._rest, reason, instead)

    def look_again(self) -> None:
        """Sources that were behind may be asked for their serial again, when their rest is over."""
        for one in self.standings:
            if one.behind and one.rests_until is not None and one.rests_until <= self._clock.now():
                one.rests_until = None

    def is_not_behind(self, one: Standing) -> None:
        """A source's serial is as high as any that was seen."""
        if one.behind:
            one.behind, one.rests_until = False, None
            log.warning("%s is not behind any more: it is asked again", one)

    def only_hope(self) -> bool:
        """The others are behind; whether the first source, which failed with an answer, may have another one."""
        first = self.standings[0]
        if first.behind or first.rests_until is None or not first.speaks:
            return False
        first.rests_until = None
        log.debug("%s is tried for its list, since no other one is of use", first)
        return True

    # Files.

    def host(self, url: str) -> Standing:
        """The standing of the scheme, host and port of a checked URL."""
        start = url[: url.find("/", 8)]
        found = self._hosts.get(start)
        if found is None:
            found = self._hosts[start] = Standing(-1, start)
        return found

    def below(self, url: str) -> str | None:
        """What stands behind a source's base in ``url``; None for a URL that lies below none."""
        return next((url[len(one.base) :] for one in self.all if url.startswith(f"{one.base}/")), None)

    def same_file(self, url: str) -> Iterator[str]:
        """Where other sources should have the file: at the place that its bytes give it, or else at the same place."""
        path = url.partition("?")[0]
        if names.content_digits(path) is not None:
            rest: str | None = path[path.rindex("/packages/") :]
        else:
            rest = self.below(url)
        if rest is not None:
            yield from (other for one in self.all if (other := one.base + rest) != url)

    def may_be_asked(self, host: Standing) -> bool:
        """Whether a host does not rest, or is to be tried by whoever asks now."""
        if host.rests_until is None:
            return True
        if host.rests_until > self._clock.now():
            return False
        host.rests_until = self._clock.now() + self._rest
        return True

    def host_answered(self, host: Standing) -> None:
        """A host sent a file."""
        self._alive(host)


def shows_death(error: UpstreamError) -> bool:
    """Whether one such failure is enough, as long as nobody else is answered: others need not wait as long for it."""
    return isinstance(error, TimedOut | NotConnected)


class BoundGate:
    """A gate as those see it who ask one source or host: who waited while it was left is not let through."""

    def __init__(self, gate: Gate, one: Standing) -> None:
        self._gate, self._one = gate, one

    def permit(self, *, large: bool = False) -> Permit:
        permit = self._gate.permit(large=large, server=self._one.base)
        permit.check = self._check(self._one.times_left)
        return permit

    def _check(self, times_left: int) -> Callable[[], None]:
        def check() -> None:
            if self._one.times_left != times_left:
                raise self._one.error()

        return check
