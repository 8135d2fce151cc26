"""``heliostat config``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from heliostat.cli.example import example_text, write_example
from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.format import counted
from heliostat.cli.options import FILE, common, current, settings
from heliostat.cli.output import say, show

if TYPE_CHECKING:
    from heliostat.config import Config


_HINT = (
    "only what talks to upstream or to other mirrors needs them: the daemon has those of its unit's EnvironmentFile; "
    "docs/operations.md says how to run other commands with them"
)


@click.group()
@common
def command() -> None:
    """Write or check the configuration."""


@command.command()
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.argument("path", required=False)
@common
def init(*, path: str | None, force: bool) -> int:
    """Write the annotated example to PATH (heliostat.toml here without it; - is standard output)."""
    options = current()
    if path == "-":
        say(example_text(), end="")
        return ExitCode.COMPLETE
    target = os.path.abspath(path or options.config or FILE)
    write_example(target, replace=force)
    line = f"wrote {target}: say in it where the mirror goes and what it holds, then run heliostat config check"
    return show(options, ExitCode.COMPLETE, [line], {"path": target})


@command.command()
@common
def check() -> int:
    """Validate the configuration and say what it means; every problem is named with its line."""
    options, config = current(), settings(secrets=False)
    lines = [f"{config.source}: valid", *(f"  {title}: {text}" for title, text in _meaning(config).items())]
    if config.unset:
        lines += [f"warning: {problem}" for problem in config.unset]
        lines.append(f"  {_HINT}")
    result = {"source": config.source, "problems": [], "warnings": list(config.unset), **_meaning(config)}
    return show(options, ExitCode.COMPLETE, lines, result)


def _meaning(config: Config) -> dict[str, str]:
    from heliostat.config import without_credentials

    holds = "nothing until projects are named"
    if config.mirror.everything:
        holds = "everything"
    elif config.mirror.projects:
        holds = counted(len(config.mirror.projects), "project")
    return {
        "upstream": ", ".join(without_credentials(url) for url in config.upstream.url),
        "directory": config.mirror.directory,
        "holds": holds,
    }
