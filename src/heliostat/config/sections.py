"""The sections of the configuration, with their keys, defaults and units.

A key in the file is the field's name with ``-`` for ``_``; the annotated example, ``configs/heliostat.toml``, is the
manual.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from heliostat.config import addresses
from heliostat.config import values as read
from heliostat.config.values import KIB, MIB, Reader
from heliostat.errors import ConfigError

#: The public Python package index, and the hosts it serves its files from.  They stand here and nowhere else.
DEFAULT_UPSTREAM = "https://pypi.org"
DEFAULT_FILE_HOSTS = ("files.pythonhosted.org",)

_DAY = 86400


def _by(reader: Reader) -> dict[str, Any]:
    return {"read": reader}


def _secret(reader: Reader) -> dict[str, Any]:
    """Of a value that may hold credentials: many commands do without it."""
    return {"read": reader, "secret": True}


_SECONDS = read.number(0, 365 * _DAY, "seconds")
_TIMEOUT = read.number(0.001, _DAY, "seconds")


@dataclass(frozen=True, kw_only=True)
class MirrorConfig:
    """``[mirror]``: what is kept, where, and how carefully.  Durations are seconds unless the name says otherwise."""

    directory: str = field(metadata=_by(read.path))
    #: Where lock and ledger go when not in ``directory``: a local disk.
    state: str | None = field(default=None, metadata=_by(read.path))
    #: Names as configured; each is valid and none stands twice (compare with names.normalise).
    projects: tuple[str, ...] = field(default=(), metadata=_by(read.projects))
    everything: bool = field(default=False, metadata=_by(read.yes_no))
    #: ``NAME`` or ``NAME==VERSION``, as configured: kept out, whatever upstream offers.
    deny: tuple[str, ...] = field(default=(), metadata=_by(read.entries))
    #: Share of the file system (0.05 = 5%) that a pass leaves free.
    min_free: float = field(default=0.05, metadata=_by(read.share))
    #: Pause between two polls of the daemon.
    interval: float = field(default=60.0, metadata=_by(read.number(1, 30 * _DAY, "seconds")))
    root_interval: float = field(default=600.0, metadata=_by(_SECONDS))
    #: Keep gzipped copies of the root pages beside them, for web servers that send such.
    gzip_root: bool = field(default=False, metadata=_by(read.yes_no))
    reconcile_hours: float = field(default=24.0, metadata=_by(read.number(0.01, 24 * 365, "hours")))
    sweep_days: float = field(default=30.0, metadata=_by(read.number(0.01, 3650, "days")))
    heartbeat: float = field(default=600.0, metadata=_by(_SECONDS))
    #: False: only what indexes say; links to files lead to upstream.
    files: bool = field(default=True, metadata=_by(read.yes_no))
    provenance: bool = field(default=True, metadata=_by(read.yes_no))
    batch_projects: int = field(default=64, metadata=_by(read.count(1, 10_000)))
    batch_seconds: float = field(default=2.0, metadata=_by(read.number(0, 3600, "seconds")))
    projects_at_once: int = field(default=64, metadata=_by(read.count(1, 10_000)))
    #: Attempts after which a project whose serial stays below the announced one is accepted as it is.
    stuck_after: int = field(default=5, metadata=_by(read.count(1, 1000)))
    #: Least time from the first such attempt to that; then the first pause before upstream is looked at again.
    stuck_seconds: float = field(default=3600.0, metadata=_by(_SECONDS))
    #: First and longest pause before a project that failed is tried again.
    retry_first: float = field(default=60.0, metadata=_by(_SECONDS))
    retry_most: float = field(default=21600.0, metadata=_by(_SECONDS))
    #: Least time between two 404s that together count as a removal where upstream has neither feed nor list.
    confirm_seconds: float = field(default=120.0, metadata=_by(_SECONDS))
    #: Pause before the second look at a page that lost all its files.
    shrink_seconds: float = field(default=5.0, metadata=_by(_SECONDS))


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """``[upstream]``: the index that is followed, and how it is treated."""

    #: Base URLs of one index, first choice first, no slash at the end.  May hold credentials: never to be printed.
    url: tuple[str, ...] = field(metadata=_secret(addresses.index_urls))
    allow_http: bool = field(default=False, metadata=_by(read.yes_no))
    #: ``host`` or ``host:port`` that files may come from, besides upstream's own.
    file_hosts: tuple[str, ...] = field(default=(), metadata=_by(read.list_of(addresses.host)))
    changes: Literal["auto", "feed", "static", "list"] = field(
        default="auto", metadata=_by(read.choice("auto", "feed", "static", "list"))
    )
    allow_unhashed: bool = field(default=False, metadata=_by(read.yes_no))
    #: None: the proxy variables of the environment count.
    proxy: str | None = field(default=None, metadata=_secret(addresses.url))
    #: Put into the User-Agent header, so that upstream's operators can reach this mirror's.
    contact: str | None = field(default=None, metadata=_by(read.text))
    #: Upper bounds; within them the mirror adapts to what upstream bears.
    metadata_at_once: int = field(default=8, metadata=_by(read.count(1, 1024)))
    files_at_once: int = field(default=8, metadata=_by(read.count(1, 1024)))
    connect_timeout: float = field(default=30.0, metadata=_by(_TIMEOUT))
    #: The longest wait for the next byte of a body.
    stall_timeout: float = field(default=60.0, metadata=_by(_TIMEOUT))
    #: For one whole metadata answer; files have no such limit.
    metadata_timeout: float = field(default=300.0, metadata=_by(_TIMEOUT))
    #: Tries of one request, the first included.
    retries: int = field(default=5, metadata=_by(read.count(1, 100)))
    retry_delay: float = field(default=1.0, metadata=_by(_SECONDS))
    retry_delay_most: float = field(default=60.0, metadata=_by(_SECONDS))
    #: How long a source that failed, or is behind, is left for the others in ``url``.
    source_rest: float = field(default=300.0, metadata=_by(_SECONDS))
    stale_tries: int = field(default=3, metadata=_by(read.count(1, 100)))
    #: Serials behind upstream from which on the root list is read instead of the feed.
    far_behind: int = field(default=200_000, metadata=_by(read.count(1, 10**12)))
    #: Largest acceptable bodies, in bytes, after decompression.
    max_page: int = field(default=64 * MIB, metadata=_by(read.size(KIB)))
    max_document: int = field(default=128 * MIB, metadata=_by(read.size(KIB)))
    max_root: int = field(default=512 * MIB, metadata=_by(read.size(KIB)))
    max_sidecar: int = field(default=16 * MIB, metadata=_by(read.size(KIB)))
    #: None: as large as upstream declares.
    max_file: int | None = field(default=None, metadata=_by(read.size(1)))


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """``[service]``: how the daemon runs.  Durations are seconds."""

    #: Share of ``[mirror] interval`` by which each pause is longer or shorter, at random.
    jitter: float = field(default=0.1, metadata=_by(read.share))
    #: What is in flight gets so long to end by itself after the first SIGTERM, or a reload; then it is parked.
    grace: float = field(default=10.0, metadata=_by(read.number(0, 3600, "seconds")))
    #: The longest pause between two passes that fail.
    back_off_most: float = field(default=900.0, metadata=_by(_SECONDS))
    #: How long it may take until upstream answers for the first time before the daemon says that it is ready anyway.
    ready_grace: float = field(default=60.0, metadata=_by(_SECONDS))
    #: Passes in a row that end with an unexpected error until the process exits.
    give_up_after: int = field(default=5, metadata=_by(read.count(1, 1000)))
    #: Where the HTTP endpoint (metrics, health, status) is reached: ``IP:PORT`` or ``unix:PATH``; none without any.
    listen: tuple[str, ...] = field(default=(), metadata=_by(addresses.listening))
    #: Allow addresses that others than this machine can reach.
    listen_public: bool = field(default=False, metadata=_by(read.yes_no))
    #: ``/readyz`` says yes while the mirror is behind by less, and upstream answered not longer ago.
    ready_within: float = field(default=900.0, metadata=_by(_SECONDS))
    #: ``/healthz`` says yes while the loop got on not longer ago.
    alive_within: float = field(default=300.0, metadata=_by(_SECONDS))
    #: Pause between two looks at the sites in ``[mirrors]``.
    check_mirrors: float = field(default=300.0, metadata=_by(read.number(1, 30 * _DAY, "seconds")))
    #: Where a single pass leaves its figures for node_exporter.
    textfile: str | None = field(default=None, metadata=_by(read.path))


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """``[push]``: who tells this mirror that there is news, and whom it tells.  Durations are seconds."""

    #: What pings to this mirror must be signed with; None: anybody who reaches the endpoint may ping.
    secret: str | None = field(default=None, repr=False, metadata=_secret(read.secret))
    #: How far a signed ping's time may be from our clock.
    window: float = field(default=300.0, metadata=_by(read.number(1, _DAY, "seconds")))
    pings_a_minute: int = field(default=60, metadata=_by(read.count(1, 6000)))
    #: Where pings are sent to after each published pass.  May hold credentials: never to be printed.
    downstream: tuple[str, ...] = field(default=(), repr=False, metadata=_secret(addresses.ping_urls))
    downstream_secret: str | None = field(default=None, repr=False, metadata=_secret(read.secret))
    #: The longest that one ping that is sent may take.
    downstream_timeout: float = field(default=10.0, metadata=_by(_TIMEOUT))
    #: Program and arguments to be run after each published pass; empty: none.
    hook: tuple[str, ...] = field(default=(), metadata=_by(read.command))
    hook_timeout: float = field(default=600.0, metadata=_by(read.number(0.1, 7 * _DAY, "seconds")))
    #: First and longest pause before a ping, or a hook, that failed is tried again.
    retry_first: float = field(default=5.0, metadata=_by(read.number(0.01, _DAY, "seconds")))
    retry_most: float = field(default=900.0, metadata=_by(read.number(0.01, _DAY, "seconds")))


@dataclass(frozen=True, kw_only=True)
class ScrubConfig:
    """``[scrub]``: whether and how fast the daemon checks again and again what it serves."""

    enabled: bool = field(default=False, metadata=_by(read.yes_no))
    #: The most that is read.
    bytes_per_second: int = field(default=20 * 10**6, metadata=_by(read.size(KIB)))
    #: Everything is to be checked once within so many days.
    every_days: float = field(default=30.0, metadata=_by(read.number(0.001, 3650, "days")))


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """``[logging]``: in which form log lines leave the process."""

    format: Literal["auto", "text", "journal", "json"] = field(
        default="auto", metadata=_by(read.choice("auto", "text", "journal", "json"))
    )


@dataclass(frozen=True, kw_only=True)
class RemovalConfig:
    """``[removal]``: what becomes of what upstream removed, or the operator deleted."""

    policy: Literal["propagate", "withhold", "retain"] = field(
        default="propagate", metadata=_by(read.choice("propagate", "withhold", "retain"))
    )
    #: Projects of another policy than that; none is in two of the lists.
    propagate: tuple[str, ...] = field(default=(), metadata=_by(read.projects))
    withhold: tuple[str, ...] = field(default=(), metadata=_by(read.projects))
    retain: tuple[str, ...] = field(default=(), metadata=_by(read.projects))
    #: How long bytes are kept out of reach.
    withhold_days: float = field(default=30.0, metadata=_by(read.number(0, 36500, "days")))


@dataclass(frozen=True, kw_only=True)
class StatsConfig:
    """``[stats]``: what `heliostat stats` counts."""

    #: Access logs of the web server: files or patterns, with their rotated and compressed ones.
    logs: tuple[str, ...] = field(default=(), metadata=_by(read.list_of(read.path)))
    #: So many days are kept for summaries and lists; the files in local-stats/ stay.
    keep_days: int = field(default=366, metadata=_by(read.count(3, 36_500)))


Section = (
    MirrorConfig
    | UpstreamConfig
    | RemovalConfig
    | ServiceConfig
    | PushConfig
    | ScrubConfig
    | LoggingConfig
    | StatsConfig
)


class MirrorSite(NamedTuple):
    """An entry of ``[mirrors]``: a copy of this mirror, or another one of the same index."""

    name: str
    #: Base URL, no slash at the end, no credentials: it is published.
    url: str


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything configured, and the file it came from (``source``, for messages)."""

    mirror: MirrorConfig
    upstream: UpstreamConfig
    removal: RemovalConfig = RemovalConfig()
    service: ServiceConfig = ServiceConfig()
    push: PushConfig = PushConfig()
    scrub: ScrubConfig = ScrubConfig()
    logging: LoggingConfig = LoggingConfig()
    stats: StatsConfig = StatsConfig()
    #: ``[mirrors]``, in the order of the file.
    mirrors: tuple[MirrorSite, ...] = ()
    source: str
    #: Secrets whose variable is not set, as problems; only what was loaded with ``secrets=False`` has any.
    unset: tuple[str, ...] = field(default=(), compare=False)

    def require_secrets(self) -> None:
        """Raises ConfigError when a secret's variable is not set: to be called before anything is sent or signed."""
        if self.unset:
            raise ConfigError(list(self.unset))


#: A section whose keys are names that the operator gives.
SITES = "mirrors"
SECTIONS: dict[str, type[Section]] = {
    "mirror": MirrorConfig,
    "upstream": UpstreamConfig,
    "removal": RemovalConfig,
    "service": ServiceConfig,
    "push": PushConfig,
    "scrub": ScrubConfig,
    "logging": LoggingConfig,
    "stats": StatsConfig,
}


def keys(section: str) -> dict[str, Field[Any]]:
    """The keys of one section as they stand in the file, with the fields they set."""
    return {item.name.replace("_", "-"): item for item in fields(SECTIONS[section])}
