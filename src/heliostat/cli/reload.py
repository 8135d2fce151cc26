"""``heliostat reload``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.options import Options, common, current, find_config, settings

if TYPE_CHECKING:
    from heliostat.config import Config


@click.command()
@common
def command() -> int:
    """Have the running daemon read its configuration anew, as SIGHUP does, and say what came of it.

    A configuration with problems is refused as a whole (2); keys that need a restart are named (3), as are addresses
    that cannot be opened (3).
    """
    options = current()
    from heliostat.cli.exit_codes import ExitCode
    from heliostat.cli.output import show

    result = _reloaded(options)
    code = ExitCode.COMPLETE
    if result["problems"]:
        code = ExitCode.USAGE
    elif result["restart"] or result.get("failed"):
        code = ExitCode.INCOMPLETE
    return show(options, code, _lines(result), result)


def _reloaded(options: Options) -> dict[str, Any]:
    """What the daemon says, which may be in the place where the file said that it is when it was started.

    It is the daemon that refuses a bad configuration: only without one the problems are told here.
    Raises ConfigError, MirrorLocked, NoDaemon.
    """
    from heliostat.cli.handover import handed_over
    from heliostat.errors import ConfigError, MirrorLocked, NoDaemon
    from heliostat.mirror.lock import holder_of
    from heliostat.mirror.places import LOCK, state_directory

    problems, result, config = None, None, None
    try:
        config = settings(secrets=False)
    except ConfigError as error:
        problems = error
    if config is not None:
        result = handed_over(config, options, "reload", {})
    if result is None and (elsewhere := _elsewhere(options)) is not None:
        result = handed_over(elsewhere, options, "reload", {})
    if result is not None:
        told: dict[str, Any] = result
        return told
    if problems is not None:
        raise problems
    assert config is not None
    lock = f"{state_directory(config)}/{LOCK}"
    if (holder := holder_of(lock)) is not None:
        raise MirrorLocked(
            lock, f"{holder}, which does not answer: it is no daemon, it has too much to do, or it hangs"
        )
    raise NoDaemon(
        f"no daemon listens in {state_directory(config)}; heliostat mirror starts one, which reads its configuration "
        "then. If one runs, [mirror] directory or state was probably changed since it was started: restart it for that"
    )


def _elsewhere(options: Options) -> Config | None:
    """As much of a configuration as leads to the daemon that was started with this one's file."""
    from heliostat.config import DEFAULT_UPSTREAM, Config, MirrorConfig, UpstreamConfig
    from heliostat.service.finding import daemon_of

    path = find_config(options.config, os.environ)
    folder = None if path is None else daemon_of(path)
    if path is None or folder is None:
        return None
    return Config(mirror=MirrorConfig(directory=folder), upstream=UpstreamConfig(url=(DEFAULT_UPSTREAM,)), source=path)


def _lines(result: dict[str, Any]) -> list[str]:
    from heliostat.cli.format import plain

    if result["problems"]:
        return ["refused, the old configuration stays:", *(f"  {plain(problem)}" for problem in result["problems"])]
    lines = [f"taken over: {', '.join(result['changed'])}"] if result["changed"] else []
    if result["restart"]:
        lines.append(f"needs a restart: {', '.join(result['restart'])}")
    lines += [f"did not work: {plain(problem)}" for problem in result.get("failed", ())]
    return lines or ["nothing changed"]
