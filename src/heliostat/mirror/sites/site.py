"""One site as a client: which URL, how patiently, and what it says of itself."""

from __future__ import annotations

import calendar
import dataclasses
import re
import time

import msgspec

from heliostat import __version__
from heliostat.config import DEFAULT_FILE_HOSTS, DEFAULT_UPSTREAM, UpstreamConfig
from heliostat.config.addresses import index_url, is_this_machine
from heliostat.config.problems import Problem, without_credentials
from heliostat.errors import (
    ConfigError,
    FeedUnsupported,
    Invalid,
    Missing,
    Refused,
    Unavailable,
    UpstreamError,
    printable,
)
from heliostat.upstream.client import Upstream

_TIME = "%Y%m%dT%H:%M:%S"
_MOST_TIME = 64


class Patience(msgspec.Struct, frozen=True):
    """How a site is asked: for a monitor, which wants an answer soon, or for a long work."""

    #: Seconds: for a connection and between two bytes; for one whole answer of metadata.
    stall: float = 20.0
    total: float = 120.0
    tries: int = 2
    #: Requests at once, of metadata and of files each.
    at_once: int = 8
    #: Seconds before the second try, at most.
    pause: float = 1.0


class Standing(msgspec.Struct):
    """What a site says of itself.  Times are seconds since the epoch, UTC."""

    serial: int | None = None
    #: PEP 381: when its last complete poll began.
    last_modified: float | None = None
    #: Why it gave no usable answer; then nothing else counts.
    error: str | None = None
    #: Seconds until its first answer.
    answered: float | None = None


def base_url(url: str) -> str:
    """The base of an index from what people write; ``/simple`` at its end goes.  Raises ConfigError."""
    text = re.sub(r"/simple/?\Z", "", url.strip())
    try:
        return str(index_url(text, {}))
    except Problem as problem:
        raise ConfigError([str(problem)]) from None


def client(
    url: str,
    patience: Patience,
    *,
    like: UpstreamConfig | None = None,
    allow_http: bool = False,
    file_hosts: tuple[str, ...] | None = None,
) -> Upstream:
    """A client for the index at ``url``, to be used as ``async with``.

    ``like`` lends proxy, contact and limits of size, and ``file_hosts`` unless they are given.
    Plain http must be allowed, unless it is this machine.
    Raises ConfigError.
    """
    base = base_url(url)
    plain = base.startswith("http:")
    if plain and not (allow_http or is_this_machine(base)):
        shown = printable(without_credentials(base))
        raise ConfigError([f"{shown} is not encrypted; use https, or allow it with --allow-http"])
    known = like or UpstreamConfig(url=(base,))
    hosts = file_hosts
    if hosts is None:
        hosts = DEFAULT_FILE_HOSTS if base == DEFAULT_UPSTREAM else known.file_hosts
    config = dataclasses.replace(known, url=(base,), allow_http=plain, file_hosts=hosts)
    return configured(config, patience)


def configured(upstream: UpstreamConfig, patience: Patience) -> Upstream:
    """A client for the index that a configuration names, asked with that patience."""
    config = dataclasses.replace(
        upstream, metadata_at_once=patience.at_once, files_at_once=patience.at_once, connect_timeout=patience.stall,
        stall_timeout=patience.stall, metadata_timeout=patience.total, retries=patience.tries,
        retry_delay=min(upstream.retry_delay, patience.pause), retry_delay_most=patience.pause,
    )  # fmt: skip
    return Upstream(config, version=__version__)


async def standing(site: Upstream) -> Standing:
    """Its serial, in a few small requests, and when it was complete."""
    found, began = Standing(), time.monotonic()
    try:
        found.serial = await _serial(site)
        found.answered = time.monotonic() - began
        found.last_modified = await _last_modified(site)
    except (UpstreamError, Refused) as error:
        found.error = str(error)
    return found


async def _serial(site: Upstream) -> int | None:
    """Of a heliostat the head of its feed, of the public index its journal, of others the root list's beginning."""
    try:
        answer = await site.changes_head()
        if answer is not None:
            return answer.head.serial
    except (FeedUnsupported, Invalid):
        pass
    except Unavailable as error:
        if error.status is None:
            raise
    try:
        return await site.last_serial()
    except (FeedUnsupported, Invalid):
        pass
    except Unavailable as error:
        if error.status is None:
            raise
    try:
        return await site.list_serial()
    except Missing as error:  # an index may well have no list
        raise Invalid(error.url, "no index here: neither a change feed nor a root list") from None


async def _last_modified(site: Upstream) -> float | None:
    try:
        body = await site.fetch(f"{site.base}/last-modified", limit=_MOST_TIME, accept="text/plain, */*;q=0.1")
        return float(calendar.timegm(time.strptime(body.decode("ascii").strip(), _TIME)))
    except (UpstreamError, Refused, ValueError):
        return None
