"""``heliostat restore``."""

from __future__ import annotations

import click

from heliostat.cli.options import common, current, require_secrets_unless_held, settings
from heliostat.errors import MirrorLocked


@click.command()
@click.argument("entries", nargs=-1, required=True, metavar="NAME[==VERSION]...")
@common
def command(*, entries: tuple[str, ...]) -> int:
    """Bring back what was deleted, or what upstream removed and withheld/ still has.

    What is kept is shown again as it was, without a download.  Where it was deleted here, upstream is asked then; what
    upstream removed stays from now on, until it is deleted.
    """
    options, config = current(), settings(secrets=False)
    require_secrets_unless_held(config)
    from heliostat.cli.delete import handed_over, report
    from heliostat.cli.passes import counted, with_mirror
    from heliostat.policy.denials import parse_entry

    names = [str(parse_entry(text)) for text in entries]
    try:
        result, stopped_by = with_mirror(
            config,
            options,
            lambda mirror, stop: counted(
                options, lambda counters: mirror.restore(names, counters=counters, stop=stop.event)
            ),
        )
    except MirrorLocked:
        handed = handed_over(config, options, "restore", {"entries": names})
        if handed is None:
            raise
        result, stopped_by = handed, None
    return report(result, options, stopped_by=stopped_by)
