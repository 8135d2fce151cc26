"""``heliostat status``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.options import Options, common, current, settings

if TYPE_CHECKING:
    from heliostat.config import Config
    from heliostat.mirror.report import Status
    from heliostat.service.live import Live


@click.command()
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds or as often as said, until interrupted.",
)
@common
def command(*, watch: float | None) -> int:
    """Show how complete the mirror is, how far behind, and what it owes and why.

    Asks the running daemon, if there is one, and reads the ledger: neither the lock nor the network is needed.
    """
    options, config = current(), settings(secrets=False)
    if watch is None:
        return _show(config, options)
    try:
        return _watch(config, options, watch)
    except KeyboardInterrupt:
        return ExitCode.COMPLETE  # how one leaves it


def _show(config: Config, options: Options) -> int:
    from heliostat.cli.messages import status_lines
    from heliostat.cli.output import show

    result, status, live = _read(config)
    if _on_terminal(options):
        from heliostat.cli.status_page import console, page

        console().print(page(status, live, time.time()))
        return ExitCode.COMPLETE
    return show(options, ExitCode.COMPLETE, status_lines(status, live, time.time()), result)


def _watch(config: Config, options: Options, every: float) -> int:
    """Elsewhere than on a terminal, one after the other: text with an empty line between, or an object a line."""
    if not _on_terminal(options):
        while True:
            _show(config, options)
            time.sleep(every)
            if not (options.json or options.quiet):
                print(flush=True)
    from rich.live import Live as Display

    from heliostat.cli.status_page import console, page, problem
    from heliostat.errors import HeliostatError

    screen = console()
    _read(config)  # what is wrong from the beginning is said in the ordinary way
    with Display(console=screen, screen=True, auto_refresh=False) as display:
        while True:
            try:
                _, status, live = _read(config)
                picture = page(status, live, time.time(), lines=screen.height)
            except HeliostatError as error:
                picture = problem(str(error))
            display.update(picture, refresh=True)
            time.sleep(every)


def _read(config: Config) -> tuple[dict[str, Any], Status, Live | None]:
    """The result for machines, and the same as it is shown."""
    import msgspec

    from heliostat.mirror.status import read_status

    status, live = read_status(config), None
    if status.running:
        from heliostat.service.asking import ask_live

        live = ask_live(config)
    if live is None:
        return {**msgspec.to_builtins(status), "live": None}, status, None
    from heliostat.service.live import live_from

    # The ledger is told of a poll that found nothing now and then only.
    if (answered := live.get("answered")) is not None:
        status = msgspec.structs.replace(
            status,
            upstream_seen=max(status.upstream_seen or 0, answered),
            last_poll=max(status.last_poll or 0, answered),
        )
    if live.get("lag_serials") != status.lag:  # one of the two readings of the ledger is newer
        live = {**live, "lag_serials": status.lag, "lag_seconds": _seconds_behind(status)}
    return {**msgspec.to_builtins(status), "live": live}, status, live_from(live)


def _seconds_behind(status: Status) -> float | None:
    if not status.lag or status.behind_since is None:
        return 0.0 if status.lag == 0 else None
    return max(0.0, time.time() - status.behind_since)


def _on_terminal(options: Options) -> bool:
    return not (options.json or options.quiet) and sys.stdout.isatty()
