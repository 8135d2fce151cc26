"""The scrub itself: one project after the other, second looks, repairs, and how far it is.

It reads in a thread of its own, with the disk's idle priority where there is such a thing; the event loop does no more
for it than to note how far it is, once a minute, in the ledger.  Repairs are errands of the ordinary passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import ParamSpec, TypeVar

import msgspec

from heliostat.config import Config
from heliostat.errors import HeliostatError
from heliostat.mirror.coverage import Round, weight
from heliostat.mirror.report import Counters
from heliostat.mirror.scrub import ALONE, Extent, Looker, Next, extent, following
from heliostat.mirror.verify.again import Pace, beside_mirror
from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.reading import Budget, Stopping, be_idle
from heliostat.service.daemon import Daemon
from heliostat.service.health import Scrub
from heliostat.service.repairing import repair_in
from heliostat.state.ledger import Ledger
from heliostat.store.threads import Workers

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_KEY = "scrub"
_DAY = 86400.0
#: Seconds between two notes of the position; until another try after an error; between two looks whether there is
#: something to do, and whether the first pass is over.
_SAVE, _REST, _TICK, _FIRST = 60.0, 300.0, 1.0, 0.2
#: What :meth:`heliostat.mirror.scrub.Looker.top` looks at.
_OF_THE_TOP = ("root", "feed")
#: Findings of one project that are logged one by one.
_LOGGED = 20


class Scrubber:
    """Scrubs until it is ended, or switched off by a new configuration."""

    def __init__(self, daemon: Daemon, pace: Pace | None, again: float) -> None:
        self._daemon, self._pace, self._again = daemon, pace, again
        self._budget = Budget(daemon.config.scrub.bytes_per_second)
        self._thread = Workers("heliostat-scrub", 1)
        self._ended = asyncio.Event()
        self._round = Round()
        self._figures = Scrub(every=daemon.config.scrub.every_days * _DAY)
        self._extent: Extent | None = None
        self._saved, self._saved_as = 0.0, b""
        #: When what could not be repaired is tried again, monotonic.
        self._retry_at = 0.0
        self._quiet_about: str | None = None

    def end(self) -> None:
        """Whatever is being read is left, and gone on with the next time."""
        self._budget.stop.set()
        self._ended.set()

    def take(self, config: Config) -> None:
        """From now on this configuration counts."""
        if not config.scrub.enabled:
            self.end()
            return
        self._budget.limit(config.scrub.bytes_per_second)
        self._figures.every = config.scrub.every_days * _DAY

    async def run(self) -> None:
        """Returns once it is ended."""
        daemon = self._daemon
        try:
            while not daemon.health.passes and not self._ended.is_set():  # the mirror comes first
                await self._sleep(_FIRST)
            daemon.health.scrub = self._figures
            await self._thread.run(be_idle)
            loaded = False
            while not self._ended.is_set():
                try:
                    if not loaded:
                        await self._load()
                        loaded = True
                    await self._step()
                    self._well()
                except Stopping:
                    break
                except (HeliostatError, OSError) as error:
                    await self._in_trouble(str(error))
                except Exception as error:
                    text = f"unexpected error: {type(error).__name__}: {error}"
                    if self._quiet_about != text:
                        log.exception("the scrub met an unexpected error; please report this")
                    await self._in_trouble(text)
            if loaded:
                with contextlib.suppress(HeliostatError):
                    await self._save()
        finally:
            self.end()
            if not daemon.config.scrub.enabled:
                daemon.health.scrub = None
            await asyncio.to_thread(self._thread.close)

    # -- one thing after the other ------------------------------------------------------------------------------------

    async def _step(self) -> None:
        """The next project, or a pause until it is time for one.  Raises Stopping."""
        config, now, position = self._daemon.config, time.time(), self._round
        self._extent = await self._read(extent, config)
        total = weight(self._extent.bytes, self._extent.projects)
        if not position.began:
            await self._begin(now)
        if position.open and time.monotonic() >= self._retry_at:
            await self._try_again()
        self._show()
        every = config.scrub.every_days * _DAY
        project = await self._read(following, config, position.name)
        due = position.due(total, every, now) if project is not None else position.next_begin(every, now)
        if due > now:
            await self._sleep(max(_TICK, min(due - now, _SAVE)))
        elif project is None:
            await self._begin(now)
        else:
            await self._check(project)
            position.passed(project.name, project.size, total, time.time())
            self._figures.projects += 1
            self._show()
            if time.monotonic() - self._saved >= _SAVE:
                await self._save()

    async def _begin(self, now: float) -> None:
        """A round begins: with the root pages."""
        assert self._extent is not None
        rate, every = self._daemon.config.scrub.bytes_per_second, self._figures.every
        if self._extent.bytes / rate > every:
            log.warning(
                "scrub: %d bytes at bytes-per-second = %d take %.0f days, more than every-days",
                self._extent.bytes, rate, self._extent.bytes / rate / _DAY,
            )  # fmt: skip
        self._round.begin(now)
        found = await self._top()
        projects = {"", *(one.project for one in self._round.open if one.kind == "root")}
        others = (one for one in self._round.open if one.project in projects and one.kind not in _OF_THE_TOP)
        await self._act(projects, [*found, *(one for one in others if one.project)])
        await self._save()

    async def _top(self) -> list[Finding]:
        """What is wrong with the root pages and the directories."""
        looker = await self._read(Looker, self._daemon.config, self._budget)
        before = self._stillness()
        found = await self._read(looker.top)
        if not found or self._pace is not None or (before is not None and before == self._stillness()):
            return found
        again = await self._read(looker.top)
        return [one for one in again if one in found]

    async def _check(self, project: Next) -> None:
        position = self._round
        if position.current != project.name:
            position.current, position.path = project.name, ""
        while True:
            started = time.time()
            looker = await self._read(Looker, self._daemon.config, self._budget)
            noting = asyncio.create_task(self._note_position(), name="position of the scrub")
            try:
                looked = await self._read(looker.project, project.name, position.path, self._reached)
            finally:
                noting.cancel()
                await asyncio.gather(noting, return_exceptions=True)
            known = [one for one in position.open if one.project == project.name]
            if looked.findings or known:
                await self._act([project.name], await self._confirmed([*looked.findings, *known], started))
            if looked.path is None:
                return
            position.path = looked.path

    def _reached(self, path: str | None) -> None:
        """One more file is checked; called in the thread, and only there are these changed meanwhile."""
        self._figures.files += 1
        if path is not None:
            self._round.path = path

    async def _note_position(self) -> None:
        """A project may have more files than are read in a day."""
        while True:
            await asyncio.sleep(_TICK)
            self._show()
            if time.monotonic() - self._saved >= _SAVE:
                with contextlib.suppress(HeliostatError):
                    await self._save()

    async def _confirmed(self, found: Iterable[Finding], started: float) -> list[Finding]:
        """What is still wrong at a second look, while nothing is being changed, or after a while."""
        looker = await self._read(Looker, self._daemon.config, self._budget)
        before = self._stillness()
        still = await self._read(looker.again, found, self._pace or ALONE, started)
        if not still or self._pace is not None or (before is not None and before == self._stillness()):
            return still
        return await self._read(looker.again, still, beside_mirror(self._daemon.config.mirror.batch_seconds), started)

    def _stillness(self) -> int | None:
        """The same number twice: nobody changed anything in between.  None while somebody may."""
        health = self._daemon.health
        if health.phase != "waiting" or self._daemon.repairing.locked():
            return None
        return sum(health.passes.values())

    # -- findings -----------------------------------------------------------------------------------------------------

    async def _act(self, projects: Iterable[str], found: list[Finding]) -> None:
        """Log what is new, repair, and remember what is left of it."""
        projects = set(projects)
        known = {(one.project, one.path) for one in self._round.open if one.project in projects}
        new = [one for one in found if (one.project, one.path) not in known]
        for one in new[:_LOGGED]:
            log.warning("scrub: %s%s: %s", one.path, f" ({one.project})" if one.project else "", one.problem)
        if len(new) > _LOGGED:
            log.warning("scrub: %d more findings of %s", len(new) - _LOGGED, new[0].project or "the root pages")
        for one in new:
            self._figures.found[one.kind] = self._figures.found.get(one.kind, 0) + 1
        left = await self._repaired(found, new) if found else []
        resolved = bool(known) and not found
        too_many = self._round.take(projects, left)
        if too_many:
            log.warning("scrub: %d more findings are not remembered; heliostat verify lists all", too_many)
        if resolved:  # what was moved aside for them goes
            await self._repaired([], [])
        self._figures.unrepaired = len(self._round.open)
        if found or resolved:
            self._retry_at = time.monotonic() + self._again
            await self._save()

    async def _repaired(self, found: list[Finding], new: list[Finding]) -> list[Finding]:
        """What could not be repaired."""
        done = await repair_in(self._daemon, lambda: found, counters=Counters())
        left = [one for number, one in enumerate(found) if number not in done.fixed]
        for note in done.notes[:_LOGGED]:
            log.warning("scrub: %s", note)
        fixed = len(found) - len(left)
        self._figures.repaired += fixed
        if fixed:
            log.info("scrub: %d findings are repaired", fixed)
        if left and new:
            reason = done.store_error or done.unreachable or "heliostat verify has more"
            log.warning("scrub: %d findings could not be repaired now: %s; tried again later", len(left), reason)
        return left

    async def _try_again(self) -> None:
        """What was not repaired may be by now, by a pass, or by somebody; or can be."""
        position = self._round
        self._retry_at = time.monotonic() + self._again
        projects = {one.project for one in position.open}
        found = [one for one in position.open if one.kind not in _OF_THE_TOP]
        still = await self._confirmed(found, time.time()) if found else []
        if len(found) < len(position.open):
            still = [*await self._top(), *still]
        await self._act(projects, still)

    # -- position -----------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Go on where an earlier process was."""
        kept = await self._daemon.mirror.with_ledger(lambda ledger: ledger.get(_KEY))
        if kept is not None:
            with contextlib.suppress(msgspec.DecodeError, TypeError):
                self._round = msgspec.json.decode(kept, type=Round)
        self._figures.unrepaired = len(self._round.open)

    async def _save(self) -> None:
        position = msgspec.json.encode(self._round)
        self._saved = time.monotonic()
        if position != self._saved_as:
            await self._daemon.mirror.with_ledger(partial(_put, position.decode()))
            self._saved_as = position

    def _show(self) -> None:
        figures, position, extent = self._figures, self._round, self._extent
        figures.oldest, figures.round_began = position.oldest(), position.began or None
        figures.bytes = self._budget.bytes
        if extent is not None:
            figures.share = position.share(weight(extent.bytes, extent.projects))

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def _read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In the thread, once it is not ended."""
        if self._ended.is_set():
            raise Stopping
        try:
            return await self._thread.run(work, *args, **kwargs)
        finally:
            self._figures.bytes = self._budget.bytes

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _in_trouble(self, text: str) -> None:
        self._figures.trouble = text
        if text != self._quiet_about:
            self._quiet_about = text
            log.warning("scrub: %s; tried again in %.0f s", text, _REST)
        await self._sleep(_REST)

    def _well(self) -> None:
        self._figures.trouble = self._quiet_about = None


def _put(position: str, ledger: Ledger) -> None:
    ledger.put(**{_KEY: position})
