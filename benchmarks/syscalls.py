"""System calls of a command, counted by strace in a run of its own: it makes everything many times slower."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence

from harness import successful, timed


def system_calls(command: Sequence[str], *, only: str | None = None) -> dict[str, int] | None:
    """How often each system call was made, the most frequent first; None where strace is missing or may not trace.

    ``only`` is strace's expression for the ones to look at.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "calls")
        chosen = ["-e", f"trace={only}"] if only else []
        run = timed([strace, "-f", "-c", "-S", "calls", "-U", "calls,name", *chosen, "-o", path, *command])
        if run.code and not os.path.exists(path):
            return None
        successful(run, "strace")
        with open(path, encoding="utf-8") as file:
            fields = [line.split() for line in file]
    return {one[1]: int(one[0]) for one in fields if len(one) == 2 and one[0].isdigit() and one[1] != "total"}
