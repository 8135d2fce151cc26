"""The fake index as a server on a loopback port."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from heliostat.fakeindex.connection import Connection, Exchange
from heliostat.fakeindex.fault import Action, Fault, Pattern, matches
from heliostat.fakeindex.http import Answer, Request
from heliostat.fakeindex.index import Index
from heliostat.fakeindex.options import Options
from heliostat.fakeindex.render import Bases
from heliostat.fakeindex.routes import JSON, Site

_FILES = re.compile(r"/(simple|pypi|integrity|RPC2|_control)(/|$)")


class FakeIndex:
    """Serves an :class:`Index` from ``async with`` on until its end.

    ``port`` 0 takes a free one; with ``options.files_host`` there is a second server for the files.  ``Index.bases``
    is set to the URLs at the start, and stays so afterwards, so that a checker can still ask what was served.
    """

    def __init__(
        self,
        index: Index,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        files_port: int = 0,
        options: Options | None = None,
    ) -> None:
        self.index = index
        self.options = options or Options()
        self.site = Site(index, self.options)
        #: Requests in the order in which they came.
        self.requests: deque[Request] = deque(maxlen=self.options.log_length)
        #: Bytes of bodies by path.
        self.bytes_sent: Counter[str] = Counter()
        self.total_bytes = 0
        self.request_count = 0
        #: Requests being answered now, and the most there ever were, of ``metadata`` and of ``files``.
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self._host, self._port, self._files_port = host, port, files_port
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._random = random.Random(self.options.seed)
        self._watchers: list[tuple[Callable[[Request], bool], int, asyncio.Future[None]]] = []
        self._control: Callable[[Request], Answer] | None = None

    # -- running -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a server that was stopped takes the same ports again."""
        if self.options.control:
            from heliostat.fakeindex.control import Desk

            self._control = Desk(self).answer
        loop = asyncio.get_running_loop()
        ports = [self._port, self._files_port] if self.options.files_host else [self._port]
        taken = []
        for port in ports:
            server = await loop.create_server(self._connection, self._host, port, reuse_address=True, backlog=1024)
            self._servers.append(server)
            taken.append(server.sockets[0].getsockname()[1])
        self._port, self._files_port = taken[0], taken[-1]
        self.index.bases = Bases(self.url, self.files_url)

    async def stop(self) -> None:
        """Stop listening and drop every connection, also those that a fault holds."""
        for server in self._servers:
            server.close()
        await asyncio.gather(*(connection.abandon() for connection in list(self._connections)))
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        for fault in self.faults:
            fault.release()

    def warm(self) -> None:
        """Render every page and document and compute every digest now: nothing of it is left for a benchmark.

        Raises the number of made-up projects that are kept to all of them.
        """
        self.index.bulks.kept = max(self.index.bulks.kept, len(self.index))
        for name in self.index.projects():
            project = self.index[name]
            self.site.page(project, JSON)
            self.site.document(project)
        for accept in (JSON, "text/html"):
            self.answer(Request("GET", "/simple/", {"accept": accept}))

    @property
    def url(self) -> str:
        """Without a final slash."""
        return f"http://{self._host}:{self._port}"

    @property
    def files_url(self) -> str:
        return f"http://{self._host}:{self._files_port or self._port}"

    @property
    def files_host(self) -> str:
        """``host:port`` of the files."""
        return self.files_url.removeprefix("http://")

    # -- faults ------------------------------------------------------------------------------------------------

    def fault(
        self,
        path: Pattern,
        action: Action,
        *,
        times: int | None = None,
        skip: int = 0,
        method: str | None = None,
        delay: float = 0.0,
    ) -> Fault:
        """From now on requests for ``path`` meet ``action``: ``times`` times or for ever, after the first ``skip``.

        ``path`` is a shell pattern for the path as it is quoted in the request (``*`` also matches ``/``), a compiled
        expression, or a function of the request.  ``delay`` is in seconds.  The newest matching fault counts.
        """
        fault = Fault(self, path, action, times=times, skip=skip, method=method, delay=delay)
        action.prepare(fault)
        self.faults.insert(0, fault)
        return fault

    def clear_faults(self) -> None:
        """No faults any more; whoever hangs in one gets the ordinary answer."""
        for fault in list(self.faults):
            fault.remove()

    async def refuse_connections(self) -> None:
        """As if the server were gone: connections are refused, open ones reset, until :meth:`start`."""
        await self.stop()

    # -- watching ----------------------------------------------------------------------------------------------

    def seen(self, path: Pattern, count: int = 1) -> Awaitable[None]:
        """Something to await: until ``count`` further requests that match ``path`` have arrived."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append((lambda request: matches(path, request), count, future))
        return future

    def count(self, path: Pattern) -> int:
        """How many of the logged requests match."""
        return sum(1 for request in self.requests if matches(path, request))

    def reset_log(self) -> None:
        """Forget requests and counters."""
        self.requests.clear()
        self.bytes_sent.clear()
        self.most_in_flight.clear()
        self.total_bytes = self.request_count = 0

    # -- answering ---------------------------------------------------------------------------------------------

    def _connection(self) -> Connection:
        return Connection(self._handle, self._finished, self._connections)

    def _handle(self, request: Request, connection: Connection) -> Answer | Awaitable[None]:
        if self._control is not None and request.path.startswith("/_control/"):
            self.in_flight["control"] += 1
            return self._control(request)
        self._arrived(request)
        options = self.options
        fault = next((fault for fault in self.faults if fault.takes(request)), None) if self.faults else None
        broken = options.error_rate > 0 and self._random.random() < options.error_rate
        if fault is not None or broken or options.latency:
            return self._slowly(Exchange(connection, request), fault, broken=broken)
        return self.answer(request)

    def answer(self, request: Request) -> Answer:
        """The honest answer."""
        return self.site.conditional(request, self.site.answer(request))

    async def _slowly(self, exchange: Exchange, fault: Fault | None, *, broken: bool) -> None:
        if self.options.latency:
            await asyncio.sleep(self.options.latency)
        if fault is not None:
            await fault.carry_out(exchange)
        elif broken:
            await exchange.send(Answer(self.options.error_status, b"drawn by lot\n", (("Content-Type", "text/plain"),)))
        else:
            await exchange.send(self.answer(exchange.request))

    def _arrived(self, request: Request) -> None:
        self.request_count += 1
        if self.options.log:
            self.requests.append(request)
        kind = _kind(request)
        self.in_flight[kind] += 1
        self.most_in_flight[kind] = max(self.most_in_flight[kind], self.in_flight[kind])
        if self._watchers:
            self._tell_watchers(request)

    def _finished(self, request: Request) -> None:
        kind = _kind(request)
        self.in_flight[kind] -= 1
        if kind != "control":
            self.total_bytes += request.sent
            if self.options.log:
                self.bytes_sent[request.path] += request.sent

    def _tell_watchers(self, request: Request) -> None:
        kept = []
        for wanted, count, future in self._watchers:
            left = count - bool(wanted(request))
            if left <= 0 and not future.done():
                future.set_result(None)
            if not future.done():
                kept.append((wanted, left, future))
        self._watchers = kept


def _kind(request: Request) -> str:
    path = request.path
    if path.startswith("/_control/"):
        return "control"
    return "metadata" if _FILES.match(path) else "files"
