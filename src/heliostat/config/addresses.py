"""How addresses are read: URLs of indexes and sites, hosts, and what is listened on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from heliostat.config.problems import Problem, without_credentials
from heliostat.config.values import list_of, text
from heliostat.errors import printable


def url(value: Any, environ: Mapping[str, str]) -> str:
    """The base of an index or a proxy: http or https, no query, no fragment, no slash at the end.

    It may hold credentials, so messages show only what stands behind them.
    """
    full = text(value, environ)
    place = printable(without_credentials(full))
    try:
        parts = urlsplit(full)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote credentials
        usable = False
    if not usable or parts.scheme not in ("http", "https") or any(char in full for char in ' \\<>"^`{|}'):
        raise Problem(f"{place} is not an http or https URL; write it like https://index.example")
    if "?" in full or "#" in full:
        raise Problem(f"{place} has a query or a fragment; write the base address only")
    if "@" in parts.path:
        raise Problem(f"{place} has an @ in its path; write it as %40, and / in a password as %2F")
    return full.rstrip("/")


def index_url(value: Any, environ: Mapping[str, str]) -> str:
    full = url(value, environ)
    if full.endswith("/simple"):
        raise Problem(f"{printable(without_credentials(full))} is the Simple index itself; leave out /simple")
    return full


def index_urls(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One URL, or a list of URLs of the same index."""
    urls = tuple(list_of(index_url)(value if isinstance(value, list) else [value], environ))
    if not urls:
        raise Problem("is an empty list; name at least one URL")
    if len(set(urls)) != len(urls):
        raise Problem("names one URL twice; remove one of them")
    return urls


def ping_urls(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Addresses that pings go to, each once, each with a path."""

    def ping_url(value: Any, environ: Mapping[str, str]) -> str:
        full = url(value, environ)
        if not urlsplit(full).path:
            place = printable(without_credentials(full))
            raise Problem(f"{place} has no path; write where pings go, such as http://mirror.example:8080/ping")
        return full

    urls = tuple(list_of(ping_url)(value, environ))
    if len(set(urls)) != len(urls):
        raise Problem("names one address twice; remove one of them")
    return urls


#: Nothing in it needs quotes, wherever it is printed.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(?:/[A-Za-z0-9._~%+/-]*)?", re.ASCII)


def is_plain_url(url: str) -> bool:
    """Whether a URL may stand in a published list: http or https, no credentials, nothing that a shell would read."""
    return bool(_PLAIN_URL.fullmatch(url))


def is_this_machine(url: str) -> bool:
    """Whether a URL leads to a loopback address."""
    import ipaddress

    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def site_url(value: Any, environ: Mapping[str, str], *, allow_http: bool) -> str:
    """The base of a mirror that is published in a list; what is on this machine may do without encryption."""
    full = index_url(value, environ)
    place = printable(without_credentials(full))
    if not is_plain_url(full):
        raise Problem(f"{place} cannot be published; write it without credentials and special characters")
    if full.startswith("http:") and not (allow_http or is_this_machine(full)):
        raise Problem(f"{place} is not encrypted; use https, or set [upstream] allow-http = true")
    return full


def host(value: Any, environ: Mapping[str, str]) -> str:
    """``host`` or ``host:port`` in lower case."""
    full = text(value, environ).lower()
    found = re.fullmatch(r"([a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", full, re.ASCII)
    if not found or int(found[2] or 1) not in range(1, 65536):
        raise Problem(f"{printable(full)} is not a host; write host or host:port, without https://")
    return full


def listening(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One address to listen on, or a list of them: ``IP:PORT``, or ``unix:`` and an absolute path."""
    found = tuple(list_of(_address)(value if isinstance(value, list) else [value], environ))
    if len(set(found)) != len(found):
        raise Problem("names one address twice; remove one of them")
    return found


def _address(value: Any, environ: Mapping[str, str]) -> str:
    full = text(value, environ)
    if full.startswith("unix:"):
        if not full.startswith("unix:/") or len(full.encode()) > 5 + 107 or full.endswith("/"):  # see unix(7)
            raise Problem(f"{printable(full)} is no socket; write unix: and an absolute path of at most 107 bytes")
        return full
    if host_and_port(full) is None:
        raise Problem(f"{printable(full)} is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock")
    return full


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of ``IP:PORT``, with an IPv6 address in brackets; None when it is none."""
    import ipaddress

    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", address, re.ASCII)
    if not found or int(found[3]) > 65535:
        return None
    try:
        return str(ipaddress.ip_address(found[1] or found[2])), int(found[3])
    except ValueError:
        return None


def is_public(address: str) -> bool:
    """Whether others than this machine can reach what listens there."""
    import ipaddress

    parts = host_and_port(address)
    return parts is not None and not ipaddress.ip_address(parts[0]).is_loopback
