"""Requests, and answers that are kept ready to be sent."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from heliostat.fakeindex.content import Content

Headers = tuple[tuple[str, str], ...]


class Request:
    """One request, and what became of it."""

    __slots__ = ("body", "headers", "method", "path", "query", "sent", "status")

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        self.method = method
        #: As it came, still quoted.
        self.path, _, self.query = target.partition("?")
        #: Names in lower case.
        self.headers = headers
        self.body = b""
        #: 0 while unanswered, or when the connection was closed without an answer.
        self.status = 0
        #: Bytes of the answer's body that were handed to the connection.
        self.sent = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    def __repr__(self) -> str:
        ranged = f" {self.range}" if self.range else ""
        return f"<{self.method} {self.path}{ranged} {self.status} {self.sent}>"


class Answer:
    """A complete answer.  It may be kept and sent any number of times."""

    __slots__ = ("_gzipped", "_heads", "body", "compress", "content", "headers", "start", "status", "stop")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers = (),
        *,
        content: Content | None = None,
        start: int = 0,
        stop: int | None = None,
        compress: bool = False,
    ) -> None:
        self.status, self.headers = status, headers
        self.body = body
        #: In place of ``body``: the part of it from ``start`` to ``stop``.
        self.content = content
        self.start = start
        self.stop = stop if stop is not None else content.size if content else len(body)
        #: Whether it is sent with gzip to those who ask for it.
        self.compress = compress
        self._gzipped: bytes | None = None
        self._heads: dict[tuple[bool, bool], tuple[bytes, bytes]] = {}

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def payload(self, *, gzipped: bool) -> bytes:
        """The whole body as it goes out (not for a large ``content``)."""
        if self.content is not None:
            return self.content.read(self.start, self.stop)
        if not gzipped:
            return self.body
        if self._gzipped is None:
            self._gzipped = gzip.compress(self.body, 1, mtime=0)
        return self._gzipped

    def wants_gzip(self, request: Request) -> bool:
        return self.compress and "gzip" in request.headers.get("accept-encoding", "")

    def size(self, *, gzipped: bool) -> int:
        return len(self.payload(gzipped=True)) if gzipped else self.stop - self.start

    def head(self, *, gzipped: bool, close: bool) -> bytes:
        """Status line and headers, ready to send."""
        known = self._heads.get((gzipped, close))
        if known is None:
            headers = list(self.headers)
            if gzipped:
                headers.append(("Content-Encoding", "gzip"))
            if self.status != HTTPStatus.NOT_MODIFIED:
                headers.append(("Content-Length", str(self.size(gzipped=gzipped))))
            if close:
                headers.append(("Connection", "close"))
            known = self._heads[gzipped, close] = head_parts(self.status, headers)
        return known[0] + date_line() + known[1]


def head_parts(status: int, headers: Iterable[tuple[str, str]]) -> tuple[bytes, bytes]:
    """What stands before and after the date."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    rest = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {phrase}\r\n".encode(), f"{rest}\r\n".encode()


def date_line() -> bytes:
    """``Date:``, made once a second."""
    now = int(time.time())
    if _date[0] != now:
        _date[0], _date[1] = now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
    return cast(bytes, _date[1])


_date: list[int | bytes] = [0, b""]
