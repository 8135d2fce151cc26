"""The one HTTP session: connections, proxies, who we say we are, and one request after another with its redirects."""

from __future__ import annotations

import platform
import urllib.request
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import aiohttp
from yarl import URL

from heliostat.config import UpstreamConfig
from heliostat.errors import ConfigError, Invalid, UpstreamError
from heliostat.upstream import body, faults
from heliostat.upstream.pace import Clock, Permit
from heliostat.upstream.urls import Origin, UrlPolicy, basic_authorization, origin_of, redacted

#: Redirects that one request follows.
MOST_REDIRECTS = 5
#: How much of a connection's data aiohttp holds before it stops reading (bytes; at most twice this).
READ_BUFFER: Final = 256 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Rests of uninteresting bodies up to this size are read, to keep the connection.
_DRAINED = 64 << 10
_LOOPBACK = ("localhost", "127.", "[::1]")


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


class Session:
    """Sends requests; use as ``async with``.  Every method raises UpstreamError."""

    def __init__(self, config: UpstreamConfig, policy: UrlPolicy, *, version: str, tally: Tally, clock: Clock) -> None:
        self.policy, self.clock, self._tally = policy, clock, tally
        self.connect_timeout, self.stall_timeout = config.connect_timeout, config.stall_timeout
        self._agent = user_agent(version, config.contact)
        self._proxies = Proxies.from_environment(config.proxy)
        #: Permits bound the requests; this is only to notice if ever they did not.
        self._connections = config.metadata_at_once + config.files_at_once
        self.metadata_timeout = self._timeout(config.metadata_timeout)
        self.file_timeout = self._timeout(None)
        self._http: aiohttp.ClientSession | None = None

    def _timeout(self, total: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=total,
            connect=self.connect_timeout,
            sock_connect=self.connect_timeout,
            sock_read=self.stall_timeout,
        )

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
            headers={"User-Agent": self._agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self.metadata_timeout,
            read_bufsize=READ_BUFFER,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def send(
        self,
        permit: Permit,
        url: str,
        headers: Mapping[str, str],
        *,
        accept: Collection[int],
        timeout: aiohttp.ClientTimeout,
        call: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """The answer to a request for ``url`` (checked before), after at most five redirects, each checked.

        With a ``call`` it is a POST.  Its status is one of ``accept``; the caller closes it.
        """
        for _ in range(MOST_REDIRECTS + 1):
            response = await self._one(url, headers, timeout, call)
            permit.answered()
            if response.status in accept:
                return response
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    raise faults.from_status(response, url, self.clock.wall())
                if call is not None and response.status == 303:
                    raise Invalid(redacted(url), "redirected a POST to a page")
                url = self.policy.redirect(url, location)
            finally:
                await self._drain(response)
        raise Invalid(redacted(url), f"more than {MOST_REDIRECTS} redirects")

    async def _one(
        self, url: str, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout, call: bytes | None
    ) -> aiohttp.ClientResponse:
        assert self._http is not None, "used outside of async with"
        if authorization := self.policy.authorization(url):
            headers = {**headers, "Authorization": authorization}
        options: dict[str, Any] = {}
        if self._proxies.any and (proxy := self._proxies.choose(origin_of(url))):
            options["proxy"] = proxy.url
            if proxy.authorization:
                # Over TLS it goes with the CONNECT; else with the request itself, which the proxy reads.
                own = {"Proxy-Authorization": proxy.authorization}
                if url.startswith("https:"):
                    options["proxy_headers"] = own
                else:
                    headers = {**headers, **own}
        self._tally.requests += 1
        try:
            return await self._http.request(
                "GET" if call is None else "POST",
                URL(url, encoded=True),
                data=call,
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
                **options,
            )
        except faults.FAULTS as error:
            raise self.fault(url, error, timeout) from None

    async def read(
        self, response: aiohttp.ClientResponse, permit: Permit, url: str, limit: int
    ) -> AsyncIterator[bytes]:
        """The body of a metadata answer, unpacked, in pieces; raises Invalid above ``limit`` bytes."""
        try:
            async for piece in body.pieces(response, url, limit):
                permit.received += len(piece)
                yield piece
        except UpstreamError:
            raise
        except faults.FAULTS as error:
            raise self.fault(url, error, self.metadata_timeout) from None

    def fault(self, url: str, error: Exception, timeout: aiohttp.ClientTimeout) -> Exception:
        """Our error for what a request or a body raised (see faults.FAULTS)."""
        return faults.from_exception(
            url, error, connect=self.connect_timeout, stall=self.stall_timeout, total=timeout.total
        )

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the small body of an answer that is not wanted, so that its connection can be used again."""
        length = response.content_length
        try:
            if length is not None and length <= _DRAINED and not response.content.at_eof():
                await response.content.read()
        except faults.FAULTS:
            pass
        finally:
            response.close()
