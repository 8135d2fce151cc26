"""The configuration: TOML text becomes one frozen tree, or one error that lists every problem with its line.

Pure: nothing is read from disk, network or process environment here; what an environment may contribute is passed in.
A key in the file is the field's name with ``-`` for ``_``; the annotated example, ``configs/heliostat.toml``, is the
manual.  Below the command line nothing else carries settings: a part receives its own section, never the whole tree.
"""

from __future__ import annotations

import contextlib
import os.path
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from heliostat import config_values as read
from heliostat.config_values import KIB, MIB, Environment, Lines, Problem, Reader, shown, suggest, without_credentials
from heliostat.errors import ConfigError, printable
from heliostat.names import normalise

__all__ = [
    "DEFAULT_FILE_HOSTS",
    "DEFAULT_UPSTREAM",
    "Config",
    "LoggingConfig",
    "MirrorConfig",
    "MirrorSite",
    "PushConfig",
    "RemovalConfig",
    "ScrubConfig",
    "ServiceConfig",
    "StatsConfig",
    "UpstreamConfig",
    "keys",
    "load_config",
    "without_credentials",
]

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
    url: tuple[str, ...] = field(metadata=_secret(read.index_urls))
    allow_http: bool = field(default=False, metadata=_by(read.yes_no))
    #: ``host`` or ``host:port`` that files may come from, besides upstream's own.
    file_hosts: tuple[str, ...] = field(default=(), metadata=_by(read.list_of(read.host)))
    changes: Literal["auto", "feed", "static", "list"] = field(
        default="auto", metadata=_by(read.choice("auto", "feed", "static", "list"))
    )
    allow_unhashed: bool = field(default=False, metadata=_by(read.yes_no))
    #: None: the proxy variables of the environment count.
    proxy: str | None = field(default=None, metadata=_secret(read.url))
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
    listen: tuple[str, ...] = field(default=(), metadata=_by(read.addresses))
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
    downstream: tuple[str, ...] = field(default=(), repr=False, metadata=_secret(read.ping_urls))
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


def load_config(text: str, *, source: str, environ: Mapping[str, str] | None = None, secrets: bool = True) -> Config:
    """The configuration that ``text`` says.

    ``source`` names the file in messages; relative paths count from its folder.  ``environ`` is what ``${NAME}`` and
    ``~`` refer to.  Where no upstream is named it is the public index, with its file hosts.  Without ``secrets`` keys
    that may hold some may name variables that are not set; what stands in their place cannot be sent to anybody.
    Raises ConfigError with all problems, each "SOURCE:LINE: [section] key: what is wrong; what to do".
    """
    problems: list[tuple[int, str]] = []
    tables, lines = _parse(text, source), Lines(text)
    for name in tables.keys() - SECTIONS.keys() - {SITES}:
        place = f"[{shown(name)}]" if isinstance(tables[name], dict) else shown(name)
        problems.append((lines.of(name), f"{place}: unknown{_advice(name, (*SECTIONS, SITES))}"))
    unset: list[tuple[int, str]] | None = None if secrets else []
    values = {name: _section(name, tables.get(name, {}), environ or {}, lines, problems, unset) for name in SECTIONS}
    _relations(values, lines, problems)
    allow_http = bool(values["upstream"].get("allow_http"))
    sites = _sites(tables.get(SITES, {}), environ or {}, lines, problems, allow_http=allow_http)
    if problems:
        raise ConfigError([f"{source}:{line}: {problem}" for line, problem in sorted(problems)])
    for key in ("directory", "state"):
        if key in values["mirror"]:
            values["mirror"][key] = os.path.normpath(os.path.join(os.path.dirname(source), values["mirror"][key]))
    if "textfile" in values["service"]:
        values["service"]["textfile"] = os.path.join(os.path.dirname(source), values["service"]["textfile"])
    if "logs" in values["stats"]:
        folder = re.sub(r"([*?[])", r"[\1]", os.path.dirname(source))  # no pattern, whatever it is called
        values["stats"]["logs"] = tuple(os.path.join(folder, log) for log in values["stats"]["logs"])
    built: dict[str, Any] = {name: section(**values[name]) for name, section in SECTIONS.items()}
    missing = tuple(f"{source}:{line}: {problem}" for line, problem in sorted(unset or ()))
    return Config(source=source, mirrors=sites, unset=missing, **built)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{source}:1: nested too deeply; heliostat config init shows the form"]) from None
    except ValueError as error:  # TOMLDecodeError, and int() for a number of thousands of digits
        found = re.search(r"\(at line (\d+),", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        reason = printable(str(error).split(" (at ", maxsplit=1)[0])[1:-1]
        raise ConfigError([f"{source}:{line}: not valid TOML: {reason}; correct this line"]) from None


def _section(
    name: str,
    table: Any,
    environ: Mapping[str, str],
    lines: Lines,
    problems: list[tuple[int, str]],
    unset: list[tuple[int, str]] | None,
) -> dict[str, Any]:
    """The values of one section by field name; adds to ``problems``, and secrets that are not set to ``unset``."""
    if not isinstance(table, dict):
        problems.append((lines.of(name), f"{name}: is no section; write [{name}] on a line of its own"))
        return {}
    known, values = keys(name), {}
    for key, value in table.items():
        if key not in known:
            problems.append((lines.of(name, key), f"[{name}] {shown(key)}: unknown key{_advice(key, known)}"))
            continue
        metadata = known[key].metadata
        if unset is not None and "secret" in metadata and (missing := _unset_in(value, environ)):
            unset += [(lines.of(name, key), f"[{name}] {key}: {read.not_set(variable)}") for variable in missing]
            values[known[key].name] = _without(value, metadata["read"], environ)
            continue
        try:
            values[known[key].name] = metadata["read"](value, environ)
        except Problem as problem:
            problems += [(lines.of(name, key, item), f"[{name}] {key}: {what}") for what, item in problem.found]
    return values


def _unset_in(value: Any, environ: Mapping[str, str]) -> list[str]:
    """The variables in a text, or a list of them, that are not set."""
    found = Environment(environ)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            with contextlib.suppress(Problem):  # the reader will say so
                read.text(item, found)
    return list(found.missing)


def _without(value: Any, reader: Reader, environ: Mapping[str, str]) -> Any:
    """``value`` with what stands for its variables; where that does not fit, something that fits and says as much."""
    try:
        return reader(value, Environment(environ))
    except Problem:
        name = _unset_in(value, environ)[0]
        stands_in = f"https://{Environment({})[name]}.invalid/-"
        return (stands_in,) if isinstance(value, list) or reader is read.index_urls else stands_in


def _sites(
    table: Any, environ: Mapping[str, str], lines: Lines, problems: list[tuple[int, str]], *, allow_http: bool
) -> tuple[MirrorSite, ...]:
    """``[mirrors]``: a URL for each name; adds to ``problems``."""
    if not isinstance(table, dict):
        problems.append((lines.of(SITES), f'{SITES}: is no section; write [{SITES}], below it NAME = "URL"'))
        return ()
    found: list[MirrorSite] = []
    for name, value in table.items():
        try:
            url = read.site_url(value, environ, allow_http=allow_http)
            if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,98}[A-Za-z0-9])?", name):
                raise Problem("is no name for a mirror; use letters, digits, hyphens, up to 100 of them")
            if any(one.url == url for one in found):
                raise Problem("names a URL that another one has; remove one of them")
        except Problem as problem:
            problems += [(lines.of(SITES, name), f"[{SITES}] {shown(name)}: {what}") for what, _ in problem.found]
        else:
            found.append(MirrorSite(name, url))
    return tuple(found)


