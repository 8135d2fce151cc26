"""``heliostat lag``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.options import Options, common, current, settings_if_any
from heliostat.cli.param_types import ParamType

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.config import Config
    from heliostat.mirror.sites.lag import Report
    from heliostat.mirror.sites.listing import Listing
    from heliostat.mirror.sites.site import Patience
    from heliostat.mirror.sites.wants import Wants
    from heliostat.upstream.client import Upstream

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class _Behind(ParamType):
    name = "SECONDS|SERIALS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float | None, int | None]:
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?) ?(s|min|m|h|d|serials?)?", str(value).strip(), re.ASCII)
        if found and found[2] in _UNITS:
            return float(found[1]) * _UNITS[found[2]], None
        if found and "." not in found[1]:
            return None, int(found[1])
        self.fail(f"{value!r} is neither a time like 900s, 15m or 2h nor a number of serials", param, ctx)
        return None


@click.command()
@click.option("-r", "--requirement", "requirements", metavar="FILE", multiple=True, help="Projects of these files.")
@click.option("--lock", "locks", metavar="FILE", multiple=True, help="Files of a uv.lock, pylock.toml or poetry.lock.")
@click.option("--projects", metavar="NAME...", multiple=True, help="These projects.")
@click.option("--upstream", metavar="URL", help="The index to compare with, instead of the configured upstream.")
@click.option("--mirrors", metavar="URL...", multiple=True, help="The sites of the first of these lists that answers.")
@click.option("--pick", type=click.Choice(["pip", "uv"]), help="Print the setting with which it uses the best site.")
@click.option("--max-behind", type=_Behind(), help="So far behind is not behind: 900s, 15m, 2h, or serials: 500.")
@click.option("--write", is_flag=True, help="Write what the sites of [mirrors] say into web/mirrors.json.")
@click.option("--allow-http", is_flag=True, help="Ask sites on other machines without encryption, too.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=20.0, metavar="SECONDS",
    help="Wait so long for a connection, or for the next byte; 20 otherwise.",
)  # fmt: skip
@click.argument("urls", nargs=-1, metavar="[URL]...")
@common
def command(
    *,
    requirements: tuple[str, ...],
    locks: tuple[str, ...],
    projects: tuple[str, ...],
    upstream: str | None,
    mirrors: tuple[str, ...],
    pick: str | None,
    max_behind: tuple[float | None, int | None] | None,
    write: bool,
    allow_http: bool,
    timeout: float,
    urls: tuple[str, ...],
) -> int:
    """Tell how current mirrors are: as a whole, or for the projects named.

    Asks the sites at URL, or those of [mirrors] in the configuration, or of a list that a mirror publishes.  Ends
    with 0 when all are current, 3 when one is behind, 5 when one, or the index itself, gave no usable answer.
    """
    if projects:  # those after the first name come as arguments
        projects = (*projects, *(text for text in urls if "/" not in text and ":" not in text))
        urls = tuple(text for text in urls if "/" in text or ":" in text)
    if write and (urls or mirrors):
        raise click.UsageError("--write is for the sites of [mirrors] in the configuration; leave URLs out")
    return _Work(
        current(), settings_if_any(), requirements=requirements, locks=locks, projects=projects, upstream=upstream,
        lists=(*mirrors, *urls) if mirrors else (), urls=() if mirrors else urls, pick=pick, max_behind=max_behind,
        write=write, allow_http=allow_http, timeout=timeout,
    ).run()  # fmt: skip


class _Work:
    """One run of the command."""

    def __init__(
        self,
        options: Options,
        config: Config | None,
        *,
        requirements: Sequence[str],
        locks: Sequence[str],
        projects: Sequence[str],
        upstream: str | None,
        lists: Sequence[str],
        urls: Sequence[str],
        pick: str | None,
        max_behind: tuple[float | None, int | None] | None,
        write: bool,
        allow_http: bool,
        timeout: float,
    ) -> None:
        self._options, self._config, self._upstream = options, config, upstream
        self._requirements, self._locks, self._projects = requirements, locks, projects
        self._lists, self._urls, self._pick, self._write = lists, urls, pick, write
        self._max_behind, self._timeout = max_behind, timeout
        self._allow_http = allow_http or (config is not None and config.upstream.allow_http)

    def run(self) -> int:
        from heliostat.cli import running
        from heliostat.cli.logging_setup import set_up_logging
        from heliostat.errors import ConfigError

        set_up_logging(self._options, wanted=self._config.logging.format if self._config else "auto")
        sites: list[tuple[str | None, str]] = [(None, url) for url in self._urls]
        if not sites and not self._lists:
            found = self._config.mirrors if self._config is not None else ()
            if not found:
                raise ConfigError(["no site is named; write its URL, --mirrors URL, or [mirrors] in the configuration"])
            sites = [(site.name, site.url) for site in found]
        if self._write:
            from heliostat.mirror.sites.listing import require_web_root

            assert self._config is not None
            require_web_root(self._config.mirror.directory)
        wants = self._wants()
        return running.run(lambda stop: self._stoppable(sites, wants, stop))

    def _wants(self) -> Wants:
        from heliostat.mirror.sites.wants import Wants, read_lock, read_requirements
        from heliostat.names import normalise

        wants = Wants({}, [])
        for name in (name for text in self._projects for name in re.split(r"[,\s]+", text) if name):
            wants.add(normalise(name), None)
        for path in self._requirements:
            read_requirements(wants, path)
        for path in self._locks:
            read_lock(wants, path)
        return wants

    async def _stoppable(self, sites: list[tuple[str | None, str]], wants: Wants, stop: Stop) -> int:
        """There is nothing to be gone on with: the first signal ends it."""
        import asyncio

        work = asyncio.ensure_future(self._run(sites, wants))
        ended = asyncio.ensure_future(stop.event.wait())
        try:
            await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise asyncio.CancelledError
            return work.result()
        finally:
            for task in (work, ended):
                task.cancel()
            await asyncio.gather(work, ended, return_exceptions=True)

    async def _run(self, sites: list[tuple[str | None, str]], wants: Wants) -> int:
        from heliostat.cli.lag_report import Asked, report
        from heliostat.mirror.sites.lag import Tolerance
        from heliostat.mirror.sites.site import Patience

        patience = Patience(stall=self._timeout, total=max(60.0, 3 * self._timeout))
        notes = list(wants.skipped)
        listing = None
        if self._lists:
            listing = await self._first_list(patience, notes)
            sites = [(entry.name, entry.url) for entry in listing.mirrors]
        tolerance = Tolerance(*self._max_behind) if self._max_behind else Tolerance()
        found = await self._measure(sites, wants, listing, patience)
        if self._write:
            self._publish(found)
        asked = Asked(bool(wants.projects), tolerance, bool(self._lists), self._pick, notes)
        return report(self._options, found, asked)

    async def _measure(
        self, sites: list[tuple[str | None, str]], wants: Wants, listing: Listing | None, patience: Patience
    ) -> Report:
        import contextlib

        from heliostat.cli.progress import showing
        from heliostat.errors import ConfigError
        from heliostat.mirror.report import Counters
        from heliostat.mirror.sites.lag import Candidate, SiteLag, measure
        from heliostat.mirror.sites.site import client

        counters = Counters()
        counters.phase, counters.projects_total = "asking sites", len(wants.projects)
        refused: dict[int, SiteLag] = {}
        async with contextlib.AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(self._index(listing, patience))
            candidates = []
            for number, (name, url) in enumerate(sites):
                try:
                    site = client(url, patience, like=self._like, allow_http=self._allow_http)
                except ConfigError as error:
                    if listing is None:
                        raise
                    refused[number] = SiteLag(url, name, unreachable=str(error), projects=[])
                    continue
                candidates.append(Candidate(url, await stack.enter_async_context(site), name))

            def done() -> None:
                counters.projects_done += 1

            await stack.enter_async_context(showing(counters, self._options))
            found = await measure(upstream, candidates, wants.sorted(), done=done)
        for number, one in refused.items():
            found.sites.insert(number, one)
        return found

    @property
    def _like(self) -> Any:
        return self._config.upstream if self._config is not None else None

    def _index(self, listing: Listing | None, patience: Patience) -> Upstream:
        """The index to compare with.  Raises ConfigError when nobody says which."""
        from heliostat.errors import ConfigError
        from heliostat.mirror.sites.site import client, configured

        if self._upstream is not None:
            return client(self._upstream, patience, like=self._like, allow_http=self._allow_http)
        if self._config is not None:
            return configured(self._config.upstream, patience)
        if listing is not None:
            return client(listing.upstream, patience, allow_http=self._allow_http)
        raise ConfigError(["no index to compare with; write --upstream URL, or --config PATH"])

    async def _first_list(self, patience: Patience, notes: list[str]) -> Listing:
        """The first list that answers; what the others said goes to ``notes``.  Raises Unavailable."""
        from heliostat.config.problems import without_credentials
        from heliostat.errors import Refused, Unavailable, UpstreamError
        from heliostat.mirror.sites.listing import MOST_BYTES, parse_listing
        from heliostat.mirror.sites.site import client

        for url in self._lists:
            full = url if url.endswith(".json") else f"{re.sub(r'/simple/?$', '', url).rstrip('/')}/mirrors.json"
            base, _, name = full.rpartition("/")
            try:
                async with client(base, patience, like=self._like, allow_http=self._allow_http) as site:
                    place = f"{site.base}/{name}"
                    return parse_listing(
                        await site.fetch(place, limit=MOST_BYTES, accept="application/json"), url=place
                    )
            except (UpstreamError, Refused) as error:
                notes.append(str(error))
        first = without_credentials(self._lists[0])
        raise Unavailable(
            first, "no list of mirrors there, nor at the other places: " + "; ".join(notes[-len(self._lists) :])
        )

    def _publish(self, found: Report) -> None:
        import time

        from heliostat.mirror.sites.listing import write_listing
        from heliostat.mirror.sites.site import Standing
        from heliostat.store.disk import Disk

        assert self._config is not None
        told = {one.url: Standing(one.serial, one.last_modified, one.unreachable) for one in found.sites}
        disk = Disk(self._config.mirror.directory)
        write_listing(disk, self._config.mirrors, self._config.upstream.url[0], told, time.time())
