"""``heliostat status``."""

from __future__ import annotations

import click

from heliostat.cli.options import common, current, settings


@click.command()
@common
def command() -> int:
    """Show how complete the mirror is, how far behind, and what it owes and why.

    Reads the ledger only: neither the lock nor the network is needed.
    """
    config = settings()
    import msgspec

    from heliostat.cli.exit_codes import ExitCode
    from heliostat.cli.messages import status_lines
    from heliostat.cli.output import show
    from heliostat.mirror.status import read_status

    status = read_status(config)
    return show(current(), ExitCode.COMPLETE, status_lines(status), msgspec.to_builtins(status))
