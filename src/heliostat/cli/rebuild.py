"""``heliostat rebuild``."""

from __future__ import annotations

import click

from heliostat.cli.options import common, current, settings
from heliostat.errors import MirrorLocked


@click.command()
@common
def command() -> int:
    """Make pages, links and ledger anew from what is on disk, without the network.

    This is the way out when the ledger is damaged or lost; nothing is downloaded or deleted.
    """
    options, config = current(), settings(secrets=False)
    from heliostat.cli.passes import counted, report, with_mirror

    try:
        summary, stopped_by = with_mirror(
            config,
            options,
            lambda mirror, stop: counted(options, lambda counters: mirror.rebuild(counters=counters, stop=stop.event)),
            salvage=True,
        )
    except MirrorLocked as locked:
        raise MirrorLocked(locked.path, f"{locked.holder}; a ledger is not rebuilt under it: end it first") from None
    return report(summary, options, stopped_by=stopped_by)
