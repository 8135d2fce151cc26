"""``heliostat verify --site URL``: sites over HTTP, one after the other, a report for each."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from heliostat.cli.exit_codes import ExitCode, signal_code
from heliostat.cli.options import Options

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.cli.verify_report import SiteReports
    from heliostat.config import Config
    from heliostat.mirror.report import Counters
    from heliostat.mirror.verify.asked import SiteAsked
    from heliostat.mirror.verify.ground import Ground
    from heliostat.mirror.verify.position import Desk
    from heliostat.mirror.verify.reference import Reference
    from heliostat.mirror.verify.site import SiteVerification
    from heliostat.upstream.client import Upstream

#: Requests at once where nobody says.
_AT_ONCE = 8


class Way(NamedTuple):
    """How it is done."""

    state: str | None
    restart: bool
    junit: str | None
    workers: int | None
    allow_http: bool


class Sites:
    """One run of the command."""

    def __init__(
        self,
        options: Options,
        config: Config | None,
        web_root: str | None,
        urls: Sequence[str],
        asked: SiteAsked,
        way: Way,
    ) -> None:
        self._options, self._config, self._web_root = options, config, web_root
        self._urls, self._asked, self._way = urls, asked, way

    def run(self) -> int:
        from heliostat.cli import running
        from heliostat.cli.logging_setup import set_up_logging
        from heliostat.cli.verify_report import writable

        set_up_logging(self._options, wanted=self._config.logging.format if self._config else "auto")
        if self._way.junit is not None:
            writable(self._way.junit)
        ground = self._ground()
        # What cannot be used is said before the first one is looked at.
        clients = [self._client(url) for url in self._urls]
        return running.run(lambda stop: self._all(ground, clients, stop))

    def _ground(self) -> Ground | None:
        """Our own tree; None when upstream is to say what is right, and there is no ledger that names projects."""
        from heliostat.errors import HeliostatError
        from heliostat.mirror.verify.ground import bare_ground, mirror_ground
        from heliostat.mirror.verify.reading import Budget

        if self._config is None:
            assert self._web_root is not None
            return bare_ground(self._web_root, Budget())
        try:
            return mirror_ground(self._config, Budget())
        except HeliostatError:
            if not self._asked.against_upstream:
                raise
            return None

    def _client(self, url: str) -> Upstream:
        from heliostat.mirror.sites.site import Patience, client

        like = self._config.upstream if self._config is not None else None
        patience = Patience(stall=30.0, total=300.0, tries=3, at_once=self._way.workers or _AT_ONCE)
        allowed = self._way.allow_http or (like is not None and like.allow_http)
        return client(url, patience, like=like, allow_http=allowed, file_hosts=())

    async def _all(self, ground: Ground | None, clients: Sequence[Upstream], stop: Stop) -> int:
        from heliostat.cli.progress import showing
        from heliostat.cli.verify_report import site_reports
        from heliostat.mirror.report import Counters

        codes: list[ExitCode] = []
        with site_reports(self._options, self._way.junit) as reports:
            for client in clients:
                if stop.event.is_set():
                    break
                counters = Counters()
                with contextlib.ExitStack() as stack:
                    desk, folder = self._desk(stack, client.base)
                    async with showing(counters, self._options):
                        verification = await self._one(ground, client, desk, counters, stop)
                    code = _code(verification, stop)
                    codes.append(code)
                    self._report(reports, code, verification, folder)
            code = _worst(codes, stop)
            reports.end(code)
        return code

    def _desk(self, stack: contextlib.ExitStack, site: str) -> tuple[Desk, str | None]:
        """A folder of its own for each site, so that an interrupted verify goes on there."""
        from heliostat.mirror.places import state_directory
        from heliostat.mirror.verify.position import begin, desk

        number = hashlib.sha256(site.encode()).hexdigest()[:12]
        folder = None
        if self._way.state is not None:
            folder = f"{os.path.abspath(self._way.state)}/site-{number}"
        elif self._config is not None:
            above = state_directory(self._config)
            folder = f"{above}/verify-site-{number}" if os.access(above, os.W_OK) else None
        return stack.enter_context(desk(folder, begin(self._asked.key(site)), restart=self._way.restart)), folder

    async def _one(
        self, ground: Ground | None, client: Upstream, desk: Desk, counters: Counters, stop: Stop
    ) -> SiteVerification:
        from heliostat.mirror.verify.reference import LocalPages, UpstreamPages
        from heliostat.mirror.verify.site import SiteVerification

        async with contextlib.AsyncExitStack() as stack:
            reference: Reference
            if self._asked.against_upstream:
                from heliostat import __version__
                from heliostat.upstream.client import Upstream

                assert self._config is not None
                upstream = Upstream(self._config.upstream, version=__version__, counters=counters)
                reference = UpstreamPages(await stack.enter_async_context(upstream), ground, desk.folder)
            else:
                assert ground is not None
                reference = LocalPages(ground, desk.folder)
            await stack.enter_async_context(client)
            limit = self._config.upstream.max_sidecar if self._config is not None else 16 << 20
            verification = SiteVerification(
                client, reference, self._asked, desk, counters, stop.event,
                at_once=self._way.workers or _AT_ONCE, max_sidecar=limit,
            )  # fmt: skip
            await verification.run()
        return verification

    @staticmethod
    def _report(reports: SiteReports, code: ExitCode, verification: SiteVerification, folder: str | None) -> None:
        from heliostat.mirror.verify.position import clear

        reports.add(code, verification)
        if folder is not None and not verification.result.interrupted:
            clear(folder)


def _code(verification: SiteVerification, stop: Stop) -> ExitCode:
    result = verification.result
    if result.unreachable is not None:
        return ExitCode.UPSTREAM
    if result.interrupted:
        return signal_code(stop.number)
    return ExitCode.INCOMPLETE if result.findings or result.unreadable or result.unknown else ExitCode.COMPLETE


def _worst(codes: Sequence[ExitCode], stop: Stop) -> ExitCode:
    if stop.event.is_set() and any(code not in (ExitCode.COMPLETE, ExitCode.INCOMPLETE) for code in codes):
        return signal_code(stop.number)
    return next((one for one in (ExitCode.UPSTREAM, ExitCode.INCOMPLETE) if one in codes), ExitCode.COMPLETE)
