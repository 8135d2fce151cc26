"""``heliostat reload``."""

from __future__ import annotations

from typing import Any

import click

from heliostat.cli.options import common, current, settings


@click.command()
@common
def command() -> int:
    """Have the running daemon read its configuration anew, as SIGHUP does, and say what came of it.

    A configuration with problems is refused as a whole (2); keys that need a restart are named (3).
    """
    options, config = current(), settings(secrets=False)
    from heliostat.cli.exit_codes import ExitCode
    from heliostat.cli.handover import handed_over
    from heliostat.cli.output import show
    from heliostat.errors import NoDaemon
    from heliostat.mirror.places import state_directory

    result = handed_over(config, options, "reload", {})
    if result is None:
        place = state_directory(config)
        raise NoDaemon(f"no daemon listens in {place}; heliostat mirror starts one, which reads its configuration then")
    code = ExitCode.COMPLETE
    if result["problems"]:
        code = ExitCode.USAGE
    elif result["restart"]:
        code = ExitCode.INCOMPLETE
    return show(options, code, _lines(result), result)


def _lines(result: dict[str, Any]) -> list[str]:
    from heliostat.cli.format import plain

    if result["problems"]:
        return ["refused, the old configuration stays:", *(f"  {plain(problem)}" for problem in result["problems"])]
    lines = [f"taken over: {', '.join(result['changed'])}"] if result["changed"] else []
    if result["restart"]:
        lines.append(f"needs a restart: {', '.join(result['restart'])}")
    return lines or ["nothing changed"]
