"""Which URLs may be requested at all, where credentials go, and how a URL may be shown.

Upstream's text decides nothing here: a URL from a page, or from a redirect, is requested only when its scheme and host
are among those configured.  Credentials stand in the configuration only, are sent to the origin they were configured
for and to no other, and are in no message.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from heliostat.errors import Invalid, Refused

#: The longest URL that is requested; common servers refuse longer ones.
MAX_URL = 8000
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Nearly every URL: nothing in it that could be read in two ways.
_SIMPLE = re.compile(r"(?:/(?!\.)[A-Za-z0-9._+~-]*)+")
_PLAIN = re.compile(r"[!#-;=?-\[\]_a-z~]*")
_SAFE = "!#$%&'()*+,-./:;=?@[]_~"
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE,
)
#: A dot segment in any spelling; and encoded control characters or backslashes.
_HOSTILE_PATH = re.compile(
    r"(?:/|%2f)(?:\.|%2e){1,2}(?=/|%2f|;|\Z)|%[01][0-9a-f]|%7f|%5c|%(?![0-9a-f]{2})", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=//)[^/?#]*@")


class Checked(str):
    """A URL as :meth:`UrlPolicy.check` returned it: it need not be checked again."""

    __slots__ = ()


class Origin(NamedTuple):
    """Scheme, host in lower case, and port of a URL (RFC 6454)."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Source:
    """One upstream: its base URL without credentials, and the header that carries them."""

    base: str
    origin: Origin
    authorization: str | None


def source(url: str) -> Source:
    """A configured base URL; raises Refused."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused("URL", redacted(url), "not a URL") from None
    _, found, host = parts.netloc.rpartition("@")
    base = f"{parts.scheme}://{host}{parts.path}".rstrip("/")
    authorization = None
    if found:
        authorization = basic_authorization(unquote(parts.username or ""), unquote(parts.password or ""))
    return Source(base, _split(base, base)[0], authorization)


def basic_authorization(user: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def redacted(url: str) -> str:
    """``url`` fit for a message: neither credentials nor query (which may hold a signature)."""
    shown = _USERINFO.sub("", url, count=1)
    head, query, _ = shown.partition("?")
    return head.partition("#")[0] + "?..." if query else shown


def origin_of(url: str) -> Origin:
    """The origin of a URL that was checked before."""
    return _split(url, url)[0]


def _split(url: str, shown: str) -> tuple[Origin, str, str]:
    found = _URL.fullmatch(url)
    if not found:
        raise Refused("URL", redacted(shown), "not an absolute http or https URL without credentials")
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise Refused("URL", redacted(shown), "no such port")
    return Origin(scheme, found["host"].lower(), port), found["path"] or "/", found["query"] or ""


class UrlPolicy:
    """Scheme and host policy of one upstream, and the credentials of its origins."""

    def __init__(self, sources: Iterable[Source], file_hosts: Iterable[str], *, allow_http: bool) -> None:
        self._schemes = ("https", "http") if allow_http else ("https",)
        self._allowed: set[Origin] = set()
        #: Scheme, host and port of URLs that were found to be allowed, as they are written in the normal form.
        self._known: set[str] = set()
        self._authorization: dict[Origin, str] = {}
        for one in sources:
            self._allow(one.origin.host, one.origin.port)
            if one.authorization:
                self._authorization[one.origin] = one.authorization
        for entry in file_hosts:
            host, colon, port = entry.rpartition(":")
            if colon and port.isdigit():
                self._allow(host.lower(), int(port))
            else:
                self._allow(entry.lower(), None)

    def _allow(self, host: str, port: int | None) -> None:
        for scheme in self._schemes:
            self._allowed.add(Origin(scheme, host, port or _DEFAULT_PORTS[scheme]))

    def check(self, url: str) -> Checked:
        """``url`` as it may be requested: absolute, quoted, without fragment; one that was checked before is itself.

        Raises Refused for another scheme or host than those configured, for credentials, and for dot segments,
        backslashes and control characters in whatever spelling.
        """
        if isinstance(url, Checked):
            return url
        path = url.find("/", 8)
        if url[:path] in self._known and len(url) <= MAX_URL and _SIMPLE.fullmatch(url, path):
            return Checked(url)
        checked, origin = self._checked(url)
        if len(self._known) <= len(self._allowed):
            self._known.add(_start(origin))
        return Checked(checked)

    def _checked(self, url: str) -> tuple[str, Origin]:
        if _FORBIDDEN.search(url):
            raise Refused("URL", redacted(url), "holds a backslash or a control character")
        if len(url) > MAX_URL:
            raise Refused("URL", redacted(url), f"longer than {MAX_URL} characters")
        origin, path, query = _split(url if _PLAIN.fullmatch(url) else _quoted(url), url)
        if ("%" in path or "/." in path) and _HOSTILE_PATH.search(path):
            raise Refused("URL", redacted(url), "a path with dot segments or encoded control characters")
        if origin.scheme not in self._schemes:
            raise Refused("URL", redacted(url), "not encrypted, and [upstream] allow-http is off")
        if origin not in self._allowed:
            raise Refused("URL", redacted(url), "on a host that is neither upstream's own nor in [upstream] file-hosts")
        return f"{_start(origin)}{path}{query}", origin

    def authorization(self, url: str) -> str | None:
        """The Authorization header for ``url``: that of its own origin, if credentials are configured for it."""
        return self._authorization.get(origin_of(url)) if self._authorization else None

    def redirect(self, url: str, location: str) -> str:
        """Where ``url`` may be redirected to; raises Invalid for what a first URL may not be, and for https to http.

        Not Refused: what redirects everything is often a gateway on the way, and gone tomorrow.
        """
        try:
            target, origin = self._checked(urljoin(url, location))
        except Refused as refused:
            raise Invalid(redacted(url), f"redirected elsewhere: {refused}") from None
        except ValueError:
            raise Invalid(redacted(url), "redirected to something that is not a URL") from None
        if url.startswith("https:") and origin.scheme != "https":
            raise Invalid(redacted(url), f"redirected from https to http: {redacted(target)}")
        return target


def _start(origin: Origin) -> str:
    port = "" if origin.port == _DEFAULT_PORTS[origin.scheme] else f":{origin.port}"
    return f"{origin.scheme}://{origin.host}{port}"


def _quoted(url: str) -> str:
    try:
        return quote(url, safe=_SAFE)
    except UnicodeEncodeError:
        raise Refused("URL", redacted(url), "not encodable as UTF-8") from None
