"""All metrics there are: what a daemon that has seen everything exports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import Metric

from heliostat.config.load import load_config
from heliostat.errors import IntegrityError, Unavailable
from heliostat.mirror.figures import STATES, DiskFigures, LedgerFigures
from heliostat.mirror.report import Summary
from heliostat.mirror.tally import Tally
from heliostat.service.figures import Figures, Process
from heliostat.service.health import Health, Scrub
from heliostat.service.metrics import families
from heliostat.service.pushing import Pushing, Told
from heliostat.upstream.client import Upstream
from heliostat.upstream.sources import Sources
from heliostat.upstream.traffic import Kind, Traffic

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
CONFIG = load_config('[mirror]\ndirectory = "/srv/pypi"\neverything = true\n', source="test")
#: A moment, in seconds since the epoch.
NOW = 1_800_000_000.0


class Exported(NamedTuple):
    kind: str
    labels: frozenset[str]


def ledger_figures(**changes: object) -> LedgerFigures:
    figures: dict[str, object] = {
        "upstream_serial": 120, "cursor": 120, "checkpoint": 100, "behind_since": NOW - 50, "owed_since": NOW - 40,
        "last_poll": NOW - 30, "states": dict.fromkeys(STATES, 0) | {"current": 10, "failing": 1}, "projects": 11,
        "files": 20, "bytes": 3000, "stuck": 1, "trouble": None, "trouble_since": None,
    }  # fmt: skip
    return LedgerFigures(**(figures | changes))  # type: ignore[arg-type]


def health(**changes: object) -> Health:
    scrub = Scrub(oldest=NOW - 9000, round_began=NOW - 800, share=0.5, every=86400.0, found={"digest": 1})
    pushing = Pushing(downstream={"http://region/ping": Told(done=2, failed=1, trouble="refused", since=NOW - 5)})
    known: dict[str, object] = {
        "started": NOW - 1000, "answered": NOW - 20, "next_poll": NOW + 40, "polls": 3, "pushing": pushing,
        "scrub": scrub,
    }  # fmt: skip
    return Health(**(known | changes))  # type: ignore[arg-type]


def busy_traffic() -> Traffic:
    """Every counter has something to count."""
    traffic = Traffic()
    Upstream(CONFIG.upstream, version="1", traffic=traffic)
    for kind in Kind:
        traffic.answered(kind, 200, 0.02)
        traffic.failed(kind, Unavailable("https://x", "gone"))
        traffic.broke(kind, IntegrityError("https://x", "size", "1", "2"))
    return traffic


def everything(**changes: object) -> Figures:
    process = Process(
        health=health(), traffic=busy_traffic(), sources=Sources(CONFIG.upstream), done=Tally(added=1), idle=0.5
    )
    known: dict[str, object] = {
        "config": CONFIG, "ledger": ledger_figures(), "disk": DiskFigures(10 << 30, 100 << 30, 5000),
        "last": Summary(upstream="https://x", started=NOW - 25, seconds=2.0), "result": "incomplete",
        "process": process, "now": NOW,
    }  # fmt: skip
    return Figures(**(known | changes))  # type: ignore[arg-type]


def exported(figures: Figures) -> dict[str, Exported]:
    """By name as it is scraped: counters with ``_total``, an info with ``_info``, histograms without a suffix."""
    return dict(_described(family) for family in families(figures))


def _described(family: Metric) -> tuple[str, Exported]:
    name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
    return name, Exported("gauge" if family.type == "info" else family.type, labels)


def named_in(expression: str) -> set[str]:
    """The metrics of ours, or of the process, that an expression of Prometheus names; a histogram by its own name."""
    found = set(re.findall(r"\b(?:heliostat|process)_[a-z_]+\b", expression))
    return {re.sub(r"_(bucket|sum|count)\Z", "", name) for name in found}
