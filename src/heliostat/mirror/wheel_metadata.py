"""A wheel's METADATA, taken out of the wheel: those bytes are its metadata sidecar (PEP 658), and need no request.

Only where to look is learnt from the wheel (ZIP, APPNOTE 4.3).  What is found counts as a sidecar when it has the
digest that upstream's page gives for one, so whatever an archive says of itself, nothing wrong can come of it: what is
not found here, or is something else, is asked of upstream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

#: Reads at most so many bytes at an offset.
Read = Callable[[int, int], bytes]

_ENDING = b".dist-info/METADATA"
_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
#: The end of an archive is looked for in so many last bytes; wheels have no comment, or a short one.
_TAIL = 4096
#: A longer list of what is in the archive is not read (bytes).
_LONGEST_LIST = 4 << 20
#: METADATA of so many projects that a wheel brings along are passed over; the name of its own directory is no longer
#: than the wheel's name may be.  Whatever a list says, looking through it takes no longer than reading it.
_MOST_CANDIDATES, _LONGEST_NAME = 500, 255
_STORED, _DEFLATED = 0, 8


class Entry(NamedTuple):
    """Where an archive has its METADATA: the position of the header before it, and sizes in bytes."""

    position: int
    packed: int
    size: int
    method: int


def find(read: Read, size: int) -> Entry | None:
    """Where METADATA is in an archive of ``size`` bytes; None when it cannot be told."""
    tail = read(max(0, size - _TAIL), _TAIL)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        return None
    _, _, _, _, _, length, begin, _ = _END.unpack_from(tail, at)
    if length > _LONGEST_LIST or begin + length > size:  # also ZIP64, whose numbers are all ones here
        return None
    inside = begin - (size - len(tail))
    entries = tail[inside : inside + length] if inside >= 0 else read(begin, length)
    end = 0
    for _ in range(_MOST_CANDIDATES):
        at = entries.find(_ENDING, end)
        if at < 0:
            return None
        end = at + len(_ENDING)
        head = entries.rfind(b"PK\1\2", max(0, at - _ENTRY.size - _LONGEST_NAME), at)
        if head < 0 or head + _ENTRY.size > at:
            continue
        found = _ENTRY.unpack_from(entries, head)
        # Only at the top: below it lie the metadata of what a project brings along.
        if head + _ENTRY.size + found[10] == end and b"/" not in entries[head + _ENTRY.size : at]:
            return Entry(found[16], found[8], found[9], found[4])
    return None


def unpack(read: Read, entry: Entry) -> bytes | None:
    """The bytes of ``entry``, which has to be of a size that is welcome; None when they cannot be had."""
    header = read(entry.position, _LOCAL.size)
    if len(header) < _LOCAL.size:
        return None
    name, extra = _LOCAL.unpack(header)[9:]
    packed = read(entry.position + _LOCAL.size + name + extra, entry.packed)
    if entry.method == _STORED:
        body = packed
    elif entry.method == _DEFLATED:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
        except zlib.error:
            return None
    else:
        return None
    return body if len(body) == entry.size else None


def part_of(data: bytes) -> Read:
    """Reads from bytes in memory."""
    return lambda start, size: data[start : start + size]
