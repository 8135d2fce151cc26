"""``heliostat verify``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from heliostat.cli.options import common, current, settings
from heliostat.cli.param_types import Digests, Sample, Since, Size
from heliostat.cli.verify_sites import Sites, Way

if TYPE_CHECKING:
    pass


@click.command()
@click.option("--web-root", metavar="DIR", help="A web root alone, wherever it came from: no configuration, no ledger.")
@click.option("--quick", is_flag=True, help="Presence and sizes only; no file is read.")
@click.option("--against", type=click.Choice(["upstream"]), help="Let upstream's pages decide what is right.")
@click.option("--projects", metavar="NAME...", multiple=True, help="Only these projects.")
@click.option(
    "--since", type=Since(), help="Only projects changed after this serial, or written since this date (UTC)."
)
@click.option("--sample", type=Sample(), help="Hash only so many files, drawn anew each time, or such a share.")
@click.option("--bytes-per-second", type=Size(), help="Read no faster than this.")
@click.option("--idle", is_flag=True, help="Use the disk only when nobody else does, where the system can do that.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Threads; as many as cores otherwise.")
@click.option("--state", metavar="DIR", help="Where the position is kept, so that an interrupted verify goes on there.")
@click.option("--restart", is_flag=True, help="Begin anew, even if an earlier one was interrupted.")
@click.option("--junit", metavar="FILE", help="Write a report in JUnit's XML there as well.")
@click.option("--repair", is_flag=True, help="Fetch what is missing or damaged, write pages anew.")
@click.option("--delete-unreferenced", is_flag=True, help="Remove what no page names.")
@click.option(
    "--allow-removals", type=click.IntRange(min=0), default=0, metavar="N",
    help="Remove up to N files although they are an implausible share.",
)  # fmt: skip
@click.option("--site", "sites", metavar="URL", multiple=True, help="Verify this site over HTTP; may be repeated.")
@click.option("--digests", type=Digests(), help="With --site: read so many files, or such a share, and compare.")
@click.option("--allow-http", is_flag=True, help="With --site: ask other machines without encryption, too.")
@click.argument("names", nargs=-1, metavar="")
@common
def command(
    *,
    web_root: str | None,
    quick: bool,
    against: str | None,
    projects: tuple[str, ...],
    since: tuple[str, float] | None,
    sample: tuple[str, float] | None,
    bytes_per_second: int | None,
    idle: bool,
    workers: int | None,
    state: str | None,
    restart: bool,
    junit: str | None,
    repair: bool,
    delete_unreferenced: bool,
    allow_removals: int,
    sites: tuple[str, ...],
    digests: tuple[str, float] | None,
    allow_http: bool,
    names: tuple[str, ...],
) -> int:
    """Check that everything is there, and right: files, pages, links, ledger.

    With --site a copy elsewhere, over HTTP, held against this one, or against upstream (--against).

    Takes no lock and changes nothing, unless --repair or --delete-unreferenced says so.  Ends with 3 when something is
    wrong.  Interrupted, it goes on where it was the next time.
    """
    options = current()
    if names and not projects:
        raise click.UsageError(f"unexpected argument {names[0]!r}; to verify some projects only: --projects NAME...")
    if sites:
        wrong = {
            "--repair": repair, "--delete-unreferenced": delete_unreferenced, "--allow-removals": bool(allow_removals),
            "--sample": sample is not None, "--bytes-per-second": bytes_per_second is not None, "--idle": idle,
        }  # fmt: skip
        if any(wrong.values()):
            other = next(option for option, given in wrong.items() if given)
            raise click.UsageError(f"{other} is for a tree on this machine; leave it out with --site")
        if against and web_root is not None:
            raise click.UsageError("--against needs the mirror's configuration; leave --web-root out")
        from heliostat.mirror.verify.asked import SiteAsked

        site_asked = SiteAsked(
            quick=quick,
            projects=_names((*projects, *names)),
            since_serial=_whole(since, "serial"),
            since_time=_number(since, "time"),
            share=_number(digests, "share") or 0.0,
            most=_whole(digests, "most") or 0,
            against_upstream=against is not None,
        )
        config = None if web_root is not None else settings(secrets=False)
        return Sites(
            options, config, web_root, sites, site_asked, Way(state, restart, junit, workers, allow_http)
        ).run()
    if digests is not None or allow_http:
        raise click.UsageError(f"{'--digests' if digests else '--allow-http'} goes with --site")
    config = None if web_root is not None else settings(secrets=against is not None)
    if web_root is not None and (repair or delete_unreferenced or against):
        wish = "--repair" if repair else "--delete-unreferenced" if delete_unreferenced else "--against"
        raise click.UsageError(f"{wish} needs the mirror's configuration; with --web-root a tree is only looked at")
    if delete_unreferenced and (projects or since):
        raise click.UsageError("--delete-unreferenced needs a look at everything; leave --projects and --since out")
    from heliostat.cli.verify_tree import Tree
    from heliostat.mirror.verify.asked import Asked

    asked = Asked(
        quick=quick,
        projects=_names((*projects, *names)),
        since_serial=_whole(since, "serial"),
        since_time=_number(since, "time"),
        sample_share=_number(sample, "share"),
        sample_most=_whole(sample, "most"),
        against_upstream=against is not None,
    )
    tree = Tree(
        options, config, web_root, asked, state=state, restart=restart, junit=junit, repair=repair,
        delete=delete_unreferenced, allow=allow_removals, bytes_per_second=bytes_per_second, idle=idle, workers=workers,
    )  # fmt: skip
    return tree.run()


def _number(given: tuple[str, float] | None, kind: str) -> float | None:
    """What an option says that takes several kinds of value; None for another kind, or nothing."""
    return given[1] if given is not None and given[0] == kind else None


def _whole(given: tuple[str, float] | None, kind: str) -> int | None:
    number = _number(given, kind)
    return None if number is None else int(number)


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    from heliostat.names import normalise

    return tuple(sorted({normalise(name) for text in given for name in re.split(r"[,\s]+", text) if name}))
