"""One pass of a mirror whose disk is slow: a process for the benchmarks, like ``heliostat mirror --once``.

    python benchmarks/slow_disk.py CONFIG MILLISECONDS

Every operation of the store waits so long before it begins, in whichever thread it runs, as on a network disk or a
busy one; the ledger, which is SQLite's business, does not.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any, cast

import msgspec

from heliostat.cli.running import Stop, run
from heliostat.config.load import load_config
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from heliostat.store.disk import Disk, Operations


class Slow:
    """Everything that ``inner`` can do, each call after a pause; files that it opens are slow as well."""

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        seconds = self._seconds

        def slowly(*arguments: Any, **keywords: Any) -> Any:
            time.sleep(seconds)
            result = found(*arguments, **keywords)
            return Slow(result, seconds) if name == "append" else result

        self.__dict__[name] = slowly
        return slowly


def slow_disk(root: str, seconds: float) -> Operations:
    """The directory ``root`` on a disk that takes ``seconds`` longer for everything; 0 is an ordinary one."""
    disk = Disk(root)
    return cast("Operations", Slow(disk, seconds)) if seconds else disk


def main() -> int:
    path, milliseconds = sys.argv[1], float(sys.argv[2])
    with open(path, encoding="utf-8") as file:
        config = load_config(file.read(), source=path, environ=os.environ)

    async def one_pass(_: Stop) -> Summary:
        disk = slow_disk(config.mirror.directory, milliseconds / 1000)
        async with Mirror.open(config, disk=disk) as mirror:
            return await mirror.run(counters=Counters(), stop=asyncio.Event())

    summary = run(one_pass)
    sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    return 0 if summary.complete else 3


if __name__ == "__main__":
    raise SystemExit(main())