def _advice(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the section where it belongs, or the word that was probably meant."""
    home = next((section for section in SECTIONS if word in keys(section)), None)
    if home:
        return f"; it belongs into [{home}]"
    return suggest(word, known) or "; remove it (heliostat config init shows what there is)"


def _relations(values: dict[str, dict[str, Any]], lines: Lines, problems: list[tuple[int, str]]) -> None:
    """What no key can say alone; and the public index where no upstream is named."""
    mirror, upstream = values["mirror"], values["upstream"]
    bad = {problem.split(":")[0] for _, problem in problems}

    def complain(section: str, key: str, text: str, item: str | None = None) -> None:
        problems.append((lines.of(section, key, item), f"[{section}] {key}: {text}"))

    if "directory" not in mirror and "[mirror] directory" not in bad:
        complain("mirror", "directory", 'missing; say where the mirror goes, such as directory = "/srv/pypi"')
    if mirror.get("projects") and mirror.get("everything"):
        complain("mirror", "everything", "contradicts projects; keep one of the two")
    for link in upstream.get("url", ()) if not upstream.get("allow_http") else ():
        if link.startswith("http:"):
            shown_link = without_credentials(link)
            complain("upstream", "url", f"{shown_link} is not encrypted; use https, or set allow-http = true", link)
    for address in values["service"].get("listen", ()) if not values["service"].get("listen_public") else ():
        if read.is_public(address):
            text = f"{address} can be reached from other machines; use 127.0.0.1, or set listen-public = true"
            complain("service", "listen", text, address)
    seen: dict[str, str] = {}
    for policy in ("propagate", "withhold", "retain"):
        for name in values["removal"].get(policy, ()):
            if (other := seen.setdefault(normalise(name), policy)) != policy:
                complain("removal", policy, f"{name} is also in {other}; remove it from one of them", name)
    _ordered("mirror", "retry-first", "retry-most", mirror, complain)
    _ordered("push", "retry-first", "retry-most", values["push"], complain)
    _ordered("upstream", "retry-delay", "retry-delay-most", upstream, complain)
    if "[upstream] url" not in bad:
        upstream.setdefault("url", (DEFAULT_UPSTREAM,))
        if DEFAULT_UPSTREAM in upstream["url"] and "[upstream] file-hosts" not in bad:
            upstream.setdefault("file_hosts", DEFAULT_FILE_HOSTS)


def _ordered(
    section: str, low: str, high: str, values: dict[str, Any], complain: Callable[[str, str, str], None]
) -> None:
    known = keys(section)
    first, last = (values.get(known[key].name, known[key].default) for key in (low, high))
    if first > last:
        complain(section, low, f"is more than {high}; lower it, or raise {high}")
