"""``heliostat adopt``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.exit_codes import ExitCode, signal_code
from heliostat.cli.options import Options, common, current, settings

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.adopt.files import Check
    from heliostat.mirror.adopt.report import Record, Result
    from heliostat.mirror.report import Counters
    from heliostat.mirror.run import Mirror

WHEELS = "wheels"
#: Findings that are listed in words; --json has all.
_LISTED = 1000


@click.command()
@click.option(
    "--from", "tool", type=click.Choice(["auto", "bandersnatch", "shadowmire", "pep381client", "wheels"]),
    default="auto", show_default=True, help="What made the tree; wheels: nothing did.",
)  # fmt: skip
@click.option(
    "--check", type=click.Choice(["size", "digest", "none"]), default="size", show_default=True,
    help="How thoroughly files are looked at: digest reads all of them.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done and what differs; change nothing.")
@common
def command(*, tool: str, check: Check, dry_run: bool) -> int:
    """Take over the tree of another mirror, in place, without the network.

    [mirror] directory is the other tool's; with --from wheels it holds plain wheels and sdists.  Interrupted, it goes
    on where it was the next time.  One 'heliostat mirror --once' then completes the mirror; what is there and right is
    not downloaded again.
    """
    options, config = current(), settings(secrets=False)
    asked: Any = None if tool == "auto" else tool
    return _dry(config, options, asked, check) if dry_run else _adopt(config, options, asked, check)


def _adopt(config: Config, options: Options, tool: Any, check: Check) -> int:
    from heliostat.cli.passes import counted, with_mirror
    from heliostat.mirror.adopt.layouts import recognise

    if tool == WHEELS:

        async def take_in(mirror: Mirror, stop: Stop) -> tuple[Result, Record]:
            return await counted(options, lambda counters: mirror.take_in(counters=counters, stop=stop.event))

        (result, record), stopped_by = with_mirror(config, options, take_in)
        return _report(options, result, record, stopped_by)
    if not os.path.lexists(_ledger(config)):
        recognise(config.mirror.directory, tool)  # before a ledger is made where none belongs

    async def work(mirror: Mirror, stop: Stop) -> tuple[Result, Record]:
        return await counted(options, lambda counters: mirror.adopt(tool, check, counters=counters, stop=stop.event))

    (result, record), stopped_by = with_mirror(config, options, work, adopting=True)
    return _report(options, result, record, stopped_by)


def _dry(config: Config, options: Options, tool: Any, check: Check) -> int:
    from heliostat.cli.logging_setup import set_up_logging
    from heliostat.cli.passes import counted
    from heliostat.cli.running import run
    from heliostat.errors import ConfigError
    from heliostat.mirror.adopt.layouts import recognise
    from heliostat.mirror.adopt.loose import LooseFiles
    from heliostat.mirror.adopt.survey import look_over
    from heliostat.mirror.places import scope_of
    from heliostat.store.threads import Keeper

    set_up_logging(options, wanted=config.logging.format)
    directory, in_scope = config.mirror.directory, scope_of(config).__contains__
    if tool != WHEELS and os.path.lexists(_ledger(config)):
        raise ConfigError([f"{_ledger(config)}: there is a ledger already; --dry-run looks at trees without one"])
    layout = recognise(directory, tool) if tool != WHEELS else None

    def look(counters: Counters, stopped: Callable[[], bool]) -> tuple[Result, Record]:
        if layout is None:
            return LooseFiles(directory, None, in_scope=in_scope, counters=counters, stopped=stopped).run()
        return look_over(
            directory, layout, check, elsewhere=not config.mirror.files, in_scope=in_scope, counters=counters,
            stopped=stopped,
        )  # fmt: skip

    async def work(stop: Stop) -> tuple[Result, Record, int | None]:
        started = time.time()
        keeper = Keeper("heliostat-keeper")
        try:
            result, record = await counted(options, lambda counters: keeper(look, counters, stop.event.is_set))
        finally:
            keeper.close()
        result.seconds = time.time() - started
        return result, record, stop.number

    return _report(options, *run(work))


def _ledger(config: Config) -> str:
    from heliostat.mirror.places import DATABASE, state_directory

    return f"{state_directory(config)}/{DATABASE}"


def _report(options: Options, result: Result, record: Record, stopped_by: int | None) -> int:
    """Print what was found; under --quiet nothing, unless something differs."""
    from heliostat.cli.output import say

    code = ExitCode.INCOMPLETE if result.differences and not result.already else ExitCode.COMPLETE
    if result.interrupted:
        code = signal_code(stopped_by)
    options.code = code
    if options.json:
        import msgspec

        head: dict[str, Any] = msgspec.to_builtins(result)
        head["differences"] = result.differences
        say(json.dumps(head)[:-1] + ', "findings": [', end="")
        for number, one in enumerate(record):
            say(("," if number else "") + "\n" + json.dumps(msgspec.to_builtins(one)), end="")
        say(f'], "exit_code": {int(code)}}}')
    elif code or not options.quiet:
        for line in _words(result, record):
            say(line)
    return code


def _words(result: Result, record: Record) -> list[str]:
    from heliostat.cli import format as fmt
    from heliostat.mirror.adopt.report import KINDS

    lines = []
    for number, one in enumerate(record if not result.already else ()):
        if number == _LISTED:
            lines.append(f"... and {fmt.number(sum(result.kinds.values()) - number)} more; --json lists all")
            break
        whose = f" ({fmt.plain(one.project)})" if one.project else ""
        lines.append(f"{one.kind}: {fmt.plain(one.path)}{whose}: {fmt.plain(one.problem)}")
    there = f"{fmt.counted(result.files, 'file')}, {fmt.size(result.bytes)}"
    if result.tool != WHEELS:
        there = f"{fmt.counted(result.projects, 'project')}, {there} of {result.tool}'s tree"
    verb = "would be adopted" if result.dry_run else "were adopted before" if result.already else "adopted"
    if result.interrupted:
        verb = (
            "looked at, then interrupted" if result.dry_run else "adopted so far; run it again, it goes on from there"
        )
    checked = {"size": "sizes compared", "digest": "digests compared", "none": "only their presence looked at"}
    lines.append(
        f"{there} {verb} in {fmt.duration(result.seconds)}; {checked[result.check]}, "
        f"{fmt.counted(result.hashed, 'file')} read"
    )
    if result.already and record.path is not None:
        lines.append(f"what was found then: {record.path}")
    lines += [f"  {fmt.number(result.kinds[kind])} {kind}: {KINDS[kind]}" for kind in KINDS if kind in result.kinds]
    if result.outside:
        lines.append(
            f"{fmt.counted(result.outside, 'project')} outside the configured scope kept as if asked for by name"
        )
    if not result.interrupted and not result.dry_run:
        lines.append(
            "next: heliostat mirror --once, which fetches what differs and what is new, and completes the mirror"
        )
    return lines
