"""``heliostat changes``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from heliostat.cli.options import common, current, settings

if TYPE_CHECKING:
    from heliostat.mirror.history import History
    from heliostat.pages.changes import Change

_SINCE = re.compile(r"[0-9]{1,18}|[0-9a-f]{32}:[0-9]{1,18}", re.ASCII)
_KINDS = ("added", "updated", "quarantined", "removed", "repaired", "dropped")


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    if value is not None and not _SINCE.fullmatch(value):
        raise click.BadParameter("neither a serial nor a position (heliostat changes --position prints one)")
    return value


@click.command()
@click.option(
    "--since", metavar="WHERE", callback=_checked, help="A serial, or a position; without it: all that is kept."
)
@click.option("--position", is_flag=True, help="Print where the feed ends now, for --since the next time.")
@click.option(
    "--format", "form", type=click.Choice(["text", "rsync", "urls"]), default="text", help="How to print what changed."
)
@click.option("--removed", is_flag=True, help="With rsync: what is not there any more, instead of what is.")
@click.option("--what", multiple=True, type=click.Choice(_KINDS), help="Only rows of this kind; may be repeated.")
@click.option("--base-url", metavar="URL", default="", help="With urls: what each begins with.")
@click.option("--null", "-0", "null", is_flag=True, help="End each path or URL with NUL instead of a line break.")
@common
def command(
    since: str | None,
    position: bool,
    form: str,
    removed: bool,
    what: tuple[str, ...],
    base_url: str,
    null: bool,
) -> int:
    """Print what was published, for copies of the mirror and for caches in front of it.

    Reads web/changes/ only: neither the lock nor the network is needed.  Ends with 3 when the changes since then are
    not kept any more; then a whole copy is due.
    """
    options = current()
    if removed and form != "rsync":
        raise click.UsageError("--removed goes with --format rsync")
    directory = settings(secrets=False).mirror.directory
    from heliostat.cli.exit_codes import ExitCode
    from heliostat.cli.output import say
    from heliostat.mirror.history import History, NotKept, as_json

    history = History(directory)
    if position:
        say(history.position)
        return ExitCode.COMPLETE
    try:
        number = history.find(since) if since is not None else history.head.first - 1
        rows = (row for row in history.after(number) if not what or row.what in what)
        if options.json:
            _print((as_json(row) for row in rows), "\n")
        elif form == "text":
            _print(map(_line, rows), "\n")
        else:
            paths = history.paths(rows)
            if form == "urls":
                lines = _urls(history, paths, base_url)
            else:
                lines = _removed(history, paths, number) if removed else _present(history, paths, number)
            _print(lines, "\0" if null else "\n")
    except NotKept as error:
        click.echo(f"heliostat: {error}; make a whole copy", err=True)
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE


def _print(lines: Iterable[str], end: str) -> None:
    """Many lines, a few thousand at a time; paths are UTF-8 whatever the locale says."""
    import io
    import sys
    from itertools import islice

    from heliostat.cli.output import say

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    rest = iter(lines)
    while some := list(islice(rest, 4096)):
        say(end.join(some), end=end)


def _line(row: Change) -> str:
    import time

    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.at))
    paths = f"+{len(row.added)} *{len(row.changed)} -{len(row.removed)}"
    return f"{row.number:>9} {when} {row.serial or '-':>10} {row.what:<11} {row.project} ({paths})"


def _present(history: History, paths: list[str], number: int) -> Iterator[str]:
    """What is there, below the mirror's directory, for ``rsync --files-from``."""
    yield from (f"web/{path}" for path in history.present(paths))
    yield from (f"web/{path}" for path in (*history.about_all(), *history.segments(number)))
    yield "status"


def _removed(history: History, paths: list[str], number: int) -> Iterator[str]:
    """What is not there any more, below the mirror's directory, for ``rsync --delete-missing-args``."""
    yield from (f"web/{path}" for path in history.missing(paths))
    yield from (f"web/{path}" for path in history.old_segments(number))


def _urls(history: History, paths: list[str], base: str) -> Iterator[str]:
    """What a cache may hold of it: pages also by the address of their directory; nothing when nothing changed."""
    from urllib.parse import quote

    for path in (*paths, *history.about_all(), *history.segments(history.head.number)) if paths else ():
        if path.endswith("/index.html"):
            yield f"{base.rstrip('/')}/{quote(path.removesuffix('index.html'))}"
        yield f"{base.rstrip('/')}/{quote(path)}"
