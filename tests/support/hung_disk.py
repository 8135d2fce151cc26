"""A pass on a disk that stops answering in the middle of a write; as a process: ``python -m support.hung_disk CONFIG``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from pathlib import Path

from heliostat.cli.running import Stop, run
from heliostat.config.load import load_config
from heliostat.mirror.report import Counters, Summary
from heliostat.mirror.run import Mirror
from heliostat.store.appender import Buffer
from heliostat.store.disk import Disk


class HungDisk(Disk):
    """Its first write never returns, and says so."""

    def write(self, path: str, data: Buffer, mtime_ns: int | None = None) -> None:
        super().write(path, data, mtime_ns)
        print("hung", flush=True)
        threading.Event().wait()


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    path = Path(sys.argv[1])
    config = load_config(path.read_text(), source=str(path), environ=os.environ)

    async def one_pass(stop: Stop) -> Summary:
        async with Mirror.open(config, disk=HungDisk(config.mirror.directory)) as mirror:
            return await mirror.run(counters=Counters(), stop=asyncio.Event())

    run(one_pass)


if __name__ == "__main__":
    main()
