"""The options that every command takes, before or after its name, and the configuration they lead to."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from heliostat.cli.log_format import FORMATS
from heliostat.errors import ConfigError

if TYPE_CHECKING:
    from heliostat.config import Config

VARIABLE = "HELIOSTAT_CONFIG"
FILE = "heliostat.toml"

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclasses.dataclass
class Options:
    """What the common options said; one object for the whole command line."""

    config: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    #: As asked for; what it came to, once logging is set up.
    log_format: str | None = None
    #: What the command will end with; known before its result is printed, in case that fails.
    code: int = 0


def common(command: _Command) -> _Command:
    """Adds the common options to a command; their values are in :func:`current`."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if context.get_parameter_source(str(parameter.name)) is not click.core.ParameterSource.DEFAULT:
            setattr(context.ensure_object(Options), str(parameter.name), value)

    def option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
        return click.option(*names, expose_value=False, callback=keep, **settings)

    for add in (
        option(
            "--no-progress", "progress", flag_value=False, default=True, help="No progress display, no such log lines."
        ),
        option("--log-format", type=click.Choice(FORMATS), help="Form of log lines, before [logging] format."),
        option("--verbose", "-v", is_flag=True, help="Say more; show where an unexpected error came from."),
        option("--quiet", "-q", is_flag=True, help="Say nothing unless something is wrong."),
        option("--json", is_flag=True, help="Print the result as JSON."),
        option("--config", metavar="PATH", help="The configuration file."),
    ):
        command = add(command)
    return command


def current() -> Options:
    """The common options of the command that is running."""
    return click.get_current_context().ensure_object(Options)


def user_path(environ: Mapping[str, str]) -> str:
    """The configuration file in the user's own directory."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return os.path.join(home, "heliostat", FILE)


def search_paths(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where a configuration is looked for, in this order, when the command line names none."""
    if named := environ.get(VARIABLE):
        return (os.path.abspath(named),)
    return (os.path.abspath(FILE), os.path.join("/etc/heliostat", FILE))


def find_config(explicit: str | None, environ: Mapping[str, str]) -> str | None:
    """The configuration file that counts, as an absolute path, or None when there is none.

    One that is named, by ``explicit`` or by the environment, is the only one considered; it need not exist.
    """
    if explicit:
        return os.path.abspath(explicit)
    paths = search_paths(environ)
    return paths[0] if len(paths) == 1 else next((path for path in paths if os.path.lexists(path)), None)


def read_config(path: str, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """The configuration in the file ``path``; raises ConfigError.

    Without ``secrets`` it may refer to variables for them that are not set, see
    :func:`heliostat.config.load.load_config`.
    """
    from heliostat.config.load import load_config

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; heliostat config init {path} writes an annotated example"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise ConfigError([f"{path}: cannot be read: {reason}; check its path and permissions"]) from None
    return load_config(text, source=path, environ=environ, secrets=secrets)


def settings_if_any() -> Config | None:
    """The same for commands that can do without one; raises ConfigError for one that cannot be used."""
    path = find_config(current().config, os.environ)
    return None if path is None else read_config(path, os.environ)


def settings(*, secrets: bool = True) -> Config:
    """The configuration of the command that is running; raises ConfigError when there is none.

    ``secrets`` says whether the command needs those that it refers to.
    """
    path = find_config(current().config, os.environ)
    if path is None:
        looked = ", ".join(("--config", f"${VARIABLE}", *search_paths(os.environ)))
        raise ConfigError([f"no configuration (looked at {looked}); heliostat config init writes an annotated example"])
    return read_config(path, os.environ, secrets=secrets)


def require_secrets_unless_held(config: Config) -> None:
    """For work that a daemon, which has them, does when it holds the lock.  Raises ConfigError."""
    if not config.unset:
        return
    from heliostat.mirror.lock import holder_of
    from heliostat.mirror.places import LOCK, state_directory

    if holder_of(f"{state_directory(config)}/{LOCK}") is None:
        config.require_secrets()
