"""Where log lines go: standard error, one line each, with nothing in them that a terminal might obey."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from heliostat.cli.format import plain
from heliostat.cli.log_format import in_journal, resolve, without_secrets

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


class _Text(logging.Formatter):
    """For people and files: the time, unless ``clock`` is empty, and what kind of trouble it is."""

    def __init__(self, clock: str) -> None:
        super().__init__()
        self._clock = clock
        self._second, self._shown = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        text = without_secrets(plain(record.getMessage()))
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if self._clock:
            text = f"{self._time(int(record.created))} {text}"
        if trace := _trace(self, record):
            text += "\n" + trace
        return text

    def _time(self, second: int) -> str:
        """Many lines are of one second."""
        if second != self._second:
            self._second, self._shown = second, time.strftime(self._clock, time.localtime(second))
        return self._shown


class _Journal(logging.Formatter):
    """For the journal, which has the time already and takes the priority from the line."""

    def format(self, record: logging.LogRecord) -> str:
        text = without_secrets(plain(record.getMessage()))
        if trace := _trace(self, record):
            text += "\n" + trace
        return in_journal(_priority(record.levelno), text)


class _Json(logging.Formatter):
    """For machines: an object a line; docs/operations.md has its keys."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            **getattr(record, "fields", {}),
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if trace := _trace(self, record):
            line["traceback"] = trace
        return json.dumps(line)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return without_secrets(formatter.formatException(record.exc_info))
    return ""


def _priority(level: int) -> int:
    """The number in syslog for a level of logging's."""
    return next(number for least, number in ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7)) if level >= least)


def set_up_logging(options: Options, *, daemon: bool = False, wanted: str = "auto") -> None:
    """Logs to standard error: errors under --quiet, everything under --verbose, otherwise what happened.

    Where a terminal shows the progress of a single run, only warnings.  ``wanted`` is the form that the configuration
    asks for; --log-format goes before it.  Times are local, as in the system's other logs, and UTC in JSON.
    """
    handler = _Stderr()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    options.log_format = resolve(options.log_format or wanted, os.environ)
    formatter: logging.Formatter
    if options.log_format == "json":
        formatter = _Json()
    elif options.log_format == "journal":
        formatter = _Journal()
    else:
        formatter = _Text("" if on_terminal and not daemon else "%H:%M:%S" if on_terminal else "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(formatter)
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
    # No form shows them, so no record needs to find them out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
