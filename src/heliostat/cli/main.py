"""The command line: finds the command, and turns whatever comes out of it into a message and an exit code.

Every command's module is imported when it is asked for, and imports what is heavy when it runs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence

import click

from heliostat import __version__
from heliostat.cli.entry import release
from heliostat.cli.exit_codes import ExitCode, Stopped, error_code, signal_code
from heliostat.cli.format import plain
from heliostat.cli.log_format import in_journal, resolve, without_secrets
from heliostat.cli.options import Options, common
from heliostat.cli.output import NotWritten, Nowhere, say
from heliostat.errors import ConfigError, DaemonAnswer, HeliostatError, MirrorLocked

#: Command to module, in the order in which help shows them.
_COMMANDS = {
    "mirror": "heliostat.cli.mirror",
    "status": "heliostat.cli.status",
    "reload": "heliostat.cli.reload",
    "changes": "heliostat.cli.changes",
    "config": "heliostat.cli.config_cmd",
    "rebuild": "heliostat.cli.rebuild",
    "verify": "heliostat.cli.verify",
    "delete": "heliostat.cli.delete",
    "restore": "heliostat.cli.restore",
    "removals": "heliostat.cli.removals",
    "stats": "heliostat.cli.stats",
    "lag": "heliostat.cli.lag",
    "adopt": "heliostat.cli.adopt",
    "serve": "heliostat.cli.serve",
    "demo": "heliostat.cli.demo",
}


#: syslog's numbers, for the journal.
_ERROR, _NOTICE = 3, 5
#: So many new objects in containers before garbage is looked for.
_GARBAGE = 20_000


class _Commands(click.Group):
    """A group whose commands are imported one at a time; each module calls its command ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name != "mirror":
            release()
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="heliostat", message="%(prog)s %(version)s")
@common
def cli() -> None:
    """Keep a complete, verified, static mirror of a Python package index.

    heliostat demo shows all of it in a minute, without a network.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.  Never raises."""
    # Importing makes very many objects that stay: to look for garbage among them is a tenth of a short command's time.
    gc.set_threshold(_GARBAGE)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = Options()
    try:
        try:
            code = int(_run(arguments, options) or 0)
            print(end="", flush=True)
        except (click.ClickException, HeliostatError) as error:
            code = _fail(error, options)
        except Stopped as error:
            code = signal_code(error.number)
            _say(str(error), options, _NOTICE)
        except click.Abort:
            code = ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        code = options.code
    except Exception as error:
        refused = _not_written(error)
        if refused is None:
            code = _unexpected(error, options)
        else:
            code = ExitCode.STORE
            _say(plain(str(refused)), options)
    return _close(code)


def _open_closed_streams() -> None:
    """Standard streams that the caller closed lead nowhere from now on.

    Otherwise the next file or socket takes their number, which some libraries do not survive.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(opened, True)  # noqa: FBT003
    if sys.stdout is None:
        sys.stdout = Nowhere()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process


def _not_written(error: Exception) -> NotWritten | None:
    """That standard output refuses, if it is what ``error`` is about: help, for one, is not printed by us."""
    if isinstance(error, NotWritten):
        return error
    try:
        print(end="", flush=True)
    except (OSError, ValueError) as still:
        return NotWritten(still) if isinstance(still, OSError) else None
    return None


def _run(arguments: Sequence[str] | None, options: Options) -> int | None:
    """Runs the command; click's own ``main`` would turn interrupts and closed pipes into exit codes of its own."""
    try:
        with cli.make_context(
            "heliostat", list(sys.argv[1:] if arguments is None else arguments), obj=options
        ) as context:
            result: int | None = cli.invoke(context)
            return result
    except click.exceptions.Exit as done:
        return done.exit_code


def _fail(error: click.ClickException | HeliostatError, options: Options) -> int:
    """One clear message; the exit code."""
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError, ValueError):
            error.show()
        return ExitCode.USAGE
    code = options.code = error_code(error)
    lines = error.problems if isinstance(error, ConfigError) else (str(error),)
    if options.json:
        kind = error.kinds[0] if isinstance(error, DaemonAnswer) else type(error).__name__
        result = {"error": kind, "message": str(error), "problems": list(lines), "exit_code": int(code)}
        say(json.dumps(result))
    if not (options.quiet and isinstance(error, MirrorLocked)):
        _say("\n".join(plain(line) for line in lines), options)
    return code


def _unexpected(error: Exception, options: Options) -> int:
    if options.verbose:
        import traceback

        _say(traceback.format_exc().rstrip(), options)
    first = next(iter(str(error).splitlines()), "")
    _say(
        f"unexpected {type(error).__name__}: {plain(first)}\n"
        "heliostat: this is a defect, please report it with the command's output under --verbose "
        "(CONTRIBUTING.md says where)",
        options,
    )
    return ExitCode.UNEXPECTED


def _say(text: str, options: Options, priority: int = _ERROR) -> None:
    """A message on standard error, in the form that log lines have; nothing at all when nobody listens there."""
    text = without_secrets(f"heliostat: {text}")
    form = resolve(options.log_format, os.environ)
    if form == "journal":
        text = in_journal(priority, text)
    elif form == "json":
        moment = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        level = "error" if priority == _ERROR else "info"
        text = json.dumps({"time": moment, "level": level, "logger": "heliostat", "message": text})
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def _close(code: int) -> int:
    """Leaves nothing for the interpreter to flush into a pipe that is closed, which would change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(end="", file=stream, flush=True)
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return int(code)
