"""``heliostat serve``'s server in a thread, for tests that are synchronous or start other processes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.service import serve


@dataclass
class Served:
    """A running static server: its base URL, without a final slash, and what was asked of it."""

    url: str
    _handler: _Collector

    def requests(self) -> list[str]:
        """``METHOD TARGET STATUS`` of every request so far."""
        return list(self._handler.lines)


@dataclass(eq=False)  # a logger keeps no two handlers that are equal
class _Collector(logging.Handler):
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        line = str(record.__dict__["first_request_line"])
        method, target, _ = line.split(" ")
        self.lines.append(f"{method} {target} {record.__dict__['response_status']}")


@contextmanager
def static_server(web_root: str | Path) -> Iterator[Served]:
    """Serve ``web_root`` on a free loopback port until the block ends."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        await serve.run_static_server(
            str(web_root),
            host="127.0.0.1",
            port=0,
            stop=stop,
            started=lambda url: started.set_result((url.rstrip("/"), loop, stop)),
        )

    def thread_main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    collector = _Collector()
    serve.access_log.addHandler(collector)
    before = serve.access_log.level
    serve.access_log.setLevel(logging.INFO)
    thread = threading.Thread(target=thread_main)
    thread.start()
    try:
        url, loop, stop = started.result()
        try:
            yield Served(url, collector)
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
        serve.access_log.setLevel(before)
        serve.access_log.removeHandler(collector)
