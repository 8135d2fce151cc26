"""What lies beside the root pages: their gzipped copies, and ``last-modified``."""

from __future__ import annotations

import contextlib
import os
import time
import zlib

from heliostat.mirror.verify.findings import Finding, finding
from heliostat.mirror.verify.ground import Ground
from heliostat.mirror.verify.reading import Odd, Stamp

#: Below the mirror's directory; PEP 381.
LAST_MODIFIED = "web/last-modified"
_FORMAT = "%Y%m%dT%H:%M:%S"
_PIECE, _MOST = 1 << 18, 4096
_PAGES = (b"simple/index.html", b"simple/index.v1_html", b"simple/index.v1_json")


def look_beside(ground: Ground) -> list[Finding]:
    """What is wrong with them.  Raises Stopping, StateError."""
    found = [_wrong(page + b".gz", problem) for page in _PAGES if (problem := _copy_problem(ground, page))]
    if ground.books is not None and ground.books.get("last_poll") and (problem := _time_problem(ground)):
        found.append(_wrong(b"last-modified", problem))
    return found


def _wrong(path: bytes, problem: str) -> Finding:
    return finding("root", b"web/" + path, "", problem)


def _time_problem(ground: Ground) -> str | None:
    try:
        body, _ = ground.reader.small(b"last-modified", _MOST)
        time.strptime(body.decode("ascii").strip(), _FORMAT)
    except FileNotFoundError:
        return "not there"
    except Odd as odd:
        return odd.problem
    except ValueError:
        return "not a time as PEP 381 has it"
    return None


def _copy_problem(ground: Ground, page: bytes) -> str | None:
    """Whether a web server that prefers the copy serves something else."""
    reader, copy = ground.reader, page + b".gz"
    before = reader.stamp(page), reader.stamp(copy)
    if before[0] is None or before[1] is None:
        return None
    try:
        problem = _compared(ground, page, copy, before[0], before[1])
    except FileNotFoundError:
        return None
    except Odd as odd:
        problem = odd.problem
    return problem if before == (reader.stamp(page), reader.stamp(copy)) else None  # it is being written


def _compared(ground: Ground, page: bytes, copy: bytes, is_of: Stamp, is_there: Stamp) -> str | None:
    age = int(is_of.modified) - int(is_there.modified)
    if age < 0 or (age and ground.books is None):  # one is put in place before the other, here or by who copies them
        return None
    if age:
        return "older than its page"
    with contextlib.ExitStack() as stack:
        plain, _ = ground.reader.open(page)
        stack.callback(os.close, plain)
        packed, _ = ground.reader.open(copy)
        stack.callback(os.close, packed)
        try:
            same = _same(ground, plain, packed)
        except (OSError, zlib.error) as error:
            return f"cannot be read: {error}"
    return None if same else "its content is not its page's"


def _same(ground: Ground, page: int, copy: int) -> bool:
    unpacker, rest = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), b""
    while not unpacker.eof:
        rest = rest or os.read(copy, _PIECE)
        piece = unpacker.decompress(rest, _PIECE)
        if not rest and not piece:
            return False  # cut off
        rest = unpacker.unconsumed_tail
        ground.reader.budget.take(2 * len(piece))
        while piece:
            plain = os.read(page, len(piece))
            if not plain or not piece.startswith(plain):
                return False
            piece = piece[len(plain) :]
    return not os.read(page, 1) and not unpacker.unused_data
