"""``heliostat serve``."""

from __future__ import annotations

import os

import click

from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.options import common, current, settings
from heliostat.cli.output import say


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free port.")
@click.option("--web-root", metavar="DIR", help="Serve DIR; without it, what the configuration's mirror has published.")
@common
def command(*, host: str, port: int, web_root: str | None) -> int:
    """Serve the mirror over HTTP, for trying things out.

    It ends at SIGINT or SIGTERM.  For production put nginx in front of the same directory.
    """
    options = current()
    root = web_root or os.path.join(settings(secrets=False).mirror.directory, "web")
    from heliostat.cli.logging_setup import set_up_logging
    from heliostat.cli.running import Stop, run
    from heliostat.service.serve import run_static_server

    set_up_logging(options, daemon=True)

    def started(url: str) -> None:
        if not options.quiet:
            say(f"serving {root} at {url}\npip install --index-url {url}simple/ NAME")

    async def work(stop: Stop) -> None:
        await run_static_server(root, host=host, port=port, stop=stop.event, started=started)

    run(work)
    return ExitCode.COMPLETE
