"""Faults on demand: what an index, a cache on the way, or an attacker may do to an answer.

    fault = server.fault("/simple/demo/", Status(503, retry_after=1), times=2)
    ...
    assert fault.fired == 2

Nothing here depends on time unless asked for: what drips or hangs waits for the test (:meth:`Fault.grant`,
:meth:`Fault.release`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

from heliostat.fakeindex import render
from heliostat.fakeindex.connection import PIECE, Exchange
from heliostat.fakeindex.damage import Flipped, Resized, changed, gzip_bomb, part, whole, with_content, xml_bomb
from heliostat.fakeindex.fault import Action, Fault, Pattern, matches
from heliostat.fakeindex.http import Answer, Request
from heliostat.fakeindex.routes import HTML, JSON, negotiated, xml

__all__ = [
    "Action",
    "Body",
    "Cut",
    "Drip",
    "Endless",
    "Fault",
    "Frozen",
    "GzipBomb",
    "GzipJunk",
    "Hang",
    "Headers",
    "IgnoreRange",
    "Pattern",
    "Redirect",
    "Reset",
    "Rewrite",
    "Stale",
    "Status",
    "Wire",
    "Wrong",
    "WrongLength",
    "XmlBomb",
    "XmlFault",
    "http_date",
    "matches",
    "method_removed",
    "rate_limited",
    "xml_bomb",
]


class Status(Action, frozen=True):
    """An error status; ``retry_after`` in seconds, or as text (an HTTP date, see :func:`http_date`)."""

    status: int
    retry_after: float | str | None = None
    body: str = "made to fail\n"

    async def act(self, exchange: Exchange, fault: Fault) -> None:  # noqa: ARG002
        headers = [("Content-Type", "text/plain; charset=UTF-8")]
        if self.retry_after is not None:
            headers.append(("Retry-After", _number(self.retry_after)))
        await exchange.send(Answer(self.status, self.body.encode(), tuple(headers)))


class Stale(Action, frozen=True):
    """The project's page or document as it was before its last change (404 if there was none)."""

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        request, site = exchange.request, fault.server.site
        parts = request.path.split("/")
        project = fault.server.index.previous(parts[2]) if len(parts) > 2 else None
        if project is None:
            await exchange.send(Answer(404, b"404 Not Found", (("Content-Type", "text/plain"),)))
        elif parts[1] == "simple":
            await exchange.send(
                site.conditional(request, site.page(project, negotiated(request.headers.get("accept", ""))))
            )
        else:
            await exchange.send(site.conditional(request, site.document(project)))


class Frozen(Action, frozen=True):
    """What was answered when the fault came into force, for one path without wildcards (also ``/simple/``)."""

    def prepare(self, fault: Fault) -> None:
        if not isinstance(fault.path, str):
            raise TypeError("only one path can be frozen")
        for accept in (JSON, HTML, "text/html"):
            fault.kept[accept] = fault.honest(Request("GET", fault.path, {"accept": accept}))

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.kept[negotiated(exchange.request.headers.get("accept", ""))]
        await exchange.send(fault.server.site.conditional(exchange.request, answer))


class Reset(Action, frozen=True):
    """The honest answer up to ``after`` bytes of body (below 1: a share of it), all received; then a RST.

    ``after=-1``: not even a status line.
    """

    after: float = 0.5

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        if self.after >= 0:
            await _send_part(exchange, fault.honest(exchange.request), self.after)
            await exchange.delivered()
        exchange.reset()


class Cut(Action, frozen=True):
    """The same with an orderly end of the connection: the body is shorter than its Content-Length."""

    after: float = 0.5

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        if self.after >= 0:
            await _send_part(exchange, fault.honest(exchange.request), self.after)
        exchange.close()


