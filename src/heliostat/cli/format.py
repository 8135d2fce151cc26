"""Figures and foreign text as people read them."""

from __future__ import annotations

import datetime as dt
import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """``text`` on one line, with everything that a terminal might obey written as an escape."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def size(count: float) -> str:
    """Bytes: ``17 B``, ``4.0 KiB``, ``123 MiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    step = 0
    while abs(count) >= 1023.5 and step < len(units) - 1:
        count /= 1024
        step += 1
    return f"{count:.1f} {units[step]}" if step and abs(count) < 99.95 else f"{count:.0f} {units[step]}"


def rate(count: float, seconds: float) -> str:
    """Bytes a second, over ``seconds``; ``-`` when that is no time at all."""
    return f"{size(count / seconds)}/s" if seconds > 0 else "-"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``, ``5 d 3 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def number(count: int) -> str:
    """A whole number with its thousands marked: ``700,000``."""
    return f"{count:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 file``, ``2,000 files``."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def moment(seconds: float | None) -> str:
    """A time since the epoch as UTC, ``2025-03-01 12:00:00 UTC``; ``never`` for None."""
    if seconds is None:
        return "never"
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
