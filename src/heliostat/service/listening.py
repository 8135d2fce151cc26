"""Where the daemon's HTTP endpoint can be reached: addresses that are opened, and changed by a reload."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Self

from heliostat.config import Config
from heliostat.config.addresses import host_and_port
from heliostat.errors import ConfigError
from heliostat.service.daemon import Daemon

if TYPE_CHECKING:
    from aiohttp import web

    from heliostat.service.connections import Bounds, Connections

log = logging.getLogger(__name__)
#: For the owner and the group of the daemon: a web server in that group may ask.
_SOCKET_MODE = 0o660

Routes = Callable[[], Iterable["web.AbstractRouteDef"]]


@contextlib.asynccontextmanager
async def listening(daemon: Daemon, extra_routes: Routes = tuple, bounds: Bounds | None = None) -> AsyncIterator[None]:
    """While this is open the endpoint answers on the configured addresses; a reload opens and closes some of them.

    ``extra_routes`` is asked once, when the first address is opened.  Raises ConfigError for an address that cannot be
    listened on; at a reload that is told in its result, and everything else stays.
    """
    async with _Doors(daemon, extra_routes, bounds) as doors:
        for address in daemon.config.service.listen:
            try:
                await doors.open(address)
            except OSError as error:
                raise ConfigError([f"{daemon.config.source}: [service] listen: {_explain(address, error)}"]) from error

        async def follow(config: Config) -> None:
            await doors.follow(config.service.listen)

        daemon.after_reload.append(follow)
        try:
            yield
        finally:
            daemon.after_reload.remove(follow)


class _Doors:
    """The open addresses of one application, which is made when the first one is opened."""

    def __init__(self, daemon: Daemon, extra_routes: Routes, bounds: Bounds | None) -> None:
        self._daemon, self._extra_routes, self._bounds = daemon, extra_routes, bounds
        self._runner: web.AppRunner | None = None
        #: Makes what counts the connections of one address.
        self._counting: Callable[[], Connections] | None = None
        self._open: dict[str, asyncio.Server] = {}
        #: The files of those that are sockets in the file system.
        self._sockets: dict[str, os.stat_result] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for address in list(self._open):
            self.close(address)
        if self._runner is not None:
            await self._runner.cleanup()

    async def follow(self, addresses: tuple[str, ...]) -> None:
        """Those that are new are opened, those that are not wanted any more closed, and the others left alone.

        Raises ConfigError, after all of it, for those that cannot be opened.
        """
        problems: list[str] = []
        for address in [one for one in self._open if one not in addresses]:
            self.close(address)
        for address in [one for one in addresses if one not in self._open]:
            try:
                await self.open(address)
            except OSError as error:
                problems.append(f"[service] listen: {_explain(address, error)}")
        if problems:
            raise ConfigError(problems)

    async def open(self, address: str) -> None:
        """Raises OSError."""
        if self._counting is None:
            self._counting = await self._prepare()
        loop, connection = asyncio.get_running_loop(), self._counting()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            self._open[address] = await _open_socket(path, connection)
            self._sockets[address] = os.lstat(path)
            log.info("listening on %s", address)
            return
        host, port = _parts(address)
        self._open[address] = opened = await loop.create_server(connection, host, port, reuse_address=True)
        log.info("listening on http://%s", _shown(opened.sockets[0]))

    async def _prepare(self) -> Callable[[], Connections]:
        # All that only a daemon with an address needs.
        from aiohttp import web

        from heliostat.service.connections import Bounds, Connections
        from heliostat.service.endpoint import create_endpoint

        runner = web.AppRunner(create_endpoint(self._daemon, self._extra_routes()), shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None
        self._runner = runner
        return functools.partial(Connections, runner.server, self._bounds or Bounds())

    def close(self, address: str) -> None:
        self._open.pop(address).close()
        if (ours := self._sockets.pop(address, None)) is not None:
            path = address.removeprefix("unix:")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), ours):  # somebody may have put something else there
                    os.unlink(path)
        log.info("not listening on %s any more", address)


async def _open_socket(path: str, connection: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """A socket in the file system; one that nobody listens on any more is replaced.  Raises OSError."""
    await asyncio.to_thread(_clear, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(path)
        os.chmod(path, _SOCKET_MODE)  # nobody can connect yet: it does not listen
    except OSError:
        listener.close()
        raise
    return await asyncio.get_running_loop().create_unix_server(connection, sock=listener)


def _clear(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(1.0)
        try:
            other.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _parts(address: str) -> tuple[str, int]:
    parts = host_and_port(address)
    assert parts is not None, address  # the configuration was checked
    return parts


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explain(address: str, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno and error.errno != errno.EEXIST else error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{address}: another process listens there already; end it, or choose another address"
    return f"cannot listen on {address}: {reason}; correct it, or leave it out"
