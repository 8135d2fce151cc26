"""The one HTTP session: connections, proxies, who we say we are, and one request after another with its redirects."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import re
import urllib.request
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

import aiohttp
from yarl import URL

from heliostat.config import UpstreamConfig
from heliostat.errors import ConfigError, FeedUnsupported, Invalid, UpstreamError
from heliostat.upstream import body, faults
from heliostat.upstream.channel import Channel
from heliostat.upstream.clock import Clock
from heliostat.upstream.gate import Permit
from heliostat.upstream.response import Response
from heliostat.upstream.traffic import Kind, Traffic
from heliostat.upstream.urls import Origin, UrlPolicy, basic_authorization, origin_of, redacted

#: Redirects that one request follows.
MOST_REDIRECTS = 5
#: A connection that was idle for so long is not used again (seconds): servers close them, some without a word.
_KEPT: Final = 15.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Rests of uninteresting bodies up to this size are read, to keep the connection.
_DRAINED = 64 << 10
_LOOPBACK = ("localhost", "127.", "[::1]")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Tally(Protocol):
    """Whoever counts what is sent."""

    requests: int
    retries: int


@dataclass
class OwnTally:
    """A tally for those who bring none."""

    requests: int = 0
    retries: int = 0


def user_agent(version: str, contact: str | None) -> str:
    """Who we are, as the public index asks for: program, version, and whom to write to."""
    python = f"{platform.python_implementation().lower()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    library = f"aiohttp {aiohttp.__version__}" + (f"; {contact}" if contact else "")
    return f"heliostat/{version} ({python}; {system}) ({library})"


class Proxy(NamedTuple):
    """A proxy's URL without credentials, and the Proxy-Authorization header."""

    url: URL
    authorization: str | None


class Proxies:
    """Which proxy a request takes: the configured one, or what the environment's variables say.

    The variables are read once, not at each request.  Loopback addresses never use the environment's proxy.
    """

    def __init__(self, configured: str | None, environment: Mapping[str, str]) -> None:
        self._configured = _proxy(configured) if configured else None
        self._environment = {key: value for key, value in environment.items() if key in ("http", "https", "no")}
        self._by_scheme = {key: _proxy(value) for key, value in self._environment.items() if key != "no" and value}
        self._known: dict[Origin, Proxy | None] = {}
        self.any = self._configured is not None or bool(self._by_scheme)

    @classmethod
    def from_environment(cls, configured: str | None) -> Self:
        return cls(configured, urllib.request.getproxies_environment())

    def choose(self, origin: Origin) -> Proxy | None:
        """The proxy for requests to ``origin``, or None."""
        if self._configured is not None:
            return self._configured
        if origin not in self._known:
            found = self._by_scheme.get(origin.scheme)
            bypassed = origin.host.startswith(_LOOPBACK) or urllib.request.proxy_bypass(
                f"{origin.host}:{origin.port}", self._environment
            )
            self._known[origin] = None if bypassed else found
        return self._known[origin]


def _proxy(value: str) -> Proxy:
    """A proxy from its URL; raises ConfigError, without the credentials that it may hold."""
    text = value if "://" in value else f"http://{value}"
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError([f"proxy {redacted(text)} cannot be used; it must be an http or https URL"])
    header = basic_authorization(url.user or "", url.password or "") if url.user or url.password else None
    return Proxy(url.with_user(None), header)


class _Endpoint(NamedTuple):
    """What all requests to one scheme, host and port have in common."""

    #: The scheme, host and port, for aiohttp; and in front of the target, where a proxy must be told them.
    url: URL
    prefix: str
    #: Header lines that every request has.
    headers: str
    proxy: Proxy | None
    idle: list[Channel]


