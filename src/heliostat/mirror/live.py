"""What a daemon asks of a pass beyond what a single one does: to go on polling, and to take errands meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from heliostat.errors import UpstreamError
from heliostat.mirror.changes import Seen
from heliostat.mirror.report import Counters, Summary
from heliostat.model import ProjectName
from heliostat.state.rows import Row


class Errand:
    """Projects that somebody wants to be looked at now; ``done`` once they are dealt with.

    ``named``: also those that the configuration leaves out (see ``heliostat mirror NAME``).
    """

    def __init__(self, names: Mapping[ProjectName, str], counters: Counters | None = None, *, named: bool) -> None:
        self.names, self.named = dict(names), named
        self.counters = counters or Counters()
        #: Not dealt with yet.
        self.left: set[ProjectName] = set(names)
        self.unknown: list[str] = []
        #: How they were before.
        self.before: dict[ProjectName, Row | None] = {}
        #: The pass that could not deal with all of them; None when one did.
        self.ended_by: Summary | None = None
        #: The error that ended it, if one did.
        self.error: Exception | None = None
        self.done = asyncio.Event()
        #: Seconds since the epoch.
        self.began = time.time()
        self.counters.projects_total = len(self.left)

    def add(self, names: Mapping[ProjectName, str]) -> None:
        """More projects, before anybody takes the errand."""
        self.names |= names
        self.left |= names.keys()
        self.counters.projects_total = len(self.left)

    def dealt_with(self, names: Iterable[str], *, unknown: bool = False) -> bool:
        """Some projects are; whether that were the last ones of this errand."""
        found = self.left.intersection(names)
        self.left -= found
        self.counters.projects_done += len(found)
        if unknown:
            self.unknown += [self.names[name] for name in found]
        return bool(found) and not self.left

    def finish(self, ended_by: Summary | None = None, error: Exception | None = None) -> None:
        """All are dealt with, or the pass ended before."""
        self.ended_by, self.error = ended_by, error
        self.done.set()


class Live:
    """One pass of a daemon, as both sides see it.  The callables are the daemon's, and never raise."""

    def __init__(
        self,
        *,
        grace: float,
        poll: bool,
        next_poll: Callable[[], Coroutine[Any, Any, None]],
        polling: Callable[[], None],
        put_off: Callable[[], None],
        errands: Callable[[], list[Errand]],
        polled: Callable[[Seen | None, UpstreamError | None], None],
        committed: Callable[[bool], None],
        published: Callable[[Summary], Awaitable[None]],
    ) -> None:
        #: Seconds that what is in flight gets once the pass is to stop.
        self.grace = grace
        #: Whether the pass begins with a poll; otherwise it only deals with what is due.
        self.poll = poll
        #: Returns when it is time to poll again; cancelled when the pass has nothing more to do.
        self.next_poll = next_poll
        #: A poll begins, other than the one at the beginning of the pass: whoever asked for one by now gets it.
        self.polling = polling
        #: That poll came to nothing, since the pass ended meanwhile: the next pass is to make up for it.
        self.put_off = put_off
        #: What is wanted since it was asked last.
        self.errands = errands
        #: A poll was answered; or one failed, in the middle of a pass that goes on.
        self.polled = polled
        #: A batch, or a removal, is durable; whether projects are answered, or fail one after the other.
        self.committed = committed
        #: Something new is in the tree and in its root index; told in the middle of a pass.
        self.published = published
        #: Errands that the pass has taken.
        self.taken: list[Errand] = []
        #: Projects that are removed, or forgotten, at the end of the pass.
        self.at_end: set[str] = set()
        #: What upstream asked to wait, in seconds, if that is why the pass could not go on.
        self.retry_after: float | None = None
