"""Conditional and range requests for a file that lies still (RFC 9110 sections 13 and 14).  Pure.

The validators are made as nginx makes them, so that a download begun at one server resumes at the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate

_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")
#: No file has more digits in its size; longer numbers are nonsense and expensive to convert.
_MAX_DIGITS = 18


@dataclass(frozen=True)
class Answer:
    """The status to send, and which bytes; ``headers`` holds the validators and, where they apply, the range's."""

    status: int
    start: int
    length: int
    headers: dict[str, str]


def answer(request: Mapping[str, str], *, size: int, mtime: float) -> Answer:
    """200, 206, 304 or 416 for a GET or HEAD of ``size`` bytes last changed at ``mtime`` (seconds since the epoch).

    Several ranges in one request, and malformed ones, are answered with the whole file, as the RFC allows.
    """
    etag, modified = f'"{int(mtime):x}-{size:x}"', formatdate(int(mtime), usegmt=True)
    headers = {"ETag": etag, "Last-Modified": modified}
    if _unchanged(request, etag, modified):
        return Answer(304, 0, 0, headers)
    headers["Accept-Ranges"] = "bytes"
    if request.get("If-Range", etag) in (etag, modified):
        wanted = _RANGE.fullmatch(request.get("Range", ""))
        if wanted and len(wanted[0]) < 2 * _MAX_DIGITS:
            return _part(wanted, size, headers)
    return Answer(200, 0, size, headers)


def _unchanged(request: Mapping[str, str], etag: str, modified: str) -> bool:
    known = request.get("If-None-Match")
    if known is None:
        return request.get("If-Modified-Since") == modified
    tags = {tag.strip(" \t").removeprefix("W/") for tag in known.split(",")}
    return etag in tags or "*" in tags


def _part(wanted: re.Match[str], size: int, headers: dict[str, str]) -> Answer:
    first, last, suffix = wanted.groups()
    start = int(first) if first else max(size - int(suffix), 0)
    stop = min(int(last) + 1, size) if last else size
    if first and last and int(last) < int(first):
        return Answer(200, 0, size, headers)
    if start >= size:
        return Answer(416, 0, 0, headers | {"Content-Range": f"bytes */{size}"})
    return Answer(206, start, stop - start, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