class Session:
    """Sends requests; use as ``async with``.  Every method raises UpstreamError."""

    def __init__(
        self,
        config: UpstreamConfig,
        policy: UrlPolicy,
        *,
        version: str,
        tally: Tally,
        clock: Clock,
        traffic: Traffic,
    ) -> None:
        self.policy, self.clock, self._tally, self.traffic = policy, clock, tally, traffic
        self.connect_timeout, self.stall_timeout = config.connect_timeout, config.stall_timeout
        self.metadata_timeout = config.metadata_timeout
        self._agent = user_agent(version, config.contact)
        self._proxies = Proxies.from_environment(config.proxy)
        #: Permits bound the requests; this is only to notice if ever they did not.
        self._connections = config.metadata_at_once + config.files_at_once
        if len(config.url) > 1:  # idle ones to a source that was left count, too
            self._connections *= len(config.url) + len(config.file_hosts)
        self._opening = aiohttp.ClientTimeout(
            connect=self.connect_timeout, sock_connect=self.connect_timeout, sock_read=self.stall_timeout
        )
        self._endpoints: dict[str, _Endpoint] = {}
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for endpoint in self._endpoints.values():
            for channel in endpoint.idle:
                channel.close()
        self._endpoints.clear()
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def send(
        self,
        permit: Permit,
        url: str,
        headers: str,
        *,
        kind: Kind,
        accept: Collection[int],
        total: float | None,
        call: bytes | None = None,
        head: bool = False,
    ) -> Response:
        """The answer to a request for ``url`` (checked before), after at most five redirects, each checked.

        ``headers`` are from :func:`header_lines`; with a ``call`` it is a POST, with ``head`` a HEAD.
        Its status is one of ``accept``; the caller closes it.  Each exchange may take
        ``total`` seconds, its body included.  It is counted as one of its ``kind``.
        """
        traffic, clock = self.traffic, self.clock
        for _ in range(MOST_REDIRECTS + 1):
            begun = clock.now()
            try:
                response = await self._one(url, headers, total, call, head=head)
            except UpstreamError as error:
                traffic.failed(kind, error)
                raise
            traffic.answered(kind, response.status, permit.answered() - begun)
            if response.status in accept:
                return response
            try:
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or location is None:
                    raise faults.from_status(response.status, response.headers, url, self.clock.wall())
                if call is not None and response.status == 303:
                    raise Invalid(redacted(url), "redirected a POST to a page")
                url = self.policy.redirect(url, location)
            finally:
                await self._drain(response)
        raise Invalid(redacted(url), f"more than {MOST_REDIRECTS} redirects")

    @contextlib.contextmanager
    def counting(self, kind: Kind, permit: Permit) -> Iterator[None]:
        """Around what is made of an answer: counts its bytes, and what turns out to be wrong with it."""
        try:
            yield
        except FeedUnsupported:  # there is none: that is not wrong
            raise
        except UpstreamError as error:
            self.traffic.broke(kind, error)
            raise
        finally:
            self.traffic.received[kind] += permit.received

    async def _one(self, url: str, headers: str, total: float | None, call: bytes | None, *, head: bool) -> Response:
        """One exchange; once more when it turns out that the server closed an idle connection meanwhile."""
        assert self._http is not None, "used outside of async with"
        self._tally.requests += 1
        try:
            endpoint, target = self._endpoint(url)
            request = _request(endpoint, target, headers, call, head=head)
            while True:
                channel = self._idle(endpoint)
                if channel is None:
                    return await (await self._open(endpoint)).exchange(request, total=total, bodiless=head)
                try:
                    return await channel.exchange(request, total=total, bodiless=head)
                except faults.FAULTS:
                    if not channel.was_stale:
                        raise
        except faults.FAULTS as error:
            raise self.fault(url, error, total) from None

    def _endpoint(self, url: str) -> tuple[_Endpoint, str]:
        """Where to send a request for ``url``, and what to ask for there."""
        slash = url.find("/", 8)
        start, target = url[:slash], url[slash:]
        known = self._endpoints.get(start)
        if known is None:
            known = self._endpoints[start] = self._new_endpoint(start)
        return known, target

    def _new_endpoint(self, start: str) -> _Endpoint:
        origin = origin_of(start)
        headers = {"Host": start.partition("://")[2], "User-Agent": self._agent}
        if authorization := self.policy.authorization(start + "/"):
            headers["Authorization"] = authorization
        proxy = self._proxies.choose(origin) if self._proxies.any else None
        prefix = start if proxy is not None and origin.scheme == "http" else ""
        if prefix and proxy is not None and proxy.authorization:
            # Over TLS it goes with the CONNECT; here with the request itself, which the proxy reads.
            headers["Proxy-Authorization"] = proxy.authorization
        return _Endpoint(URL(start, encoded=True), prefix, header_lines(headers), proxy, [])

    def _idle(self, endpoint: _Endpoint) -> Channel | None:
        """A connection that is still good, the one used last; older ones are left to die."""
        while endpoint.idle:
            channel = endpoint.idle.pop()
            if channel.usable and self._loop.time() - channel.idle_since < _KEPT:
                return channel
            channel.close()
        return None

    async def _open(self, endpoint: _Endpoint) -> Channel:
        """A new connection, as aiohttp makes them: names, several addresses, TLS, proxies."""
        assert self._http is not None
        assert self._http.connector is not None
        proxy = endpoint.proxy
        tunnel = {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else None
        asked = aiohttp.ClientRequest(
            "GET",
            endpoint.url,
            loop=self._loop,
            session=self._http,
            proxy=proxy.url if proxy else None,
            proxy_headers=tunnel if tunnel and endpoint.url.scheme == "https" else None,
        )
        try:
            connection = await self._http.connector.connect(asked, traces=[], timeout=self._opening)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        return Channel(connection, stall=self.stall_timeout, idle=endpoint.idle.append, loop=self._loop)

    async def read(self, response: Response, permit: Permit, url: str, limit: int) -> AsyncIterator[bytes]:
        """The body of a metadata answer, unpacked, in pieces; raises Invalid above ``limit`` bytes."""
        try:
            async for piece in body.pieces(response, url, limit):
                permit.received += len(piece)
                yield piece
        except UpstreamError:
            raise
        except faults.FAULTS as error:
            raise self.fault(url, error, self.metadata_timeout) from None

    async def whole(self, response: Response, permit: Permit, url: str, limit: int) -> bytes:
        """The same in one piece."""
        length = response.content_length
        if length is None or length > limit or response.headers.get("content-encoding"):
            parts = [piece async for piece in self.read(response, permit, url, limit)]
            return parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            parts = [await response.read()]
            while not response.at_end:
                parts.append(await response.read())
        except faults.FAULTS as error:
            raise self.fault(url, error, self.metadata_timeout) from None
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        permit.received += len(content)
        return content

    def fault(self, url: str, error: Exception, total: float | None) -> Exception:
        """Our error for what a request or a body raised (see faults.FAULTS).

        The other one stays its context, but without its frames: they hold what came of the body.
        """
        inner: BaseException | None = error
        while inner is not None and inner.__traceback__ is not None:
            inner.__traceback__ = None
            inner = inner.__context__
        return faults.from_exception(url, error, connect=self.connect_timeout, stall=self.stall_timeout, total=total)

    async def _drain(self, response: Response) -> None:
        """Read the small body of an answer that is not wanted, so that its connection can be used again."""
        length = response.content_length
        try:
            if length is not None and length <= _DRAINED:
                while await response.read():
                    pass
        except faults.FAULTS:
            pass
        finally:
            response.close()


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they are sent; raises Invalid for one with control characters, which could become two."""
    for name, value in headers.items():
        if _UNFIT.search(value):
            raise Invalid(name, "not a header that can be sent: it holds control characters")
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _request(endpoint: _Endpoint, target: str, headers: str, call: bytes | None, *, head: bool) -> bytes:
    """A request, byte for byte (RFC 9112, 3)."""
    if call is None:
        method = "HEAD" if head else "GET"
        return f"{method} {endpoint.prefix}{target} HTTP/1.1\r\n{endpoint.headers}{headers}\r\n".encode()
    lines = f"{endpoint.headers}{headers}Content-Length: {len(call)}\r\n"
    return f"POST {endpoint.prefix}{target} HTTP/1.1\r\n{lines}\r\n".encode() + call
