"""What goes wrong poll after poll, kept from pass to pass: told once, and what it makes us do done ever less often.

Where the change feed fails, everything has to be asked for instead; done at every poll for as long as an outage lasts
that would be a load that no outage of upstream deserves.
"""

from __future__ import annotations

import logging
import time

import msgspec

from heliostat.config import Config

log = logging.getLogger(__name__)


class _Wrong(msgspec.Struct):
    """Something that goes wrong; ``pause`` in seconds, ``again`` monotonic."""

    pause: float = 0.0
    again: float = 0.0


class Detours:
    """Of one process; ``what`` names a thing that goes wrong, or is to be told."""

    def __init__(self, config: Config) -> None:
        self.configure(config)
        self._wrong: dict[str, _Wrong] = {}
        self._told: dict[str, object] = {}

    def configure(self, config: Config) -> None:
        """Another configuration counts."""
        self._first = config.mirror.interval
        self._most = max(config.service.back_off_most, self._first)

    def failed(self, what: str, text: str, *arguments: object, level: int = logging.WARNING) -> None:
        """It goes wrong, which the log is told once for as long as it does."""
        log.log(logging.DEBUG if what in self._wrong else level, text, *arguments)
        self._wrong.setdefault(what, _Wrong())

    def well(self, what: str, text: str | None = None) -> None:
        """It goes well; ``text`` says so after it went wrong."""
        if self._wrong.pop(what, None) is not None and text is not None:
            log.info(text)

    def is_due(self, what: str) -> bool:
        """Whether it is time for what is dear while that goes wrong; the next time is later then, and later again."""
        wrong, now = self._wrong.get(what), time.monotonic()
        if wrong is None:
            return True
        if now < wrong.again:
            return False
        wrong.pause = min(max(2 * wrong.pause, self._first), self._most)
        wrong.again = now + wrong.pause
        return True

    def in_vain(self) -> None:
        """Upstream has no answer at all: the pauses of whoever asks it are long enough."""
        for wrong in self._wrong.values():
            wrong.pause = wrong.again = 0.0

    def is_news(self, what: str, value: object) -> bool:
        """Whether that was not told before with this value."""
        if self._told.get(what) == value:
            return False
        self._told[what] = value
        return True

    def forget(self, what: str) -> None:
        """Whatever is to be told of it is news."""
        self._told.pop(what, None)
