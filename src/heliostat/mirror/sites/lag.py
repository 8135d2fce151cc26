"""How far sites are behind an index, as to the projects that somebody cares about."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from heliostat.errors import Missing, Unavailable, UpstreamError
from heliostat.mirror.sites.compare import compare
from heliostat.mirror.sites.site import Standing, standing
from heliostat.mirror.sites.wants import Want
from heliostat.model import ProjectPage
from heliostat.upstream.client import PageAnswer, Upstream

#: ``older``: its page is behind, but everything that was asked for is there.
#: ``removed``: the index has it no more.  ``unchecked``: one of the two gave no usable answer.
State = Literal["current", "older", "behind", "absent", "removed", "unchecked"]

#: Projects looked at side by side; names of files that are listed for each.
_AT_ONCE, _LISTED = 16, 20
#: So many projects in a row without an answer, and the site counts as unreachable.
_FAILURES = 5
_UPLOADED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", re.ASCII)


class ProjectLag(msgspec.Struct):
    """How one project stands at one site.  Of each list of files the first ones."""

    project: str
    state: State
    serial: int | None = None
    upstream_serial: int | None = None
    missing: int = 0
    missing_files: list[str] = []
    extra: int = 0
    extra_files: list[str] = []
    changed: int = 0
    changed_files: list[str] = []
    missing_versions: list[str] = []
    #: Since the first upload of what is missing, where its time is known.
    seconds: float | None = None
    #: Why it could not be checked.
    reason: str | None = None

    @property
    def behind(self) -> bool:
        return self.state in ("behind", "absent", "removed")

    @property
    def serials(self) -> int | None:
        """By how many serials; None when one of the two does not say."""
        if self.serial is None or self.upstream_serial is None:
            return None
        return max(0, self.upstream_serial - self.serial)


class SiteLag(msgspec.Struct):
    """How one site stands."""

    url: str
    name: str | None = None
    serial: int | None = None
    upstream_serial: int | None = None
    #: Seconds since the epoch, UTC: when its last complete poll began.
    last_modified: float | None = None
    #: How long ago it was complete; 0 when it is now, None when nobody can tell.
    seconds: float | None = None
    unreachable: str | None = None
    answered: float | None = None
    projects: list[ProjectLag] = []

    @property
    def serials(self) -> int | None:
        if self.serial is None or self.upstream_serial is None:
            return None
        return max(0, self.upstream_serial - self.serial)

    @property
    def behind(self) -> list[ProjectLag]:
        return [one for one in self.projects if one.behind]

    @property
    def unchecked(self) -> list[ProjectLag]:
        return [one for one in self.projects if one.state == "unchecked"]


class Tolerance(msgspec.Struct, frozen=True):
    """How far behind is not behind yet: seconds, or serials, or not at all."""

    seconds: float | None = None
    serials: int | None = None

    @property
    def given(self) -> bool:
        return self.seconds is not None or self.serials is not None

    def covers(self, seconds: float | None, serials: int | None) -> bool:
        """Whether that much is borne with; what nobody knows is not."""
        if self.seconds is not None:
            return seconds is not None and seconds <= self.seconds
        if self.serials is not None:
            return serials is not None and serials <= self.serials
        return False


class Report(msgspec.Struct):
    """All sites, in the order in which they were named, beside the index that they were compared with."""

    upstream: str
    upstream_serial: int | None
    #: Why upstream could not be asked; then nobody can tell who is behind.
    unreachable: str | None
    sites: list[SiteLag]
    #: Projects that upstream does not have, nor any site.
    unknown: list[str] = []


class Candidate(msgspec.Struct):
    """A site that is to be looked at."""

    url: str
    client: Upstream
    name: str | None = None


def is_current(site: SiteLag, tolerance: Tolerance, *, asked: bool) -> bool:
    """Whether a site that answered is up to date for what was ``asked``: some projects, or none and so the whole."""
    for one in site.behind:
        seconds = one.seconds if one.seconds is not None else site.seconds
        if not tolerance.covers(seconds, one.serials):
            return False
    if asked and not tolerance.given:
        return True
    if site.serials == 0 or site.seconds == 0:
        return True
    return tolerance.covers(site.seconds, site.serials)


def rank(sites: Iterable[SiteLag], tolerance: Tolerance, *, asked: bool) -> list[SiteLag]:
    """The best one first: those that are current, the ones that answered sooner before; then those less behind."""

    def key(site: SiteLag) -> tuple[bool, bool, int, float, float, float]:
        current = site.unreachable is None and is_current(site, tolerance, asked=asked)
        missing = len(site.behind) + len(site.unchecked)
        serials, seconds = (float("inf") if lag is None else lag for lag in (site.serials, site.seconds))
        if current:
            serials = seconds = 0.0
        return site.unreachable is not None, not current, missing, serials, seconds, site.answered or 0.0

    return sorted(sites, key=key)


async def measure(
    upstream: Upstream,
    candidates: Sequence[Candidate],
    wants: Sequence[Want],
    *,
    now: Callable[[], float] = time.time,
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Look at all sites and at upstream; ``done`` is told of each project that was compared."""
    return await _Measurement(upstream, candidates, wants, now, done).run()


