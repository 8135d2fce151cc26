"""A command's result on standard output: words, or JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heliostat.cli.options import Options


def show(options: Options, code: int, lines: Sequence[str], result: Mapping[str, Any]) -> int:
    """Prints ``result`` under --json, else ``lines``; under --quiet nothing, unless something is wrong.

    Returns ``code``, which stays the exit code even when nobody reads what is printed.
    """
    options.code = code
    if options.json:
        print(json.dumps({**result, "exit_code": int(code)}), flush=True)
    elif code or not options.quiet:
        print("\n".join(lines), flush=True)
    return code
