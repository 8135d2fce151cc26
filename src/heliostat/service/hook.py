"""The hook: a program of the operator's that learns what was published, each change at least once and in order.

How far it has come is in the ledger, so that neither its failure nor ours loses anything.  It never runs twice at once,
not even when this process was killed under it; and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from heliostat.config import Config, PushConfig
from heliostat.errors import HeliostatError
from heliostat.mirror.places import state_directory
from heliostat.mirror.report import Summary
from heliostat.service.daemon import Daemon
from heliostat.service.hookrun import end_group, run_program
from heliostat.service.telling import Alone, Telling
from heliostat.service.timing import paused
from heliostat.state.ledger import Ledger
from heliostat.store.threads import in_thread

log = logging.getLogger(__name__)

#: Rows that are read from the ledger at a time: others want to read and write it as well.
_ROWS = 100
#: Seconds after which it is looked for changes in any case.
_AT_LEAST = 600.0
POSITION = "hook_position"


class Batch(NamedTuple):
    """What one run is told: changes after the number ``since``, up to ``to``, and the highest serial of them."""

    since: int
    to: int
    serial: int
    #: False when it was not told of all before these, and never will be.
    complete: bool


@contextlib.asynccontextmanager
async def hook(daemon: Daemon) -> AsyncIterator[None]:
    """While this is open the configured program is run after what was published; in the end it is stopped."""
    runner = _Runner(daemon)

    async def published(_: Summary) -> None:
        runner.news.set()

    async def configured(_: Config) -> None:
        runner.news.set()

    daemon.after_pass.append(published)
    daemon.after_reload.append(configured)
    task = asyncio.create_task(runner.run(), name="hook")
    try:
        yield
    finally:
        daemon.after_pass.remove(published)
        daemon.after_reload.remove(configured)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        runner.close()


class _Runner:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._pushing, self._alone = daemon, daemon.health.pushing, Alone()
        self.news = asyncio.Event()
        self.news.set()  # something may be left from before

    def close(self) -> None:
        self._alone.close()

    @property
    def _config(self) -> PushConfig:
        return self._daemon.config.push

    async def run(self) -> None:
        pause = 0.0
        while True:
            # Some changes are recorded without a pass that published: they are not for ever overlooked.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AT_LEAST if self._config.hook else None):
                    await self.news.wait()
            self.news.clear()
            trouble = await self._guarded()
            if trouble is None:
                pause = 0.0
                continue
            pause = min(max(pause * 2, self._config.retry_first), self._config.retry_most)
            told, now = self._pushing.hook, time.time()
            level = logging.WARNING if told.badly(trouble, now) else logging.DEBUG
            told.again = now + pause
            log.log(level, "the hook %s; trying again in %s with everything since it went well", trouble, paused(pause))
            await self._wait(pause)
            self.news.set()

    async def _wait(self, pause: float) -> None:
        """Through a pause; another configuration may be what helps, another pass is not."""
        configured, until = self._config, time.monotonic() + pause
        while (left := until - time.monotonic()) > 0 and self._config == configured:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.news.wait()
            self.news.clear()

    async def _guarded(self) -> str | None:
        """Run the hook until nothing is left to tell; what is wrong."""
        try:
            if self._config.hook:
                return await self._catch_up()
            # What happens while there is none is not owed to one that is configured later.
            await self._daemon.mirror.with_ledger(_forget_position)
            self._pushing.hook.trouble = self._pushing.hook.since = self._pushing.hook.again = None
            return None
        except OSError as error:
            return f"was not run: {error}"
        except HeliostatError as error:
            return f"was not run: {error}"
        except Exception as error:  # whatever it is, the next change comes
            log.exception("the hook was not run; please report this")
            return f"was not run: unexpected {type(error).__name__}"

    async def _catch_up(self) -> str | None:
        if not self._alone.hold(self._folder) and not await self._end_overdue():
            return "was not run: it still runs since before this process, or something in its process group"
        while (batch := await self._prepare()) is not None:
            if trouble := await self._run(batch):
                return trouble
            position = batch.to
            await self._daemon.mirror.with_ledger(lambda ledger: ledger.put(**{POSITION: position}))  # noqa: B023
            if self._pushing.hook.well(time.time()):
                log.info("the hook goes well again")
        return None

    async def _end_overdue(self) -> bool:
        """End a run that an earlier daemon left, once its time is over; whether that makes way for another one."""
        limit = self._config.hook_timeout
        group = await in_thread(self._alone.overdue, self._folder, limit)
        if group is None:
            return False
        log.warning("the hook still ran since before this process, for longer than %g s, and was ended", limit)
        await end_group(group)
        return self._alone.hold(self._folder)

    async def _run(self, batch: Batch) -> str | None:
        config, directory = self._config, self._daemon.config.mirror.directory
        self._pushing.running = True
        try:
            with open(f"{self._folder}/paths", "rb") as paths:  # noqa: ASYNC230 - opening alone does not wait
                return await run_program(
                    config.hook,
                    cwd=f"{directory}/web",
                    variables={
                        "HELIOSTAT_CONFIG": self._daemon.config.source,
                        "HELIOSTAT_DIRECTORY": directory,
                        "HELIOSTAT_CHANGES": f"{self._folder}/changes.jsonl",
                        "HELIOSTAT_PATHS": f"{self._folder}/paths",
                        "HELIOSTAT_SINCE": str(batch.since),
                        "HELIOSTAT_TO": str(batch.to),
                        "HELIOSTAT_SERIAL": str(batch.serial),
                        "HELIOSTAT_CHECKPOINT": str(self._daemon.health.checkpoint),
                        "HELIOSTAT_COMPLETE": "yes" if batch.complete else "no",
                    },
                    stdin=paths.fileno(),
                    inherit=self._alone.descriptor,
                    started=self._alone.runs,
                    limit=config.hook_timeout,
                )
        finally:
            self._pushing.running = False

    @property
    def _folder(self) -> str:
        return f"{state_directory(self._daemon.config)}/hook"

    async def _prepare(self) -> Batch | None:
        """Write down what the next run is told; None when there is nothing."""
        ledger = self._daemon.mirror.with_ledger
        start, first, last = await ledger(_position)
        if last == start:
            return None
        with Telling(self._folder) as telling:
            if start is None:
                return Batch(last, last, 0, complete=False)
            number = start
            while number < last and not telling.full:
                rows = await ledger(lambda it: it.changelog.after(number, _ROWS))  # noqa: B023 - called at once
                if not rows:
                    break
                await in_thread(telling.add, rows)
                number = rows[-1].number
        return Batch(start, number, telling.serial, complete=first <= start + 1)


def _position(ledger: Ledger) -> tuple[int | None, int, int]:
    """The last change that the hook was told of, the first and the last that there are.

    None where that is not known and there are some: it has to be told that it was not told everything.
    """
    first, last = ledger.changelog.first, ledger.changelog.last
    found = ledger.get(POSITION)
    if found is None and not last:
        ledger.put(**{POSITION: 0})
        return 0, first, last
    return (int(found) if found is not None and int(found) <= last else None), first, last


def _forget_position(ledger: Ledger) -> None:
    if ledger.get(POSITION) is not None:
        ledger.put(**{POSITION: None})
