"""A running daemon's figures for whoever asks; what must be read is read off the event loop, and sparingly."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, TypeVar

import msgspec

from heliostat import __version__
from heliostat.errors import StateError, StoreError
from heliostat.mirror.figures import DiskFigures, LedgerFigures, disk_figures, read_figures
from heliostat.mirror.report import Status
from heliostat.mirror.status import read_status
from heliostat.service.daemon import Daemon
from heliostat.service.figures import Figures, Process
from heliostat.service.results import result_of
from heliostat.service.sparing import Sparing

log = logging.getLogger(__name__)
T = TypeVar("T")


class Gathering:
    """The figures of one daemon.  The reads look at its configuration as it is at that moment."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ledger: Sparing[LedgerFigures | None] = Sparing(self._read_ledger)
        self._disk: Sparing[DiskFigures | None] = Sparing(self._read_disk)
        self._status: Sparing[Status | None] = Sparing(lambda: read_status(daemon.config))

    async def figures(self) -> Figures:
        """Everything, as it is now; what cannot be read is left out."""
        daemon = self._daemon
        last = daemon.health.last
        ledger, disk = await asyncio.gather(_in_time(self._ledger), _in_time(self._disk))
        return Figures(
            config=daemon.config,
            ledger=ledger,
            disk=disk,
            last=last,
            result=None if last is None else result_of(last),
            process=Process(
                health=daemon.health,
                traffic=daemon.mirror.traffic,
                sources=daemon.mirror.sources,
                done=daemon.mirror.done(),
                idle=self.idle(),
            ),
        )

    def idle(self) -> float:
        """Seconds since the loop last got on; 0 while nothing is expected to happen."""
        return max(0.0, time.monotonic() - self._daemon.progressed())

    async def status(self) -> dict[str, Any]:
        """What ``heliostat status --json`` tells, and beside it under ``live`` what only the process knows.

        Raises StateError, StoreError.
        """
        figures, status = await asyncio.gather(self.figures(), _in_time(self._status))
        if status is None:
            raise StoreError("read the ledger in", self._daemon.config.mirror.directory, "the disk does not answer")
        # How far behind it is is said twice: of one reading of the ledger.
        told = {"lag_serials": status.lag, "lag_seconds": self._seconds_behind(status)}
        return {**msgspec.to_builtins(status), "live": self._live(figures) | told}

    def _seconds_behind(self, status: Status) -> float | None:
        if status.lag is None or status.lag == 0:
            return None if status.lag is None else 0.0
        since = status.behind_since if status.behind_since is not None else self._daemon.health.behind_since
        return None if since is None else max(0.0, time.time() - since)

    def _live(self, figures: Figures) -> dict[str, Any]:
        health, traffic, sources = self._daemon.health, self._daemon.mirror.traffic, self._daemon.mirror.sources
        self._daemon.look_at_hold()
        live = {
            "version": __version__,
            "configuration": self._daemon.config.source,
            "disk": figures.disk,
            "result": figures.result,
            "sources": [
                {
                    "source": one.base,
                    "in_use": one is sources.in_use,
                    "rests_because": None if one.rests_until is None else one.reason,
                }
                for one in sources.standings
            ],
            "pace": None if traffic.pace is None else traffic.pace()._asdict(),
        }
        # The last pass is told by its figures; whom it owes is in the status already.
        told = {name: getattr(health, name) for name in health.__struct_fields__ if name not in _NOT_TOLD}
        last = None if health.last is None else msgspec.to_builtins(health.last)
        if last is not None:
            last = {name: value for name, value in last.items() if not isinstance(value, list | dict)}
        found: dict[str, Any] = msgspec.to_builtins({**told, **live, "last": last})
        return found

    def _read_ledger(self) -> LedgerFigures | None:
        for _ in range(2):  # it may have been opened for writing just then
            try:
                return read_figures(self._daemon.config)
            except (StateError, StoreError) as error:
                log.debug("no figures of the ledger: %s", error)
        return None

    def _read_disk(self) -> DiskFigures | None:
        try:
            return disk_figures(self._daemon.config.mirror.directory)
        except OSError as error:
            log.debug("no figures of the disk: %s", error)
            return None


async def _in_time(reading: Sparing[T]) -> T | None:
    try:
        return await reading.get()
    except TimeoutError:
        return None


#: Of health: the last pass is told in its own way, and what is monotonic says nothing outside the process.
_NOT_TOLD = frozenset({"last", "progress", "quiet_until"})