class _Measurement:
    def __init__(
        self,
        upstream: Upstream,
        candidates: Sequence[Candidate],
        wants: Sequence[Want],
        now: Callable[[], float],
        done: Callable[[], None],
    ) -> None:
        self._upstream, self._candidates, self._wants = upstream, candidates, wants
        self._now, self._done = now, done
        self._failures = [0] * len(candidates)
        self._upstream_failures = 0

    async def run(self) -> Report:
        clients = [self._upstream, *(one.client for one in self._candidates)]
        ours, *theirs = await asyncio.gather(*(standing(one) for one in clients))
        report = Report(self._upstream.base, ours.serial, ours.error, [], [])
        report.sites = [self._site(one, found, ours) for one, found in zip(self._candidates, theirs, strict=True)]
        if report.unreachable is not None and self._wants and ours.answered is None:
            # An index of pages alone is one, too: the projects tell.
            report.unreachable = None if await self._has_pages() else report.unreachable
        if report.unreachable is None and report.sites:
            await self._projects(report)
        for site in report.sites:
            site.projects.sort(key=lambda one: one.project)
            self._date(site)
        return report

    def _site(self, one: Candidate, found: Standing, ours: Standing) -> SiteLag:
        return SiteLag(
            one.client.base, one.name, found.serial, ours.serial, found.last_modified,
            unreachable=found.error, answered=found.answered, projects=[],
        )  # fmt: skip

    async def _has_pages(self) -> bool:
        with contextlib.suppress(UpstreamError):
            return await self._upstream.page(self._wants[0].name) is not None
        return False

    def _date(self, site: SiteLag) -> None:
        if site.unreachable is not None:
            return
        if site.serials == 0 or (site.serials is None and site.projects and not site.behind and not site.unchecked):
            site.seconds = 0.0
        elif site.last_modified is not None:
            site.seconds = max(0.0, self._now() - site.last_modified)

    # -- projects ---------------------------------------------------------------------------------------------------

    async def _projects(self, report: Report) -> None:
        queue = iter(self._wants)

        async def drain() -> None:
            for want in queue:
                await self._project(want, report)
                self._done()

        async with asyncio.TaskGroup() as crew:
            for _ in range(min(_AT_ONCE, len(self._wants))):
                crew.create_task(drain())
        report.unknown.sort()

    async def _project(self, want: Want, report: Report) -> None:
        if report.unreachable is not None:
            return
        right, failure = await self._ask(self._upstream, want)
        if failure is not None:
            self._upstream_failures += 1
            if self._upstream_failures >= _FAILURES:
                report.unreachable = report.unreachable or failure
        else:
            self._upstream_failures = 0
        reachable = [number for number, site in enumerate(report.sites) if site.unreachable is None]
        found = await asyncio.gather(*(self._ask(self._candidates[number].client, want) for number in reachable))
        if right is None and failure is None and not any(answer or reason for answer, reason in found):
            report.unknown.append(want.name)
            return
        for number, (answer, reason) in zip(reachable, found, strict=True):
            site = report.sites[number]
            if reason is not None:
                self._failures[number] += 1
                if self._failures[number] >= _FAILURES:
                    site.unreachable = site.unreachable or reason
            else:
                self._failures[number] = 0
            if failure is not None or reason is not None:
                site.projects.append(ProjectLag(want.name, "unchecked", reason=reason or failure))
            else:
                site.projects.append(self._compared(want, right, answer))

    @staticmethod
    async def _ask(client: Upstream, want: Want) -> tuple[PageAnswer | None, str | None]:
        """The page, or None for a project that is not there; or why nobody knows."""
        try:
            return await client.page(want.name), None
        except Missing:
            return None, None
        except Unavailable as error:
            return None, str(error)
        except UpstreamError as error:
            return None, str(error)

    def _compared(self, want: Want, right: PageAnswer | None, shown: PageAnswer | None) -> ProjectLag:
        ours, theirs = (one.serial if one is not None else None for one in (shown, right))
        if right is None or shown is None:
            state: State = "absent" if shown is None else "removed"
            if shown is None and right is not None and want.restricted and not any(map(want.wants, right.page.files)):
                state = "older"
            one = ProjectLag(want.name, state, ours, theirs)
            if shown is None and right is not None:
                self._missing(one, right.page, [file.filename for file in right.page.files if want.wants(file)])
            return one
        different = compare(right.page, shown.page, want.wants)
        one = ProjectLag(want.name, "current", ours, theirs, missing_versions=different.missing_versions[:_LISTED])
        self._missing(one, right.page, different.missing)
        one.extra, one.extra_files = len(different.extra), different.extra[:_LISTED]
        one.changed, one.changed_files = len(different.changed), different.changed[:_LISTED]
        if shown.serial is not None and right.serial is not None and shown.serial > right.serial:
            one.state = "current"  # upstream answered from an old copy
        elif different.any:
            one.state = "behind"
        elif one.serials:
            one.state = "older" if want.restricted else "behind"
        return one

    def _missing(self, one: ProjectLag, right: ProjectPage, names: list[str]) -> None:
        one.missing, one.missing_files = len(names), sorted(names)[:_LISTED]
        wanted = set(names)
        times = [_uploaded(file.upload_time) for file in right.files if file.filename in wanted]
        known = [moment for moment in times if moment is not None]
        if known and len(known) == len(times):
            one.seconds = max(0.0, self._now() - min(known))


def _uploaded(text: str | None) -> float | None:
    found = _UPLOADED.fullmatch(text or "")
    try:
        return float(calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S"))) if found else None
    except ValueError:
        return None
