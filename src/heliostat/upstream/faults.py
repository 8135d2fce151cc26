"""What HTTP and aiohttp report becomes one of heliostat's errors, with a reason that an operator understands."""

from __future__ import annotations

import os
import ssl
from typing import Protocol

import aiohttp

from heliostat.errors import Invalid, Missing, RateLimited, Unavailable, UpstreamError
from heliostat.upstream import retry
from heliostat.upstream.urls import redacted

#: What aiohttp and the channel raise for a request or a body; everything else is a bug.
FAULTS = (aiohttp.ClientError, TimeoutError, OSError, ValueError, RuntimeError)


class NotHttp(aiohttp.ClientError):
    """What came is not an HTTP answer: in which ``part`` (head, chunk), and why."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part, self.reason = part, reason


class Lookup(Protocol):
    """The headers of an answer, by their names in lower case."""

    def get(self, name: str) -> str | None: ...


class TimedOut(Unavailable):
    """No answer, or no further byte, in time; a sign of overload when it happens to many."""


class NotConnected(Unavailable):
    """No connection: refused, no such name, no TLS."""


def from_exception(url: str, error: Exception, *, connect: float, stall: float, total: float | None) -> UpstreamError:
    """Our error for what aiohttp raised about ``url``; the limits are those of the request, in seconds.

    Something that cannot come from the network is raised as it is.
    """
    url = redacted(url)
    match error:
        case aiohttp.SocketTimeoutError():
            return TimedOut(url, f"stalled: no byte for {stall:g} s")
        case aiohttp.ServerTimeoutError():
            return TimedOut(url, f"no connection within {connect:g} s")
        case TimeoutError():
            return TimedOut(url, f"not complete after {total:g} s" if total else "timed out")
        case aiohttp.ClientConnectorDNSError():
            return NotConnected(url, f"cannot connect to {error.host}: the name does not resolve")
        case aiohttp.ClientConnectorCertificateError():
            return NotConnected(url, f"cannot connect to {error.host}: certificate not accepted ({_tls(error)})")
        case aiohttp.ClientConnectorSSLError():
            return NotConnected(url, f"cannot connect to {error.host}: TLS failed ({_tls(error.os_error)})")
        case aiohttp.ClientProxyConnectionError():
            return NotConnected(url, f"cannot connect to the proxy {error.host}: {_os_reason(error.os_error)}")
        case aiohttp.ClientConnectorError():
            return NotConnected(url, f"cannot connect to {error.host}: {_os_reason(error.os_error)}")
        case aiohttp.ClientHttpProxyError():
            return Unavailable(url, f"the proxy refused with status {error.status}")
        case aiohttp.ServerDisconnectedError():
            return Unavailable(url, "the connection was closed before an answer came")
        case aiohttp.ClientPayloadError():
            return Unavailable(url, "the body was cut short, or garbled on the way")
        case aiohttp.InvalidURL() | ValueError():  # the second: a host that no resolver takes
            return Invalid(url, "not a URL that can be requested")
        case NotHttp(part="chunk"):
            return Unavailable(url, "the body was cut short, or garbled on the way")
        case NotHttp():
            return Invalid(url, f"the answer is not HTTP ({error.reason})")
        case aiohttp.ClientResponseError():
            return Invalid(url, f"the answer is not HTTP ({type(error).__name__})")
        case aiohttp.ClientConnectionError() | OSError():
            return Unavailable(url, f"the connection was lost: {_os_reason(error)}")
        case aiohttp.ClientError():
            return Unavailable(url, f"the request failed ({type(error).__name__})")
        case RuntimeError() if str(error) == "Connection closed.":  # read after the connection was lost
            return Unavailable(url, "the body was cut short")
    raise error


def _tls(error: BaseException) -> str:
    inner = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    reason = getattr(inner, "verify_message", None) or getattr(inner, "reason", None)
    return str(reason or (type(inner).__name__ if isinstance(inner, ssl.SSLError) else "handshake"))


def _os_reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else "no reason given"


def from_status(status: int, headers: Lookup, url: str, now: float) -> UpstreamError:
    """Our error for an answer whose status is not one that was asked for; ``now`` is the time of day in seconds."""
    url = redacted(url)
    if status in (404, 410):
        return Missing(url, f"status {status}")
    asked = retry.retry_after(headers.get("retry-after"), headers.get("date"), now)
    if status == 429 or (status == 503 and asked is not None):
        wait = "" if asked is None else f", asks to wait {asked:g} s"
        return RateLimited(url, f"too many requests (status {status}{wait})", status=status, retry_after=asked)
    if 200 <= status < 400:
        return Invalid(url, f"status {status}, which was not asked for")
    return Unavailable(url, f"status {status}", status=status, retry_after=asked)
