"""What ``heliostat lag`` says: words, JSON, or the setting of an installer."""

from __future__ import annotations

import shlex
import sys
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from heliostat.cli import format as fmt
from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.options import Options
from heliostat.cli.output import show
from heliostat.config.addresses import is_this_machine
from heliostat.mirror.sites.lag import ProjectLag, Report, SiteLag, Tolerance, is_current, rank
from heliostat.mirror.sites.listing import moment

#: Projects and files that are listed in words; --json has all projects.
_PROJECTS, _FILES = 100, 5


class Asked(msgspec.Struct):
    """What decides on the answer."""

    #: Whether projects were named.
    projects: bool
    tolerance: Tolerance
    #: Whether the best site is to come first.
    ranked: bool
    pick: str | None
    #: What was left out on the way, and why.
    notes: list[str]


def report(options: Options, found: Report, asked: Asked) -> int:
    """Print it; the exit code."""
    if asked.ranked or asked.pick:
        found.sites = rank(found.sites, asked.tolerance, asked=asked.projects)
    if asked.pick is not None:
        return _pick(options, found, asked)
    code = _code(found, found.sites, asked)
    return show(options, code, _words(found, asked), _figures(found, asked))


def state(found: Report, site: SiteLag, asked: Asked) -> Literal["current", "behind", "unreachable", "unknown"]:
    """Of one site; ``unknown`` when nobody can tell, because upstream or some projects could not be read."""
    if site.unreachable is not None:
        return "unreachable"
    if found.unreachable is not None:
        return "unknown"
    if not asked.projects and (site.serial is None or site.upstream_serial is None):
        return "unknown"
    if not is_current(site, asked.tolerance, asked=asked.projects):
        return "behind"
    return "unknown" if site.unchecked else "current"


def _code(found: Report, sites: list[SiteLag], asked: Asked) -> ExitCode:
    states = {state(found, one, asked) for one in sites}
    if states & {"unreachable", "unknown"} or found.unreachable is not None:
        return ExitCode.UPSTREAM
    return ExitCode.INCOMPLETE if "behind" in states else ExitCode.COMPLETE


# --- the best site -----------------------------------------------------------------------------------------------


def _pick(options: Options, found: Report, asked: Asked) -> int:
    best = next(iter(found.sites), None)
    if best is None or best.unreachable is not None:
        reason = best.unreachable if best is not None else "the list is empty"
        return show(options, ExitCode.UPSTREAM, [], _figures(found, asked)) if options.json else _say_none(reason)
    code = _code(found, [best], asked)
    settings = setting(asked.pick or "pip", best.url)
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    if code and not options.json:
        why = found.unreachable or f"the best of them is {state(found, best, asked)}"
        print(f"heliostat: {fmt.plain(best.url)}: {fmt.plain(why)}", file=sys.stderr)
    figures = {**_figures(found, asked), "pick": {"url": best.url, "name": best.name, "settings": settings}}
    if options.quiet and not code:
        options = Options(json=options.json)  # the setting is what was asked for
    return show(options, code, lines, figures)


def _say_none(reason: str | None) -> int:
    print(f"heliostat: no mirror to pick: {fmt.plain(reason or '')}", file=sys.stderr)
    return ExitCode.UPSTREAM


def setting(installer: str, url: str) -> dict[str, str]:
    """The environment variables with which an installer uses the index at ``url``."""
    if installer == "uv":
        return {"UV_DEFAULT_INDEX": f"{url}/simple/"}
    settings = {"PIP_INDEX_URL": f"{url}/simple/"}
    if url.startswith("http:") and not is_this_machine(url):
        settings["PIP_TRUSTED_HOST"] = urlsplit(url).netloc
    return settings


# --- words -------------------------------------------------------------------------------------------------------


