"""What the daemon tells over HTTP: metrics, health, status.  :mod:`heliostat.service.listening` has the connections."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from aiohttp import web

from heliostat.errors import HeliostatError
from heliostat.service.connections import PLAIN, Connection, plain
from heliostat.service.daemon import Daemon
from heliostat.service.figures import why_not_ready
from heliostat.service.gathering import Gathering

log = logging.getLogger(__name__)

#: Of a request's body (bytes).
_MOST_BODY = 64 << 10
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_endpoint(daemon: Daemon, extra_routes: Iterable[web.AbstractRouteDef] = ()) -> web.Application:
    """The application; ``extra_routes`` stand beside its own: ``/metrics``, ``/healthz``, ``/readyz``,
    ``/status.json``.  Other methods than theirs are answered with 405, other paths with 404.
    """
    gathering = Gathering(daemon)

    async def metrics(request: web.Request) -> web.Response:
        from heliostat.service.metrics import render

        body, kind = render(await gathering.figures(), request.headers.get("Accept"))
        return web.Response(body=body, headers=PLAIN | {"Content-Type": kind})

    async def healthz(_: web.Request) -> web.Response:
        idle, within = gathering.idle(), daemon.config.service.alive_within
        if idle > within:
            return plain(503, f"nothing moved for {idle:.0f} s, more than the {within:g} s of alive-within")
        return plain(200, "alive")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_not_ready(await gathering.figures())
        return plain(503, f"not ready: {reason}") if reason else plain(200, "ready")

    async def status(_: web.Request) -> web.Response:
        try:
            body, code = msgspec.json.encode(await gathering.status()), 200
        except HeliostatError as error:
            body, code = msgspec.json.encode({"error": str(error)}), 503
        return web.Response(body=body + b"\n", status=code, headers=PLAIN, content_type="application/json")

    app = web.Application(client_max_size=_MOST_BODY, middlewares=[_finish])
    app.on_response_prepare.append(_sign)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/status.json", status)
    app.router.add_routes(extra_routes)
    return app


@web.middleware
async def _finish(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """404, 405 and the like as one line; and one request a connection, so that what it may last is bounded."""
    if isinstance(request.protocol, Connection):
        request.protocol.head_came()
    try:
        response = await handler(request)
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        response = plain(error.status, **allowed)
    except (ConnectionError, web.RequestPayloadError) as error:  # of the client: nobody is there to be answered
        log.debug("%s %s came to nothing: %s", request.method, request.rel_url.raw_path[:200], error)
        response = plain(400)
    except Exception:
        log.exception("%s %s failed", request.method, request.rel_url.raw_path[:200])
        response = plain(500)
    response.force_close()
    return response


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    """Whatever aiohttp answers by itself does so in our words, too: its own repeat what the client said."""
    response.headers["Server"] = PLAIN["Server"]
    if isinstance(response, web.HTTPException):
        response.text = response.reason + "\n"
        response.force_close()
