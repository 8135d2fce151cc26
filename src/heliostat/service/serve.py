"""``heliostat serve``: a small static server of the web root, for trying things out.

It answers as ``configs/nginx.conf`` does: index pages by negotiation (PEP 691), ranges and conditional requests, other
spellings of a name redirected, 404 for everything else and never 403.  It sends nothing that lies outside the web
root, whatever the path or a symbolic link says, and lists no directory.  It does not compress, and every file passes
through Python: nginx is for production.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import stat
from collections.abc import Callable

import aiofiles.threadpool
from aiohttp import web

from heliostat.errors import ConfigError
from heliostat.service.conditional import answer
from heliostat.service.routes import Found, Redirect, clean_path, route

log = logging.getLogger(__name__)
#: One line a request, level INFO.
access_log = logging.getLogger(__name__ + ".access")

_BATCH = 256 * 1024
#: Seconds that requests in flight get after the stop.
_GRACE = 2.0
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in the tree must not hang us
_COMMON = {"Server": "heliostat"}


def create_static_app(web_root: str) -> web.Application:
    """An application that answers every path from the files in ``web_root``, read afresh for each request."""
    real_root = os.path.realpath(web_root)

    async def handle(request: web.Request) -> web.StreamResponse:
        path = clean_path(request.rel_url.raw_path)
        if path is None:
            return _say(400, "Bad Request")
        found = route(path, query=request.rel_url.raw_query_string, accept=_accept(request))
        if isinstance(found, Redirect):
            return _say(301, "Moved Permanently", Location=found.location)
        file = await asyncio.to_thread(_open_inside, real_root, found.path) if found else None
        if found is None or file is None:
            return _say(404, "Not Found")
        try:
            if request.method not in ("GET", "HEAD"):
                return _say(405, "Method Not Allowed", Allow="GET, HEAD")
            return await _send(request, found, file)
        finally:
            await asyncio.to_thread(file.close)

    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", handle)
    return app


async def run_static_server(
    web_root: str, *, host: str, port: int, stop: asyncio.Event, started: Callable[[str], None] | None = None
) -> None:
    """Serve ``web_root`` until ``stop`` is set; ``started`` is told the URL (with the real port when ``port`` is 0).

    Raises ConfigError when there is no such directory or the address cannot be listened on.
    """
    if not os.path.isdir(web_root):
        raise ConfigError([f"{web_root}: no such directory (mirror something first)"])
    runner = web.AppRunner(create_static_app(web_root), access_log=access_log, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError([f"cannot listen on {host} port {port}: {error.strerror or error}"]) from error
        url = _url(runner.addresses[0])
        log.info("serving %s at %s; this is for trying things out, nginx is for production", web_root, url)
        if started is not None:
            started(url)
        await stop.wait()
    finally:
        await runner.cleanup()


def _url(address: tuple[str | int, ...]) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}/" if ":" in str(host) else f"http://{host}:{port}/"


def _accept(request: web.Request) -> str | None:
    return ",".join(request.headers.getall("Accept", [])) or None


def _say(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=f"{status} {text}\n", headers=_COMMON | headers)


def _open_inside(real_root: str, path: str) -> io.FileIO | None:
    """The regular file at ``path`` below the root, symbolic links followed as long as they stay below it, or None."""
    try:
        real = os.path.realpath(real_root + path, strict=True)
        if path.endswith("/") or not real.startswith(real_root.rstrip("/") + "/"):
            return None
        descriptor = os.open(real, _OPEN_FLAGS)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return io.FileIO(descriptor)


async def _send(request: web.Request, found: Found, file: io.FileIO) -> web.StreamResponse:
    status = os.fstat(file.fileno())
    part = answer(request.headers, size=status.st_size, mtime=status.st_mtime)
    response = web.StreamResponse(status=part.status, headers=_COMMON | part.headers)
    response.headers["Cache-Control"] = found.cache_control
    response.headers["Access-Control-Allow-Origin"] = "*"
    if found.vary:
        response.headers["Vary"] = found.vary
    if part.status != 304:
        response.headers["Content-Type"] = found.content_type
        response.content_length = part.length
    await response.prepare(request)
    if request.method == "GET":
        reader = aiofiles.threadpool.wrap(file)  # reads off the event loop
        await reader.seek(part.start)
        left = part.length
        while left and (batch := await reader.read(min(left, _BATCH))):
            await response.write(batch)
            left -= len(batch)
    await response.write_eof()
    return response
