"""``heliostat mirror``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from typing import TYPE_CHECKING

import click

from heliostat.cli import format as fmt
from heliostat.cli.entry import release
from heliostat.cli.example import write_example
from heliostat.cli.exit_codes import ExitCode, plan_exit_code
from heliostat.cli.options import (
    VARIABLE,
    Options,
    common,
    current,
    find_config,
    read_config,
    require_secrets_unless_held,
    search_paths,
    user_path,
)
from heliostat.errors import ConfigError, HeliostatError, MirrorLocked

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.report import Plan, Summary
    from heliostat.mirror.run import Mirror

#: What is published about the size of the whole public index.
_PUBLIC_BYTES, _PUBLIC_PROJECTS = 100 * 10**12, 700_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wish:
    """What the command line asks of the first pass; later ones are ordinary."""

    names: tuple[str, ...] = ()
    full: bool = False
    allow_removals: int = 0
    #: Projects that wait for their next try are left alone.
    patient: bool = False


@click.command()
@click.option("--once", is_flag=True, help="One pass, then exit; otherwise follow upstream until stopped.")
@click.option("--full", is_flag=True, help="Compare everything with upstream's list; confirms a changed upstream.")
@click.option("--dry-run", is_flag=True, help="Print what a pass would do, and change nothing.")
@click.option("--textfile", metavar="PATH", help="With --once: leave the figures there for node_exporter.")
@click.option("--allow-removals", type=click.IntRange(min=0), default=0, metavar="N", help="Carry out N held removals.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common
def command(
    *, once: bool, full: bool, dry_run: bool, textfile: str | None, allow_removals: int, names: tuple[str, ...]
) -> int:
    """Bring the mirror up to date, once or for as long as it runs.

    With names, those projects are synced now, once.  What the mirror holds is said in the configuration.
    """
    from heliostat.names import normalise

    options = current()
    if once or names or dry_run:
        release()
    for name in names:
        normalise(name)
    path = find_config(options.config, os.environ)
    if path is None:
        raise ConfigError([_write_example()])
    config = read_config(path, os.environ, secrets=False)  # a daemon that holds the lock has them
    if dry_run:
        config.require_secrets()
    require_secrets_unless_held(config)
    if not names:
        _with_scope(config)
    wish = _Wish(names=names, full=full, allow_removals=allow_removals)
    if dry_run:
        return _plan(config, wish, options)
    if once or names:
        return _once(config, wish, options, textfile or (None if names else config.service.textfile))
    return _follow(config, wish, options)


def _once(config: Config, wish: _Wish, options: Options, textfile: str | None) -> int:
    from heliostat.cli.passes import report, with_mirror

    try:
        summary, stopped_by = with_mirror(
            config, options, lambda mirror, stop: _pass(config, mirror, wish, options, stop)
        )
    except MirrorLocked:
        code = _handed_over(config, wish, options)
        if code is None:
            raise
        return code
    except HeliostatError as error:
        if textfile is not None:
            _tell(textfile, config, error)
        raise
    if textfile is not None:
        _tell(textfile, config, summary)
    return report(summary, options, stopped_by=stopped_by)


def _handed_over(config: Config, wish: _Wish, options: Options) -> int | None:
    """The exit code of what the daemon that holds the lock made of it; None when it does not listen."""
    import msgspec

    from heliostat.cli.handover import handed_over
    from heliostat.cli.passes import report
    from heliostat.mirror.report import Summary

    arguments = {"names": wish.names, "full": wish.full, "allow_removals": wish.allow_removals}
    answer = handed_over(config, options, "mirror", arguments)
    return None if answer is None else report(msgspec.convert(answer, Summary), options, stopped_by=None)


def _tell(textfile: str, config: Config, outcome: Summary | HeliostatError) -> None:
    """Leaves the figures for node_exporter, also those of a pass that an error ended."""
    from heliostat.service.results import result_of, result_of_error
    from heliostat.service.textfile import write_textfile

    if isinstance(outcome, HeliostatError):
        last, result = None, result_of_error(outcome)
    else:
        last, result = outcome, result_of(outcome)
    if result is not None:
        write_textfile(textfile, config, last, result)


async def _pass(config: Config, mirror: Mirror, wish: _Wish, options: Options, stop: Stop) -> Summary:
    from heliostat.cli.passes import counted

    config.require_secrets()
    return await counted(
        options,
        lambda counters: mirror.run(
            names=wish.names,
            full=wish.full,
            allow_removals=wish.allow_removals,
            patient=wish.patient,
            counters=counters,
            stop=stop.event,
        ),
    )


def _follow(config: Config, wish: _Wish, options: Options) -> int:
    """Follow upstream until a signal comes; what a pass ends with is logged, and is no reason to exit."""
    from heliostat.cli.passes import with_mirror
    from heliostat.cli.progress import showing
    from heliostat.service.daemon import Wish
    from heliostat.service.notify import Notifier
    from heliostat.service.notifying import starting
    from heliostat.service.requests import Requests
    from heliostat.service.run import run_daemon

    async def work(mirror: Mirror, stop: Stop) -> None:
        requests = stop.requests
        assert requests is not None
        config.require_secrets()
        await run_daemon(
            config,
            mirror,
            stop.event,
            requests=requests,
            read_config=lambda: _with_scope(read_config(config.source, os.environ)),
            first=Wish(full=wish.full, allow_removals=wish.allow_removals),
            showing=lambda counters: showing(counters, options),
            notifier=notifier,
        )

    notifier = Notifier(os.environ)
    try:
        with contextlib.closing(notifier):
            try:
                _, stopped_by = with_mirror(
                    config, options, work, requests=Requests, opening=lambda counters: starting(notifier, counters)
                )
            except HeliostatError as error:
                notifier.status(f"ended: {error}")
                raise
    except MirrorLocked:
        release()
        # There is a daemon already: it can do what this one was to do first, but there is no need of a second one.
        code = _handed_over(config, wish, options) if wish.full or wish.allow_removals else None
        if code is None:
            raise
        return code
    return ExitCode.INTERRUPTED if stopped_by == signal.SIGINT else ExitCode.COMPLETE


def _plan(config: Config, wish: _Wish, options: Options) -> int:
    import msgspec

    from heliostat.cli.logging_setup import set_up_logging
    from heliostat.cli.messages import plan_lines
    from heliostat.cli.output import show
    from heliostat.cli.passes import counted
    from heliostat.cli.running import run
    from heliostat.mirror.planning import plan_pass

    set_up_logging(options, wanted=config.logging.format)

    async def work(stop: Stop) -> tuple[Plan, int | None]:
        plan = await counted(
            options,
            lambda counters: plan_pass(
                config,
                names=wish.names,
                full=wish.full,
                allow_removals=wish.allow_removals,
                counters=counters,
                stop=stop.event,
            ),
        )
        return plan, stop.number

    plan, stopped_by = run(work)
    code = plan_exit_code(plan, stopped_by=stopped_by)
    return show(options, code, plan_lines(plan), msgspec.to_builtins(plan))


def _write_example() -> str:
    """Puts the annotated example where it will be found, and says what to do with it."""
    for path in reversed(search_paths(os.environ)):
        try:
            write_example(path)
        except ConfigError:
            continue
        return f"there was no configuration; wrote an annotated example to {path}: edit it, then run this again"
    path = user_path(os.environ)
    if not os.path.lexists(path):
        write_example(path)
    return (
        f"there was no configuration; an annotated example is at {path}: edit it, then run "
        f"heliostat mirror --config {path} (or set {VARIABLE} to that path)"
    )


def _with_scope(config: Config) -> Config:
    """``config``, which must say what the mirror holds; raises ConfigError."""
    if not config.mirror.projects and not config.mirror.everything:
        raise ConfigError([_no_scope(config)])
    return config


def _no_scope(config: Config) -> str:
    """Why nothing is fetched, and what everything would mean."""
    from heliostat.config import DEFAULT_UPSTREAM

    free = _free_space(config.mirror.directory)
    room = f"; {config.mirror.directory} has {fmt.size(free)} free" if free is not None else ""
    if DEFAULT_UPSTREAM in config.upstream.url:
        terabytes = _PUBLIC_BYTES // 10**12
        days = _PUBLIC_BYTES * 8 / 10**9 / 86400
        estimate = (
            f"the whole public index is about {fmt.number(_PUBLIC_PROJECTS)} projects and {terabytes} TB, "
            f"{days:.0f} days at 1 Gbit/s{room}"
        )
    else:
        estimate = f"the size of the whole index is not known beforehand{room}"
    return (
        f"{config.source}: nothing says what to mirror ({estimate}); "
        'set [mirror] projects = ["NAME", ...], or [mirror] everything = true, or name projects on the command line'
    )


def _free_space(directory: str) -> int | None:
    """Bytes free where ``directory`` is, or will be."""
    import shutil

    place = os.path.abspath(directory)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None
