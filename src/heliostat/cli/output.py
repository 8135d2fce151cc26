"""A command's result on standard output: words, or JSON for machines."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from heliostat.cli.options import Options


def show(options: Options, code: int, lines: Sequence[str], result: Mapping[str, Any]) -> int:
    """Prints ``result`` under --json, else ``lines``; under --quiet nothing, unless something is wrong.

    Returns ``code``, which stays the exit code even when nobody reads what is printed.
    """
    options.code = code
    if options.json:
        say(json.dumps({**result, "exit_code": int(code)}))
    elif code or not options.quiet:
        say("\n".join(lines))
    return code


class Nowhere(io.StringIO):
    """Stands in for a standard output that the caller closed: what is printed by the way is lost, a result refused."""


class NotWritten(Exception):
    """Standard output did not take what it was given; ``str()`` of it is the message."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the result cannot be written to standard output: {error.strerror or error}")


def say(text: str, *, end: str = "\n") -> None:
    """Prints ``text`` at once.  Raises NotWritten; BrokenPipeError when nobody reads it any more."""
    if isinstance(sys.stdout, Nowhere):
        raise NotWritten(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NotWritten(error) from error
