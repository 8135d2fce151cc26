"""``heliostat stats``."""

from __future__ import annotations

import datetime as dt
import os
import signal
from fractions import Fraction
from typing import TYPE_CHECKING

import click

from heliostat.cli.exit_codes import ExitCode, Stopped
from heliostat.cli.options import Options, common, current, find_config, settings
from heliostat.cli.param_types import Date, Share

if TYPE_CHECKING:
    import sqlite3

    from heliostat.config import Config
    from heliostat.stats.reading import Reading
    from heliostat.stats.summary import Period


@click.command()
@click.argument("logs", nargs=-1, metavar="[LOG]...")
@click.option("--since", type=Date(), help="Print what is of this day (UTC) and later ones.")
@click.option("--until", type=Date(), help="Print what is of this day and earlier ones.")
@click.option(
    "--top", type=click.IntRange(0, 10**9), default=10, metavar="N", show_default=True, help="Rows of each list."
)
@click.option("--share", type=Share(), default="99%", show_default=True, help="Share of all requests, for the list.")
@click.option(
    "--list", "list_file", metavar="FILE",
    help="Write the projects that make up --share of the requests there, a name a line; - prints them alone.",
)  # fmt: skip
@click.option("--no-write", is_flag=True, help="Count these logs by themselves, print it, keep and write nothing.")
@common
def command(
    *,
    logs: tuple[str, ...],
    since: dt.date | None,
    until: dt.date | None,
    top: int,
    share: Fraction,
    list_file: str | None,
    no_write: bool,
) -> int:
    """Count downloads from the web server's access logs.

    LOG is a file or a pattern ("/var/log/nginx/pypi.log*"), also compressed; without any, [stats] logs says which.  A
    line counts once, however often and under whatever name its log is read.  Writes web/local-stats/days/, and prints
    a summary of all that is kept.
    """
    options = current()
    if no_write and list_file not in (None, "-"):
        raise click.UsageError("--no-write writes no list; --list - prints it")
    if options.json and list_file == "-":
        raise click.UsageError("--json has the list in it; leave --list - out")
    if since and until and since > until:
        raise click.UsageError("--since is after --until")
    # Logs that are counted by themselves need no mirror.
    config = None if no_write and logs and find_config(options.config, os.environ) is None else settings(secrets=False)
    return _Work(options, config, logs, no_write, _period(since, until), top, share, list_file).run()


def _period(since: dt.date | None, until: dt.date | None) -> Period:
    from heliostat.stats.lines import day_of
    from heliostat.stats.summary import Period

    every = Period()
    return Period(day_of(since) if since else every.first, day_of(until) if until else every.last)


class _Work:
    """One run of the command."""

    def __init__(
        self,
        options: Options,
        config: Config | None,
        logs: tuple[str, ...],
        no_write: bool,
        period: Period,
        top: int,
        share: Fraction,
        list_file: str | None,
    ) -> None:
        self._options, self._config, self._logs, self._no_write = options, config, logs, no_write
        self._period, self._top, self._share, self._list = period, top, share, list_file

    def run(self) -> int:
        from heliostat.errors import ConfigError
        from heliostat.stats.database import explained, opened

        logs = self._logs or (self._config.stats.logs if self._config else ())
        if not logs:
            source = self._config.source if self._config else "heliostat stats"
            raise ConfigError([f"{source}: [stats] logs: names no logs; name them there, or as arguments"])
        signal.signal(signal.SIGTERM, _stop)
        path = self._database()
        with opened(path) as connection, explained(path or "temporary database"):
            return self._count(connection, logs)

    def _database(self) -> str | None:
        if self._no_write:
            return None
        from heliostat.mirror.places import state_directory
        from heliostat.stats.database import FILE

        assert self._config is not None
        folder = state_directory(self._config)
        if not os.path.isdir(folder):
            from heliostat.errors import StateError

            raise StateError(f"{folder}: no mirror there; has it been run yet? Or count without one: --no-write")
        return os.path.join(folder, FILE)

    def _count(self, connection: sqlite3.Connection, logs: tuple[str, ...]) -> int:
        import time

        from heliostat.cli.stats_report import report
        from heliostat.stats.database import transaction
        from heliostat.stats.days import publish_days
        from heliostat.stats.reading import read_logs
        from heliostat.stats.tally import forget_days
        from heliostat.store.disk import Disk

        directory = self._config.mirror.directory if self._config else None
        reading = read_logs(connection, logs, today=int(time.time() // 86400), directory=directory)
        written: list[str] = []
        if not self._no_write:
            assert self._config is not None
            written = publish_days(connection, Disk(self._config.mirror.directory))
            with transaction(connection):
                forget_days(connection, self._config.stats.keep_days)
        notes = list(reading.unreadable)
        if self._list not in (None, "-"):
            notes += self._write_list(connection)
        code = ExitCode.INCOMPLETE if notes else ExitCode.COMPLETE
        if self._list == "-":
            self._print_list(connection, code, reading)
        else:
            report(
                self._options, code, connection, reading, written, notes,
                period=self._period, top=self._top, share=self._share,
            )  # fmt: skip
        return code

    def _write_list(self, connection: sqlite3.Connection) -> list[str]:
        """Messages about why the list stays as it was."""
        from heliostat.stats.listing import write_list

        assert self._list is not None
        if write_list(connection, self._list, self._period, self._share):
            return []
        return [f"{self._list}: left as it is, since no project was asked for in this period"]

    def _print_list(self, connection: sqlite3.Connection, code: int, reading: Reading) -> None:
        from heliostat.cli.output import say
        from heliostat.stats.summary import traffic

        self._options.code = code
        for note in reading.unreadable:
            click.echo(f"heliostat: {note}", err=True)
        names = [one.project for one in traffic(connection, self._period, self._share)]
        if names:
            say("\n".join(names))


def _stop(number: int, _frame: object) -> None:
    raise Stopped(number)
