"""Connections to the HTTP endpoint, bounded in number and in time.

Each carries one request and lasts a few seconds at most, whatever its other end does, and fewer until the head of that
request is there; beyond a number of them at one address further ones are closed at once.  So neither a slow client nor
many of them cost the mirror anything, and those at one address nothing to those at another.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable
from typing import NamedTuple, cast

from aiohttp import web

#: Lines of a request's head, and bytes of each.
_MOST_HEADERS, _MOST_LINE = 64, 8 << 10
#: Seconds in which the rest of a request is still taken once it is answered: otherwise its sender may lose the answer.
_LINGER = 2.0
#: The headers of every answer.
PLAIN = {"Cache-Control": "no-store", "Server": "heliostat"}
#: Where aiohttp tells of requests that are none: whoever sends them knows; what our code does wrong is logged there.
_nowhere = logging.Logger("nowhere", logging.CRITICAL + 1)  # noqa: LOG001 (not to be configured by anybody)


class Bounds(NamedTuple):
    """Connections at a time to each address; how long one may last, and be without a request's head (seconds)."""

    connections: int = 64
    seconds: float = 15.0
    head: float = 3.0


def plain(status: int, text: str | None = None, **headers: str) -> web.Response:
    """A line of text, the status' own without ``text``; the last answer of its connection."""
    text = http.HTTPStatus(status).phrase if text is None else text
    response = web.Response(status=status, text=text + "\n", headers=PLAIN | headers)
    response.force_close()
    return response


class Connections:
    """Makes the protocol of each connection at one address, for ``loop.create_server``."""

    def __init__(self, server: web.Server, bounds: Bounds) -> None:
        self._server, self._bounds = server, bounds
        self._loop = asyncio.get_running_loop()
        #: Counted when they are accepted: many are, one after the other, before the first of them is told so.
        self._open = 0

    def __call__(self) -> asyncio.BaseProtocol:
        if self._open >= self._bounds.connections:
            return _Refusing()
        self._open += 1
        return Connection(self._server, self._loop, self._one_less, self._bounds)

    def _one_less(self) -> None:
        self._open -= 1


class Connection(web.RequestHandler):
    """One connection; ``ended`` is called once, at its end."""

    __slots__ = ("_alarm", "_ended", "_headless")

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, ended: Callable[[], None], bounds: Bounds
    ) -> None:
        super().__init__(
            server, loop=loop, access_log=None, logger=_nowhere, lingering_time=_LINGER,  # type: ignore[arg-type]
            max_headers=_MOST_HEADERS, max_line_size=_MOST_LINE, max_field_size=_MOST_LINE, auto_decompress=False,
        )  # fmt: skip
        self._ended: Callable[[], None] | None = ended
        self._alarm = loop.call_later(bounds.seconds, self._end)
        self._headless = loop.call_later(min(bounds.head, bounds.seconds), self._end)

    def head_came(self) -> None:
        """The request's head is there; its body, and the answer, have the rest of the time."""
        self._headless.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._alarm.cancel()
        self._headless.cancel()
        self._count()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What is no request is answered without a word of it, and without those of aiohttp."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        return plain(status)

    def _end(self) -> None:
        """Time is up; what was not sent by now is not wanted."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()
        else:  # it never came to be
            self._count()

    def _count(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


class _Refusing(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()  # uvloop's are none by inheritance
