"""``mirrors.json``: a list of sites that clients and monitors can choose from; docs/lag.md is the contract.

It is written from the configuration's ``[mirrors]`` by every pass, which knows names and URLs only and keeps what was
measured before, and with what the sites say by whoever asks them: the daemon, or ``heliostat lag --write``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec

from heliostat.config import MirrorSite, without_credentials
from heliostat.config.addresses import is_plain_url
from heliostat.errors import Invalid, StoreError
from heliostat.mirror.sites.site import Standing
from heliostat.store.disk import Operations

PATH = "web/mirrors.json"
FORMAT = 1
#: The largest list that is read (bytes), and the most sites in it.
MOST_BYTES, _MOST_SITES = 1 << 20, 1000
_SECOND = 1_000_000_000
_Serial = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Entry(msgspec.Struct, frozen=True, rename="kebab"):
    """One site; times are ``2026-01-31T12:00:00Z``."""

    name: _Name
    url: str
    serial: _Serial | None = None
    last_modified: str | None = None
    last_checked: str | None = None
    #: Why the last check got no usable answer; serial and last-modified are from an earlier one then.
    error: str | None = None


class Listing(msgspec.Struct, frozen=True, rename="kebab"):
    """The whole list."""

    format: int
    upstream: str
    mirrors: Annotated[list[Entry], msgspec.Meta(max_length=_MOST_SITES)]


class _Format(msgspec.Struct):
    format: int


def parse_listing(body: bytes, *, url: str) -> Listing:
    """Raises Invalid for what is no such list, or names a URL that is not plain."""
    try:
        known = msgspec.json.decode(body, type=_Format).format
        if known != FORMAT:
            raise Invalid(url, f"a list of mirrors of format {known}; this heliostat knows format {FORMAT}")
        listing = msgspec.json.decode(body, type=Listing)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(url, f"not a list of mirrors: {error}") from None
    for entry in listing.mirrors:
        if not is_plain_url(entry.url):
            raise Invalid(url, f"names the mirror {entry.url[:100]!a}, which is no plain http or https URL")
    return listing


def write_listing(
    disk: Operations,
    sites: Sequence[MirrorSite],
    upstream: str,
    found: Mapping[str, Standing] | None = None,
    now: float | None = None,
) -> bool:
    """Replace the list if it differs, with what was ``found`` (by URL) at ``now``; True when it did.

    Raises StoreError.
    """
    old = disk.read(PATH)
    body = _body(sites, upstream, _entries(old), found or {}, time.time() if now is None else now)
    if body == old:
        return False
    # Not a name of the mirror's own temporaries: this may run beside it.
    staged = f"partial/mirrors-{os.getpid()}.json"
    disk.make_directory("partial")
    disk.unlink(staged)
    disk.write(staged, body)
    before, after = disk.stat(PATH), disk.stat(staged)
    if before is not None and after is not None and after.mtime_ns // _SECOND <= before.mtime_ns // _SECOND:
        disk.set_mtime(staged, (before.mtime_ns // _SECOND + 1) * _SECOND)  # web servers make ETags of seconds
    disk.sync()
    disk.replace(staged, PATH)
    return True


def _entries(old: bytes | None) -> dict[str, Entry]:
    if old is None:
        return {}
    try:
        return {entry.url: entry for entry in parse_listing(old, url=PATH).mirrors}
    except Invalid:
        return {}


def _body(
    sites: Iterable[MirrorSite], upstream: str, old: dict[str, Entry], found: Mapping[str, Standing], now: float
) -> bytes:
    entries = []
    for site in sites:
        before = old.get(site.url)
        entry = msgspec.structs.replace(before, name=site.name) if before else Entry(site.name, site.url)
        if (told := found.get(site.url)) is not None:
            if told.error is None:
                entry = Entry(site.name, site.url, told.serial, moment(told.last_modified), moment(now))
            else:
                entry = msgspec.structs.replace(entry, last_checked=moment(now), error=told.error)
        entries.append(entry)
    listing = Listing(FORMAT, without_credentials(upstream), entries)
    return msgspec.json.format(msgspec.json.encode(listing), indent=1) + b"\n"


def moment(seconds: float | None) -> str | None:
    """``2026-01-31T12:00:00Z``."""
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def require_web_root(directory: str) -> None:
    """Raises StoreError where no mirror was made yet."""
    if not os.path.isdir(f"{directory}/web"):
        raise StoreError("write", f"{directory}/{PATH}", "there is no web/ there yet; run heliostat mirror first")