class Endless(Action, frozen=True):
    """The honest body, or nothing, and then ``filler`` for ever, without a Content-Length."""

    filler: bytes = b" "
    honest: bool = True

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        exchange.head(answer.status, [*answer.headers, ("Connection", "close")])
        if self.honest:
            async for chunk in _pieces(answer, exchange):
                await exchange.write(chunk)
        filler = self.filler * max(1, (1 << 16) // len(self.filler))
        while not (exchange.closed or fault.released):
            await exchange.write(filler)
            await asyncio.sleep(0)
        exchange.close()


class Wrong(Action, frozen=True):
    """One byte of the body is another one: at ``offset``, or in the middle."""

    offset: int | None = None

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        await exchange.send(with_content(fault.honest(exchange.request), lambda content: Flipped(content, self.offset)))


class WrongLength(Action, frozen=True):
    """``extra`` bytes too many, or too few when it is negative, with a Content-Length that agrees with the body."""

    extra: int = 1

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        await exchange.send(with_content(fault.honest(exchange.request), lambda content: Resized(content, self.extra)))


class Drip(Action, frozen=True):
    """The honest answer, ``step`` bytes at a time: one step whenever the test grants one, or ``per_second`` bytes."""

    step: int = 1
    per_second: float | None = None

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        exchange.head(answer.status, [*answer.headers, ("Content-Length", str(answer.stop - answer.start))])
        for start in range(answer.start, answer.stop, self.step):
            if not fault.released:
                if self.per_second is None:
                    await fault.wait_step(exchange)
                else:
                    await asyncio.sleep(self.step / self.per_second)
            if fault.released:  # not byte by byte: nobody else would have a turn for long
                async for chunk in _pieces(answer, exchange, start):
                    await exchange.write(chunk)
                return
            if exchange.closed:
                return
            await exchange.write(part(answer, start, min(start + self.step, answer.stop)))


class Hang(Action, frozen=True):
    """Nothing comes until the fault is released; with ``after``, first the head and so many bytes (a share below 1)."""

    after: float | None = None

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        if self.after is None:
            if not fault.released:
                await fault.wait_released(exchange)
            await exchange.send(fault.honest(exchange.request))
            return
        answer = fault.honest(exchange.request)
        stop = await _send_part(exchange, answer, self.after)
        if not fault.released:
            await fault.wait_released(exchange)
        async for chunk in _pieces(answer, exchange, stop):
            await exchange.write(chunk)


class Redirect(Action, frozen=True):
    """To ``location``, in which ``{path}`` stands for the request's path."""

    location: str
    status: int = 302

    async def act(self, exchange: Exchange, fault: Fault) -> None:  # noqa: ARG002
        target = self.location.replace("{path}", exchange.request.path)
        await exchange.send(Answer(self.status, b"", (("Location", target),)))


class GzipJunk(Action, frozen=True):
    """``Content-Encoding: gzip``, and a body that is not gzip (or, ``cut``, only the first half of one)."""

    cut: bool = False

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        body = whole(answer)
        if self.cut:
            packed = Answer(200, body, compress=True).payload(gzipped=True)
            body = packed[: len(packed) // 2]
        headers = (*answer.headers, ("Content-Encoding", "gzip"))
        await exchange.send(Answer(answer.status, body or b"junk", headers))


class GzipBomb(Action, frozen=True):
    """The honest body followed by white space up to ``size`` bytes, which gzip makes a thousand times smaller."""

    size: int = 1 << 30

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        headers = (*answer.headers, ("Content-Encoding", "gzip"), ("Connection", "close"))
        exchange.head(answer.status, headers)
        for piece in gzip_bomb(whole(answer), self.size):
            if exchange.closed:
                return
            await exchange.write(piece)
            await asyncio.sleep(0)
        exchange.close()


class Body(Action, frozen=True):
    """Any answer; ``content_type=None``: the honest one's headers are kept."""

    body: bytes
    content_type: str | None = None
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it for every instance

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        if self.content_type is None:
            kept = tuple(pair for pair in fault.honest(exchange.request).headers if pair[0] != "ETag")
        else:
            kept = (("Content-Type", self.content_type),)
        await exchange.send(Answer(self.status, self.body, (*kept, *self.headers.items())))


class Rewrite(Action, frozen=True):
    """The honest answer with another body: ``change`` gets the bytes and gives new ones.  Only within one process."""

    change: Callable[[bytes], bytes]

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        kept = tuple(pair for pair in answer.headers if pair[0] != "ETag")
        await exchange.send(Answer(answer.status, self.change(whole(answer)), kept))


class Headers(Action, frozen=True):
    """The honest answer with some headers replaced, or removed (None)."""

    set: dict[str, str | None]

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        answer = fault.honest(exchange.request)
        names = {name.lower() for name in self.set}
        headers = [pair for pair in answer.headers if pair[0].lower() not in names]
        headers += [(name, value) for name, value in self.set.items() if value is not None]
        await exchange.send(changed(answer, headers=tuple(headers)))


class XmlFault(Action, frozen=True):
    """An XML-RPC fault, in a 200."""

    code: int = -32403
    text: str = "server error; service unavailable"

    async def act(self, exchange: Exchange, fault: Fault) -> None:  # noqa: ARG002
        await exchange.send(xml(render.xml_fault(self.code, self.text)))


class XmlBomb(Action, frozen=True):
    """XML that grows or reaches out: ``entities`` (of entities, of...), ``external`` (a file), ``nesting``."""

    kind: str = "entities"

    async def act(self, exchange: Exchange, fault: Fault) -> None:  # noqa: ARG002
        await exchange.send(xml(xml_bomb(self.kind)))


class IgnoreRange(Action, frozen=True):
    """The whole file with 200, whatever part was asked for."""

    async def act(self, exchange: Exchange, fault: Fault) -> None:
        headers = {name: value for name, value in exchange.request.headers.items() if name not in ("range", "if-range")}
        await exchange.send(fault.honest(Request(exchange.request.method, exchange.request.path, headers)))


#: Those that can be asked for over HTTP.
Wire = (
    Status | Stale | Frozen | Reset | Cut | Endless | Wrong | WrongLength | Drip | Hang | Redirect
    | GzipJunk | GzipBomb | Body | Headers | XmlFault | XmlBomb | IgnoreRange
)  # fmt: skip


def rate_limited(seconds: int | None = None) -> XmlFault:
    """The public index's XML-RPC rate limit."""
    text = "HTTPTooManyRequests: The action could not be performed because there were too many requests by the client."
    if seconds is not None:
        text += f" Limit may reset in {seconds} seconds."
    return XmlFault(-32500, text)


def method_removed() -> XmlFault:
    """What the public index says of methods that it took away."""
    return XmlFault(-32500, "RuntimeError: PyPI no longer supports the XMLRPC changelog_since_serial method.")


def http_date(moment: float) -> str:
    """Seconds since the epoch, as ``Retry-After`` may give a time."""
    return formatdate(moment, usegmt=True)


async def _pieces(
    answer: Answer, exchange: Exchange, start: int | None = None, stop: int | None = None
) -> AsyncIterator[bytes]:
    end = answer.stop if stop is None else stop
    for at in range(answer.start if start is None else start, end, PIECE):
        if exchange.closed:
            return
        yield part(answer, at, min(at + PIECE, end))


async def _send_part(exchange: Exchange, answer: Answer, after: float) -> int:
    """Head with the full length, and the body up to ``after``; gives where it stopped."""
    length = answer.stop - answer.start
    part = min(length, int(after * length) if after < 1 else int(after))
    exchange.head(answer.status, [*answer.headers, ("Content-Length", str(length))])
    async for chunk in _pieces(answer, exchange, stop=answer.start + part):
        await exchange.write(chunk)
    return answer.start + part


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
