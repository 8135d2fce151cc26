"""``POST /ping``: whoever knows that upstream changed says so, and a poll begins at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Annotated

import msgspec
from aiohttp import web

from heliostat.errors import Refused
from heliostat.names import normalise
from heliostat.service.allowance import Allowance
from heliostat.service.daemon import Daemon
from heliostat.service.pushing import Answer
from heliostat.service.signature import SIGNATURE, TIMESTAMP, Verifier

#: Of a ping's body (bytes), and of the projects that it names.
MOST_BODY, MOST_NAMES = 64 << 10, 1000
_Name = Annotated[str, msgspec.Meta(max_length=200)]


class Ping(msgspec.Struct):
    """A ping's body; what else it holds is ignored, so that older and newer heliostats understand each other."""

    #: To be looked at whatever the change feed says.
    projects: Annotated[list[_Name], msgspec.Meta(max_length=MOST_NAMES)] = []
    #: The sender's; only for the log.
    serial: int | None = None


def ping_routes(daemon: Daemon) -> Iterable[web.AbstractRouteDef]:
    """The route, for the daemon's endpoint.  Many pings while a poll runs lead to one more, and no more."""
    pushing = daemon.health.pushing
    allowance, verifier, decoder = Allowance(), Verifier(daemon.health.started), msgspec.json.Decoder(Ping)

    async def ping(request: web.Request) -> web.Response:
        config = daemon.config.push
        if ",".join(request.headers.getall("Content-Encoding", ())).strip().lower() not in ("", "identity"):
            return answer(415, "malformed", "send the body as it is, without a Content-Encoding")
        try:
            body = await request.read() if (request.content_length or 0) <= MOST_BODY else None
        except web.HTTPRequestEntityTooLarge:
            body = None
        if body is None or len(body) > MOST_BODY:
            return answer(413, "too_large", f"a ping has at most {MOST_BODY} bytes")
        if config.secret is not None:
            headers = request.headers
            problem = verifier.problem(
                config.secret, headers.getall(TIMESTAMP, ()), headers.getall(SIGNATURE, ()), body,
                now=time.time(), window=config.window,
            )  # fmt: skip
            if problem:
                return answer(401, "unauthorised", problem)
        try:
            names = _names(decoder.decode(body) if body.strip() else Ping())
        except (msgspec.DecodeError, Refused, RecursionError) as error:
            return answer(400, "malformed", f'the body is empty, or like {{"projects": ["NAME"]}}: {error}')
        wait = allowance.take(config.pings_a_minute, time.monotonic())
        if wait:
            text = f"more than {config.pings_a_minute} pings a minute; the next poll comes anyway"
            return answer(429, "limited", text, {"Retry-After": str(math.ceil(wait))})
        if names and config.secret is None:  # anybody could have us ask upstream for thousands of projects
            daemon.poke()
            return answer(202, "accepted", "a poll begins at once; names count in signed pings only")
        daemon.poke(names)
        return answer(202, "accepted", "a poll begins at once")

    def answer(status: int, result: Answer, text: str, headers: dict[str, str] | None = None) -> web.Response:
        pushing.pings[result] = pushing.pings.get(result, 0) + 1
        return web.Response(status=status, text=text + "\n", headers={"Cache-Control": "no-store"} | (headers or {}))

    return [web.post("/ping", ping)]


def _names(ping: Ping) -> list[str]:
    """The projects named; raises Refused for the first that is none."""
    for name in ping.projects:
        normalise(name)
    return ping.projects