def _words(found: Report, asked: Asked) -> list[str]:
    lines = []
    if found.unreachable is not None:
        lines.append(f"upstream {found.upstream}: no usable answer: {found.unreachable}")
    else:
        serial = fmt.number(found.upstream_serial) if found.upstream_serial is not None else "not told"
        lines.append(f"upstream {found.upstream}: serial {serial}")
    for site in found.sites:
        lines += _site(found, site, asked)
    if found.unknown:
        lines.append(f"upstream does not have: {', '.join(found.unknown)}")
    lines += [f"left out: {note}" for note in asked.notes]
    return [fmt.plain(line) for line in lines]


def _site(found: Report, site: SiteLag, asked: Asked) -> list[str]:
    whose = f"{site.name} ({site.url})" if site.name else site.url
    what = state(found, site, asked)
    if site.unreachable is not None:
        return [f"{whose}: unreachable: {site.unreachable}"]
    parts = [f"serial {fmt.number(site.serial)}" if site.serial is not None else "tells no serial"]
    if site.serials:
        parts.append(f"{fmt.counted(site.serials, 'serial')} behind")
    if site.seconds:
        parts.append(f"complete {fmt.duration(site.seconds)} ago")
    elif site.seconds is None:
        parts.append("does not tell when it was complete")
    if asked.projects:
        there = [one for one in site.projects if not one.behind and one.state != "unchecked"]
        parts.append(f"{len(there)} of {fmt.counted(len(site.projects), 'project')} current")
    lines = [f"{whose}: {what}: {', '.join(parts)}"]
    telling = [one for one in site.projects if one.state != "current"]
    lines += [f"    {_project(one)}" for one in telling[:_PROJECTS]]
    if len(telling) > _PROJECTS:
        lines.append(f"    ... and {fmt.counted(len(telling) - _PROJECTS, 'project')} more; --json lists all")
    return lines


def _project(one: ProjectLag) -> str:
    if one.state == "unchecked":
        return f"{one.project}: could not be checked: {one.reason}"
    if one.state == "removed":
        return f"{one.project}: upstream has it no more"
    parts = []
    if one.serials:
        parts.append(f"{fmt.counted(one.serials, 'serial')} ({one.serial}, upstream {one.upstream_serial})")
    for count, names, what in (
        (one.missing, one.missing_files, "missing"),
        (one.extra, one.extra_files, "that upstream does not list"),
        (one.changed, one.changed_files, "described otherwise"),
    ):
        if count:
            more = ", ..." if count > _FILES else ""
            parts.append(f"{fmt.counted(count, 'file')} {what} ({', '.join(names[:_FILES])}{more})")
    if one.missing_versions:
        parts.append(f"without version {', '.join(one.missing_versions[:_FILES])}")
    if one.seconds is not None:
        parts.append(f"since {fmt.duration(one.seconds)}")
    words = {"absent": "not there", "older": "older, but what was asked for is there", "behind": "behind"}
    return f"{one.project}: {words[one.state]}: {'; '.join(parts)}" if parts else f"{one.project}: {words[one.state]}"


# --- JSON --------------------------------------------------------------------------------------------------------


def _figures(found: Report, asked: Asked) -> dict[str, Any]:
    return {
        "upstream": {"url": found.upstream, "serial": found.upstream_serial, "unreachable": found.unreachable},
        "sites": [_site_figures(found, site, asked) for site in found.sites],
        "unknown": found.unknown,
        "left_out": asked.notes,
    }


def _site_figures(found: Report, site: SiteLag, asked: Asked) -> dict[str, Any]:
    return {
        "name": site.name, "url": site.url, "state": state(found, site, asked), "serial": site.serial,
        "serials_behind": site.serials, "seconds_behind": None if site.seconds is None else round(site.seconds, 3),
        "last_modified": moment(site.last_modified), "unreachable": site.unreachable,
        "projects": [
            {**msgspec.to_builtins(one), "serials_behind": one.serials, "behind": one.behind} for one in site.projects
        ],
    }  # fmt: skip
