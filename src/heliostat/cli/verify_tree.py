"""``heliostat verify`` of a tree on this machine: look, repair if asked to, report."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from heliostat.cli.exit_codes import ExitCode, signal_code
from heliostat.cli.options import Options

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.verify.asked import Asked
    from heliostat.mirror.verify.ground import Ground
    from heliostat.mirror.verify.helpers import Helpers
    from heliostat.mirror.verify.position import Desk
    from heliostat.mirror.verify.result import Repaired, Result
    from heliostat.mirror.verify.run import Verification


class Tree:
    """One run of the command."""

    def __init__(
        self,
        options: Options,
        config: Config | None,
        web_root: str | None,
        asked: Asked,
        *,
        state: str | None,
        restart: bool,
        junit: str | None,
        repair: bool,
        delete: bool,
        allow: int,
        bytes_per_second: int | None,
        idle: bool,
        workers: int | None,
    ) -> None:
        self._options, self._config, self._web_root, self._asked = options, config, web_root, asked
        self._state, self._restart, self._junit = state, restart, junit
        self._repair, self._delete, self._allow = repair, delete, allow
        self._rate, self._idle, self._workers = bytes_per_second, idle, workers

    def run(self) -> int:
        from heliostat.cli import running
        from heliostat.cli.logging_setup import set_up_logging
        from heliostat.cli.verify_report import writable
        from heliostat.mirror.verify.ground import bare_ground, mirror_ground
        from heliostat.mirror.verify.helpers import Helpers, usual_number
        from heliostat.mirror.verify.position import begin, desk
        from heliostat.mirror.verify.reading import Budget

        set_up_logging(self._options, wanted=self._config.logging.format if self._config else "auto")
        if self._junit is not None:
            writable(self._junit)
        if self._config is not None and (self._repair or self._delete):
            _refuse_unless_possible(self._config)
        budget = Budget(self._rate)
        if self._config is not None:
            ground = mirror_ground(self._config, budget)
        else:
            assert self._web_root is not None
            ground = bare_ground(self._web_root, budget)
        folder = self._folder()
        # First of all: they are to inherit nothing else.
        helpers = Helpers(ground, self._workers or usual_number(), idle=self._idle)
        try:
            position = begin(self._asked.key(ground.web))
            with desk(folder, position, restart=self._restart) as opened:
                return running.run(lambda stop: self._verify(ground, opened, folder, helpers, stop))
        finally:
            helpers.stop()
            helpers.close()

    def _folder(self) -> str | None:
        if self._state is not None:
            return os.path.abspath(self._state)
        if self._config is None:
            return None
        from heliostat.mirror.places import state_directory

        folder = state_directory(self._config)
        return f"{folder}/verify" if os.access(folder, os.W_OK) else None

    async def _verify(self, ground: Ground, opened: Desk, folder: str | None, helpers: Helpers, stop: Stop) -> int:
        from heliostat.cli.progress import showing
        from heliostat.cli.verify_report import report, write_junit
        from heliostat.mirror.report import Counters
        from heliostat.mirror.verify.position import clear

        counters = Counters()
        async with showing(counters, self._options):
            verification, result = await self._look(ground, opened, counters, helpers, stop)
            repaired = None
            wished = (self._repair or self._delete) and not result.interrupted
            if wished and (result.findings or (self._repair and _has_replaced(self._config))):
                repaired = await self._act(verification, result, counters, stop)
        code = _code(result, repaired, stop)
        if self._junit is not None and not result.interrupted:
            write_junit(self._junit, verification, repaired)
        if folder is not None and not result.interrupted:
            report(self._options, code, verification, repaired)
            clear(folder)
        else:
            report(self._options, code, verification, repaired)
        return code

    async def _look(
        self, ground: Ground, opened: Desk, counters: Any, helpers: Helpers, stop: Stop
    ) -> tuple[Verification, Result]:
        from heliostat import __version__
        from heliostat.mirror.verify.run import Verification

        async with contextlib.AsyncExitStack() as stack:
            upstream = None
            if self._asked.against_upstream:
                from heliostat.upstream.client import Upstream

                assert self._config is not None
                source = Upstream(self._config.upstream, version=__version__, counters=counters)
                upstream = await stack.enter_async_context(source)
            verification = Verification(
                ground, self._asked, opened, counters, stop.event,
                upstream=upstream, helpers=helpers, workers=self._workers, idle=self._idle,
            )  # fmt: skip
            return verification, await verification.run()

    async def _act(self, verification: Verification, result: Result, counters: Any, stop: Stop) -> Repaired:
        """Repair, or have it done by the daemon that holds the mirror."""
        from heliostat.errors import MirrorLocked
        from heliostat.mirror.run import Mirror

        assert self._config is not None
        async with contextlib.AsyncExitStack() as stack:
            try:
                mirror = await stack.enter_async_context(Mirror.open(self._config, stop=stop.event))
            except MirrorLocked:
                from heliostat.cli.verify_handover import hand_over

                repaired = await hand_over(
                    self._config, verification.findings, result,
                    fix=self._repair, delete=self._delete, allow=self._allow, counters=counters, stop=stop,
                )  # fmt: skip
                if repaired is None:
                    raise
                return repaired
            return await mirror.repair(
                verification.findings, counters=counters, stop=stop.event, fix=self._repair, delete=self._delete,
                allow_removals=self._allow, unreadable=result.unreadable,
            )  # fmt: skip


def _has_replaced(config: Config | None) -> bool:
    """Whether an earlier repair moved something aside, which may be of no use any more."""
    from heliostat.mirror.places import DAMAGED

    return config is not None and os.path.isdir(f"{config.mirror.directory}/{DAMAGED}")


def _refuse_unless_possible(config: Config) -> None:
    """Raises MirrorLocked, when who holds the mirror is no daemon that can repair, before hours are spent."""
    from heliostat.errors import MirrorLocked
    from heliostat.mirror.lock import holder_of
    from heliostat.mirror.places import LOCK, state_directory

    path = f"{state_directory(config)}/{LOCK}"
    holder = holder_of(path)
    if holder is None:
        config.require_secrets()
        return
    from heliostat.cli import running
    from heliostat.cli.verify_handover import is_ready

    if not running.run(lambda _: is_ready(config)):
        raise MirrorLocked(path, f"{holder}, and repairs need the lock; without --repair a verify needs none")


def _code(result: Result, repaired: Repaired | None, stop: Stop) -> ExitCode:
    if repaired is not None and repaired.store_error is not None:
        return ExitCode.STORE
    if result.interrupted and result.unreachable is None:
        return signal_code(stop.number)
    if repaired is not None and repaired.interrupted:
        return signal_code(stop.number)
    if repaired is not None and repaired.held:
        return ExitCode.APPROVAL
    if result.unreachable is not None or (repaired is not None and repaired.unreachable is not None):
        return ExitCode.UPSTREAM
    left = result.findings if repaired is None else repaired.left
    return ExitCode.INCOMPLETE if left or result.unknown else ExitCode.COMPLETE
