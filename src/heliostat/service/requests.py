"""Signals that ask a daemon for something: kept until they are taken, many of one kind as one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

_KINDS = (signal.SIGHUP, signal.SIGUSR1)


class Requests:
    """SIGHUP and SIGUSR1, which would end the process otherwise."""

    def __init__(self) -> None:
        self._asked: set[signal.Signals] = set()
        self._event = asyncio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are kept while this is open."""
        loop = asyncio.get_running_loop()
        for kind in _KINDS:
            loop.add_signal_handler(kind, self.ask, kind)
        # Whoever started us may have had them wait until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _KINDS)
        try:
            yield
        finally:
            for kind in _KINDS:
                loop.remove_signal_handler(kind)

    def ask(self, kind: signal.Signals) -> None:
        self._asked.add(kind)
        self._event.set()

    async def take(self) -> list[signal.Signals]:
        """Wait until something is asked for; what, in a fixed order."""
        await self._event.wait()
        self._event.clear()
        asked, self._asked = sorted(self._asked), set()
        return asked
