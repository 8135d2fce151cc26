"""One line of an access log becomes one hit, or nothing.  Whatever a line holds, it is no error.

Understood are the combined format of nginx and Apache (also with more fields at its end) and the objects of
``heliostat_json`` in ``configs/nginx.conf``.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

_COMBINED = re.compile(
    rb"(\S{1,256}) \S+ .*?\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d):\d\d ([+-]\d{4})\] "
    rb'"((?:[^"\\]++|\\.)*+)" (\d{3}) (\d{1,14}|-)(?: "(?:[^"\\]++|\\.)*+" "((?:[^"\\]++|\\.)*+)")?'
)
#: nginx writes what is not printable, quotes and backslashes as \\xHH; Apache also as \\" and the like.
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):\d\d(?:\.\d+)?(Z|[+-]\d\d:?\d\d)")
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_EPOCH = dt.date(1970, 1, 1).toordinal()
_MOST_BYTES = 1 << 44


class Hit(NamedTuple):
    """A request that was answered."""

    #: Days since 1970-01-01, of UTC.
    day: int
    #: As the log has it; empty where it has none.
    address: str
    method: str
    target: str
    status: int
    #: Bytes of the answer's body that were sent.
    sent: int
    #: False: the answer was broken off.  The combined format does not tell; then it is taken as whole.
    whole: bool
    agent: str


class _Entry(msgspec.Struct):
    time: str
    status: int
    method: str
    target: str
    address: str = ""
    bytes: int = 0
    complete: str = "OK"
    agent: str = ""


_decode = msgspec.json.Decoder(_Entry).decode


def hit_of(line: bytes) -> Hit | None:
    """What ``line``, without its line break, tells; None when it is not understood."""
    return _from_json(line) if line.startswith(b"{") else _from_combined(line)


def date_of(day: int) -> dt.date:
    """The date of a :attr:`Hit.day`."""
    return dt.date.fromordinal(day + _EPOCH)


def day_of(date: dt.date) -> int:
    """The opposite of :func:`date_of`."""
    return date.toordinal() - _EPOCH


def _from_combined(line: bytes) -> Hit | None:
    found = _COMBINED.match(line)
    if found is None:
        return None
    address, minute, zone, request, status, sent, agent = found.groups()
    day = _day_of_combined(minute, zone)
    method, _, rest = _text(request).partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if day is None or not target or not protocol.startswith("HTTP/"):
        return None
    size = 0 if sent == b"-" else int(sent)
    if size > _MOST_BYTES:
        return None
    return Hit(
        day=day,
        address=address.decode("ascii", "replace"),
        method=method,
        target=target,
        status=int(status),
        sent=size,
        whole=True,
        agent=_header(agent) if agent else "",
    )


def _from_json(line: bytes) -> Hit | None:
    try:
        entry = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:  # bytes that are no UTF-8 come as they were sent
            entry = _decode(line.decode("utf-8", "replace"))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
    found = _ISO.fullmatch(entry.time)
    day = _day_of(*found.groups()) if found else None
    if day is None or not 100 <= entry.status <= 999 or not 0 <= entry.bytes <= _MOST_BYTES or len(entry.address) > 256:
        return None
    whole = entry.complete == "OK"
    return Hit(day, entry.address, entry.method, entry.target, entry.status, entry.bytes, whole, entry.agent)


def _text(field: bytes) -> str:
    if b"\\" in field:
        field = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else found[2], field)
    return field.decode("utf-8", "replace")


def _header(field: bytes) -> str:
    """The same for what repeats itself: all that pip sends are quotes."""
    return _cached_text(field) if len(field) <= 2048 else _text(field)


_cached_text = lru_cache(2048)(_text)


@lru_cache(4096)
def _day_of_combined(minute: bytes, zone: bytes) -> int | None:
    """``25/Nov/2026:10:15`` and ``+0100``."""
    month = _MONTHS.get(minute[3:6])
    if month is None:
        return None
    return _day_of(
        minute[7:11].decode(), f"{month:02}", minute[:2].decode(), minute[12:14].decode(), minute[15:17].decode(),
        zone.decode(),
    )  # fmt: skip


@lru_cache(4096)
def _day_of(year: str, month: str, day: str, hour: str, minute: str, zone: str) -> int | None:
    try:
        local = dt.datetime(int(year), int(month), int(day), int(hour), int(minute), tzinfo=dt.UTC)
        if zone != "Z":
            offset = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
            local += offset if zone[0] == "-" else -offset
    except (ValueError, OverflowError):
        return None
    return local.toordinal() - _EPOCH if local.year >= 2000 else None
