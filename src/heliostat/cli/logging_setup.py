"""Where log lines go: standard error, one line each, with nothing in them that a terminal might obey."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

from heliostat.cli.format import plain

if TYPE_CHECKING:
    from heliostat.cli.options import Options


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at that moment: a progress display puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        """Nothing to keep."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nobody reads standard error any more: that must not end a run."""


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = plain(record.getMessage())
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {text}" if self.usesTime() else text


def set_up_logging(options: Options, *, daemon: bool = False) -> None:
    """Logs to standard error: errors under --quiet, everything under --verbose, otherwise what happened.

    Where a terminal shows the progress of a single run, only warnings.  Times are local, as in the system's other logs.
    """
    handler = _Stderr()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    handler.setFormatter(_Line("%(message)s" if on_terminal else "%(asctime)s %(message)s"))
    level = logging.INFO
    if options.quiet:
        level = logging.ERROR
    elif options.verbose:
        level = logging.DEBUG
    elif on_terminal and options.progress and not daemon:
        level = logging.WARNING
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's modules
    logging.getLogger("heliostat").setLevel(level)
