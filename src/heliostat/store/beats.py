"""Since when threads have been at what they do: how it is told that a disk does not answer.

Nothing here takes minutes, unless it calls :func:`got_on`: what is very old waits for a disk that does not answer.
"""

from __future__ import annotations

import math
import threading
import time


class Beat:
    """Since when a thread has been at one piece of work, monotonic; infinity while it is at none."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since = math.inf


#: Those of all threads that are watched, and the one of the thread that asks.
_BEATS: list[Beat] = []
_own = threading.local()


def working_since() -> float:
    """When the oldest piece of work began that a thread is still at, monotonic; infinity when there is none."""
    return min((beat.since for beat in tuple(_BEATS)), default=math.inf)


def got_on() -> None:
    """For long work in a thread: another piece of it begins."""
    beat: Beat | None = getattr(_own, "beat", None)
    if beat is not None:
        beat.since = time.monotonic()


def begin(*, watched: bool) -> Beat:
    """A beat for the thread that calls; ``watched``: its work counts for :func:`working_since` until :func:`end`."""
    _own.beat = beat = Beat()
    if watched:
        _BEATS.append(beat)
    return beat


def end(beat: Beat) -> None:
    """The thread of this beat ends."""
    if beat in _BEATS:
        _BEATS.remove(beat)
