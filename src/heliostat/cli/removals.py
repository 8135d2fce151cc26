"""``heliostat removals``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from heliostat.cli.options import common, current, settings
from heliostat.cli.param_types import Since

if TYPE_CHECKING:
    from heliostat.config import Config
    from heliostat.state.rows import Tombstone

_KINDS = ("removed", "withheld", "retained", "restored", "expired")


@click.command()
@click.option("--since", type=Since(), help="Only what happened after this serial, or since this date (UTC).")
@click.option("--what", multiple=True, type=click.Choice(_KINDS), help="Only of this kind; may be repeated.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common
def command(*, since: tuple[str, float] | None, what: tuple[str, ...], names: tuple[str, ...]) -> int:
    """Print what was removed from the mirror, when and why; one line each, oldest first.

    Reads the ledger: neither the lock nor the network is needed.
    """
    options, config = current(), settings(secrets=False)
    from itertools import islice

    from heliostat.cli.exit_codes import ExitCode
    from heliostat.cli.output import say
    from heliostat.names import normalise

    only = {normalise(name) for name in names}
    rows = (
        stone
        for stone in _stones(config, since)
        if (not what or stone.what in what) and (not only or stone.project in only)
    )
    lines = (_as_json(stone) if options.json else _line(stone) for stone in rows)
    while some := list(islice(lines, 4096)):
        say("\n".join(some))
    return ExitCode.COMPLETE


def _stones(config: Config, since: tuple[str, float] | None) -> Iterator[Tombstone]:
    import contextlib

    from heliostat.mirror.places import DATABASE, state_directory
    from heliostat.state.database import explained, open_readonly
    from heliostat.state.queries import Queries

    path = f"{state_directory(config)}/{DATABASE}"
    kind, value = since or ("time", 0.0)
    with explained(path), contextlib.closing(open_readonly(path)) as connection:
        if kind == "serial":
            yield from Queries(connection).buried(after_serial=int(value))
        else:
            yield from Queries(connection).buried(since=value)


def _as_json(stone: Tombstone) -> str:
    import msgspec

    return msgspec.json.encode(stone).decode()


def _line(stone: Tombstone) -> str:
    import time

    from heliostat.cli.format import plain

    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stone.at))
    name = f"{stone.project}=={stone.version}" if stone.version and stone.path is None else stone.project
    of = f" {stone.path.removeprefix('web/')}" if stone.path is not None else ""
    return plain(f"{when} {stone.serial or '-':>10} {stone.what:<9} {name}{of}: {stone.reason}")
