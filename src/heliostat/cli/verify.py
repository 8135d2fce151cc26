"""``heliostat verify``."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.exit_codes import ExitCode, signal_code
from heliostat.cli.options import Options, common, current, settings
from heliostat.cli.param_types import Digests, Sample, Since, Size
from heliostat.cli.verify_sites import Way

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.verify.asked import Asked
    from heliostat.mirror.verify.ground import Ground
    from heliostat.mirror.verify.helpers import Helpers
    from heliostat.mirror.verify.position import Desk
    from heliostat.mirror.verify.result import Repaired, Result
    from heliostat.mirror.verify.run import Verification


@click.command()
@click.option("--web-root", metavar="DIR", help="A web root alone, wherever it came from: no configuration, no ledger.")
@click.option("--quick", is_flag=True, help="Presence and sizes only; no file is read.")
@click.option("--against", type=click.Choice(["upstream"]), help="Let upstream's pages decide what is right.")
@click.option("--projects", metavar="NAME...", multiple=True, help="Only these projects.")
@click.option(
    "--since", type=Since(), help="Only projects changed after this serial, or written since this date (UTC)."
)
@click.option("--sample", type=Sample(), help="Hash only so many files, drawn anew each time, or such a share.")
@click.option("--bytes-per-second", type=Size(), help="Read no faster than this.")
@click.option("--idle", is_flag=True, help="Use the disk only when nobody else does, where the system can do that.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Threads; as many as cores otherwise.")
@click.option("--state", metavar="DIR", help="Where the position is kept, so that an interrupted verify goes on there.")
@click.option("--restart", is_flag=True, help="Begin anew, even if an earlier one was interrupted.")
@click.option("--junit", metavar="FILE", help="Write a report in JUnit's XML there as well.")
@click.option("--repair", is_flag=True, help="Fetch what is missing or damaged, write pages anew.")
@click.option("--delete-unreferenced", is_flag=True, help="Remove what no page names.")
@click.option(
    "--allow-removals", type=click.IntRange(min=0), default=0, metavar="N",
    help="Remove up to N files although they are an implausible share.",
)  # fmt: skip
@click.option("--site", "sites", metavar="URL", multiple=True, help="Verify this site over HTTP; may be repeated.")
@click.option("--digests", type=Digests(), help="With --site: read so many files, or such a share, and compare.")
@click.option("--allow-http", is_flag=True, help="With --site: ask other machines without encryption, too.")
@click.argument("names", nargs=-1, metavar="")
@common
def command(
    *,
    web_root: str | None,
    quick: bool,
    against: str | None,
    projects: tuple[str, ...],
    since: tuple[str, float] | None,
    sample: tuple[str, float] | None,
    bytes_per_second: int | None,
    idle: bool,
    workers: int | None,
    state: str | None,
    restart: bool,
    junit: str | None,
    repair: bool,
    delete_unreferenced: bool,
    allow_removals: int,
    sites: tuple[str, ...],
    digests: tuple[str, float] | None,
    allow_http: bool,
    names: tuple[str, ...],
) -> int:
    """Check that everything is there, and right: files, pages, links, ledger.

    With --site a copy elsewhere, over HTTP, held against this one, or against upstream (--against).

    Takes no lock and changes nothing, unless --repair or --delete-unreferenced says so.  Ends with 3 when something is
    wrong.  Interrupted, it goes on where it was the next time.
    """
    options = current()
    if names and not projects:
        raise click.UsageError(f"unexpected argument {names[0]!r}; to verify some projects only: --projects NAME...")
    if sites:
        wrong = {
            "--repair": repair, "--delete-unreferenced": delete_unreferenced, "--allow-removals": bool(allow_removals),
            "--sample": sample is not None, "--bytes-per-second": bytes_per_second is not None, "--idle": idle,
        }  # fmt: skip
        if any(wrong.values()):
            other = next(option for option, given in wrong.items() if given)
            raise click.UsageError(f"{other} is for a tree on this machine; leave it out with --site")
        if against and web_root is not None:
            raise click.UsageError("--against needs the mirror's configuration; leave --web-root out")
        return _verify_sites(
            options, web_root, sites, Way(state, restart, junit, workers, allow_http), quick=quick,
            projects=_names((*projects, *names)), since=since, digests=digests, against=against is not None,
        )  # fmt: skip
    if digests is not None or allow_http:
        raise click.UsageError(f"{'--digests' if digests else '--allow-http'} goes with --site")
    config = None if web_root is not None else settings(secrets=against is not None)
    if web_root is not None and (repair or delete_unreferenced or against):
        wish = "--repair" if repair else "--delete-unreferenced" if delete_unreferenced else "--against"
        raise click.UsageError(f"{wish} needs the mirror's configuration; with --web-root a tree is only looked at")
    if delete_unreferenced and (projects or since):
        raise click.UsageError("--delete-unreferenced needs a look at everything; leave --projects and --since out")
    asked = _asked(
        quick=quick, projects=_names((*projects, *names)), since=since, sample=sample, against=against is not None
    )
    work = _Work(
        options, config, web_root, asked, state=state, restart=restart, junit=junit, repair=repair,
        delete=delete_unreferenced, allow=allow_removals, bytes_per_second=bytes_per_second, idle=idle, workers=workers,
    )  # fmt: skip
    return work.run()


def _verify_sites(
    options: Options,
    web_root: str | None,
    sites: tuple[str, ...],
    way: Way,
    *,
    quick: bool,
    projects: tuple[str, ...],
    since: tuple[str, float] | None,
    digests: tuple[str, float] | None,
    against: bool,
) -> int:
    from heliostat.cli.verify_sites import Sites
    from heliostat.mirror.verify.asked import SiteAsked

    asked = SiteAsked(
        quick=quick,
        projects=projects,
        since_serial=int(since[1]) if since and since[0] == "serial" else None,
        since_time=since[1] if since and since[0] == "time" else None,
        share=digests[1] if digests and digests[0] == "share" else 0.0,
        most=int(digests[1]) if digests and digests[0] == "most" else 0,
        against_upstream=against,
    )
    return Sites(options, None if web_root is not None else settings(secrets=False), web_root, sites, asked, way).run()


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    from heliostat.names import normalise

    return tuple(sorted({normalise(name) for text in given for name in re.split(r"[,\s]+", text) if name}))


def _asked(
    *,
    quick: bool,
    projects: tuple[str, ...],
    since: tuple[str, float] | None,
    sample: tuple[str, float] | None,
    against: bool,
) -> Asked:
    from heliostat.mirror.verify.asked import Asked

    return Asked(
        quick=quick,
        projects=projects,
        since_serial=int(since[1]) if since and since[0] == "serial" else None,
        since_time=since[1] if since and since[0] == "time" else None,
        sample_share=sample[1] if sample and sample[0] == "share" else None,
        sample_most=int(sample[1]) if sample and sample[0] == "most" else None,
        against_upstream=against,
    )


class _Work:
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
        from heliostat.mirror.verify.position import desk
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
            with desk(folder, _position(self._asked, ground), restart=self._restart) as opened:
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
            if result.findings and not result.interrupted and (self._repair or self._delete):
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


def _position(asked: Asked, ground: Ground) -> Any:
    import time

    from heliostat.mirror.verify.position import Position
    from heliostat.mirror.verify.run import new_seed

    return Position(asked=asked.key(ground.web), started=time.time(), seed=new_seed())


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
    return ExitCode.INCOMPLETE if left else ExitCode.COMPLETE
