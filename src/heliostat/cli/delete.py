"""``heliostat delete``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.options import Options, common, current, settings
from heliostat.errors import MirrorLocked, StateError

if TYPE_CHECKING:
    from heliostat.config import Config
    from heliostat.mirror.report import Deletion

_NO_REASON = "no reason given"


@click.command()
@click.option("--reason", metavar="TEXT", default=_NO_REASON, help="Why; it is kept with the entry.")
@click.option("--purge", is_flag=True, help="Keep nothing of it in withheld/, whatever [removal] says.")
@click.option("--yes", is_flag=True, help="Do not ask, however much of the mirror it is.")
@click.option("--list", "listed", is_flag=True, help="Show what is denied, and why; heliostat restore takes it off.")
@click.argument("entries", nargs=-1, metavar="[NAME[==VERSION]]...")
@common
def command(*, reason: str, purge: bool, yes: bool, listed: bool, entries: tuple[str, ...]) -> int:
    """Remove projects or releases now, whatever upstream offers, and keep them out.

    Pages go first, bytes last.  Neither the guard nor the network is asked.  A running daemon does it, between two
    passes.
    """
    options, config = current(), settings(secrets=False)
    if listed:
        if entries:
            raise click.UsageError("--list goes without names")
        return _list(config, options)
    if not entries:
        raise click.UsageError("name what is to be deleted: NAME or NAME==VERSION")
    from heliostat.policy.denials import parse_entry

    found = [parse_entry(text) for text in entries]
    reason = " ".join(reason.split())[:1000] or _NO_REASON
    if not yes and not _confirmed(config, [entry.project for entry in found if not entry.version]):
        click.echo("heliostat: nothing was done; --yes deletes without asking", err=True)
        return ExitCode.APPROVAL
    from heliostat.cli.passes import counted, with_mirror

    names = [str(entry) for entry in found]
    try:
        result, stopped_by = with_mirror(
            config,
            options,
            lambda mirror, stop: counted(
                options,
                lambda counters: mirror.delete(names, reason=reason, purge=purge, counters=counters, stop=stop.event),
            ),
        )
    except MirrorLocked:
        handed = handed_over(config, options, "delete", {"entries": names, "reason": reason, "purge": purge})
        if handed is None:
            raise
        result, stopped_by = handed, None
    return report(result, options, stopped_by=stopped_by)


def handed_over(config: Config, options: Options, command: str, arguments: dict[str, Any]) -> Deletion | None:
    """What the daemon that holds the lock made of it; None when none listens."""
    import msgspec

    from heliostat.cli.handover import handed_over as ask
    from heliostat.mirror.report import Deletion

    answer = ask(config, options, command, arguments)
    return None if answer is None else msgspec.convert(answer, Deletion)


def report(result: Deletion, options: Options, *, stopped_by: int | None) -> int:
    """Prints what became of each; returns the exit code."""
    import msgspec

    from heliostat.cli.exit_codes import deletion_exit_code
    from heliostat.cli.messages import deletion_lines
    from heliostat.cli.output import show

    code = deletion_exit_code(result, stopped_by=stopped_by)
    return show(options, code, deletion_lines(result), {**msgspec.to_builtins(result), "complete": result.complete})


def _confirmed(config: Config, projects: list[str]) -> bool:
    """An operator is asked when it is more than what upstream could remove without anybody's approval."""
    import contextlib

    from heliostat.cli import format as fmt
    from heliostat.mirror.places import DATABASE, state_directory
    from heliostat.mirror.removals import plausible
    from heliostat.state.database import open_readonly
    from heliostat.state.queries import Queries

    try:
        with contextlib.closing(open_readonly(f"{state_directory(config)}/{DATABASE}")) as connection:
            queries = Queries(connection)
            count = sum(1 for name in set(projects) if (row := queries.row(name)) is not None and row.published)
            total = queries.published_count()
    except StateError:  # nothing has been mirrored yet; what is wrong with it is said when it is opened
        return True
    if plausible(count, 0, total):
        return True
    question = f"delete {fmt.counted(count, 'project')} of {fmt.number(total)}?"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        click.echo(f"heliostat: {question} that is an implausible share, and nobody can be asked here", err=True)
        return False
    return click.confirm(f"heliostat: {question}", err=True)


def _list(config: Config, options: Options) -> int:
    from heliostat.cli import format as fmt
    from heliostat.cli.output import show
    from heliostat.mirror.denials import read_denied

    rows = read_denied(config)
    lines = [
        f"{fmt.plain(row.entry)}  {'by the configuration' if row.origin != 'operator' else fmt.moment(row.at)}"
        + (f": {fmt.plain(row.reason)}" if row.origin == "operator" else "")
        for row in rows
    ]
    found = [
        {"entry": row.entry, "origin": row.origin, "at": row.at, "reason": row.reason, "purge": row.purge}
        for row in rows
    ]
    return show(options, ExitCode.COMPLETE, lines or ["nothing is denied"], {"denied": found})
