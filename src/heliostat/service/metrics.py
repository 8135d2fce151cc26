"""The figures of a mirror in Prometheus' terms; docs/metrics.md describes each of them, and a test compares the two.

Everything is made of counts that are there anyway, at the moment it is asked for, so that between two scrapes nothing
is paid.  Nothing here reads the ledger or the disk: that is done beforehand, off the event loop.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder, generate_latest

from heliostat import __version__
from heliostat.mirror.figures import DiskFigures, LedgerFigures
from heliostat.mirror.report import Summary
from heliostat.mirror.verify.findings import KINDS
from heliostat.service.figures import Figures, Process
from heliostat.service.health import Result, Scrub, Trouble
from heliostat.service.pushing import Answer, Pushing, Told
from heliostat.upstream.sources import Sources
from heliostat.upstream.traffic import Fault, Histogram, Kind, Traffic

_STATUSES = frozenset(int(status) for status in HTTPStatus)


def render(figures: Figures, accept: str | None) -> tuple[bytes, str]:
    """The figures in the form that ``accept``, the header of a request, asks for; and its media type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures, {}))
    ProcessCollector(registry=registry)
    try:
        encoder, kind = choose_encoder(accept or "")
    except (TypeError, ValueError):  # a version that is none
        encoder, kind = generate_latest, CONTENT_TYPE_LATEST
    return encoder(registry), kind


def render_text(figures: Figures) -> bytes:
    """The figures for a file that node_exporter reads: it has process figures of its own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures, {"directory": figures.config.mirror.directory}))
    return generate_latest(registry)


class _Once:
    """Hands out the families of one moment; ``labels`` are put to every sample."""

    def __init__(self, figures: Figures, labels: Mapping[str, str]) -> None:
        self._figures, self._labels = figures, labels

    def collect(self) -> Iterator[Metric]:
        for family in families(self._figures):
            if self._labels:
                family.samples = [
                    sample._replace(labels={**sample.labels, **self._labels}) for sample in family.samples
                ]
            yield family


def families(figures: Figures) -> Iterator[Metric]:
    """All metrics of the moment."""
    build = InfoMetricFamily("heliostat_build", "Version of heliostat, and of Python.")
    build.add_metric([], {"version": __version__, "python": platform.python_version()})
    yield build
    yield from _position(figures)
    if figures.ledger is not None:
        yield from _holds(figures.ledger)
    if figures.disk is not None:
        yield from _disk(figures.disk, figures.config.mirror.min_free)
    if figures.result is not None:
        yield from _one_of(
            "last_pass_result", "How the last pass ended: 1 for what it was.", "result", Result, figures.result
        )
    if figures.last is not None:
        yield from _last_pass(figures.last)
    if figures.process is not None:
        process = figures.process
        yield from _daemon(process)
        yield from _push(process.health.pushing, figures.now)
        yield from _requests(process.traffic)
        yield from _work(process.traffic)
        yield from _pace(process.traffic, process.sources)
        if process.health.scrub is not None:
            yield from _scrub(process.health.scrub)


def _position(figures: Figures) -> Iterator[Metric]:
    ledger = figures.ledger
    if ledger is not None:
        yield from _gauge("upstream_serial", "Upstream's serial, as it was seen last.", ledger.upstream_serial)
        yield from _gauge("cursor_serial", "Changes are read up to this serial.", ledger.cursor)
        yield from _gauge("checkpoint_serial", "The mirror is complete up to this serial.", ledger.checkpoint)
        yield from _gauge("lag_serials", "Serials from the checkpoint to upstream's.", ledger.lag)
        owed = 0.0 if ledger.owed_since is None else max(0.0, figures.now - ledger.owed_since)
        yield from _gauge("oldest_owed_seconds", "Age of the oldest change that a project still owes.", owed)
    yield from _gauge("lag_seconds", "Age of the oldest change above the checkpoint; 0 without one.", figures.behind)
    yield from _gauge("last_poll_timestamp_seconds", "Start of the last poll that ran to its end.", figures.last_poll)


def _holds(ledger: LedgerFigures) -> Iterator[Metric]:
    yield from _gauges("projects", "Projects by state.", "state", ledger.states.items())
    yield from _gauge("served_projects", "Projects whose pages the mirror serves.", ledger.projects)
    yield from _gauge("served_files", "Files of these projects.", ledger.files)
    yield from _gauge("served_bytes", "Size of these files.", ledger.bytes)
    yield from _gauge(
        "stuck_projects", "Projects accepted as they are since upstream stays behind what it announced.", ledger.stuck
    )


def _disk(disk: DiskFigures, share: float) -> Iterator[Metric]:
    yield from _gauge("disk_free_bytes", "Free space of the mirror's file system.", disk.free)
    yield from _gauge("disk_size_bytes", "Size of the mirror's file system.", disk.size)
    yield from _gauge("disk_reserved_bytes", "Free space below which a pass ends (min-free).", disk.size * share)
    yield from _gauge("disk_free_inodes", "Free inodes of the mirror's file system, where it has a limit.", disk.inodes)


def _last_pass(last: Summary) -> Iterator[Metric]:
    yield from _gauge(
        "last_pass_timestamp_seconds", "When the last pass ended, whatever its result.", last.started + last.seconds
    )
    yield from _gauge("last_pass_duration_seconds", "How long the last pass took.", last.seconds)
    changes = {name: getattr(last, name) for name in ("added", "updated", "unchanged", "removed")}
    yield from _gauges(
        "last_pass_projects", "Projects of the last pass, by what became of them.", "change", changes.items()
    )
    yield from _gauge("last_pass_fetched_bytes", "Bytes of verified files of the last pass.", last.bytes_fetched)
    yield from _gauge("last_pass_requests", "Requests of the last pass.", last.requests)


def _daemon(process: Process) -> Iterator[Metric]:
    health, done = process.health, process.done
    passes = ((result, health.passes.get(result, 0)) for result in get_args(Result))
    yield _counter("passes", "Passes since the start, by their result.", "result", passes)
    yield _counter("polls", "Polls that upstream answered.", "", [("", health.polls)])
    yield from _one_of("trouble", "What makes the daemon back off: 1 for what does.", "kind", Trouble, health.trouble)
    yield from _gauge("upstream_answered_timestamp_seconds", "When upstream last answered a poll.", health.answered)
    yield from _gauge("next_poll_timestamp_seconds", "When the next poll is due.", health.next_poll)
    yield from _gauge("progress_age_seconds", "How long ago the loop last got on.", process.idle)
    counters = health.counters
    left = max(0, counters.projects_total - counters.projects_done) if health.phase == "working" else 0
    yield from _gauge("pass_remaining_projects", "Projects that the pass that runs has still to look at.", left)
    changes = (("added", done.added), ("updated", done.updated), ("unchanged", done.unchanged))
    yield _counter("projects_published", "Projects brought up to date, by what that changed.", "change", changes)
    yield _counter("projects_removed", "Projects removed.", "", [("", done.removed)])
    yield _counter("files_added", "Files, sidecars and provenance objects added.", "", [("", done.files_added)])
    yield _counter("files_removed", "Files removed.", "", [("", done.files_removed)])
    yield _counter("fetched_bytes", "Bytes of verified files.", "", [("", done.bytes_fetched)])


def _push(pushing: Pushing, now: float) -> Iterator[Metric]:
    answers = ((result, pushing.pings.get(result, 0)) for result in get_args(Answer))
    yield _counter("pings", "Pings to this mirror, by what they were answered.", "result", answers)
    sent = CounterMetricFamily("heliostat_downstream_pings", "Pings to other mirrors.", labels=("mirror", "result"))
    for mirror, told in pushing.downstream.items():
        sent.add_metric((mirror, "done"), told.done)
        sent.add_metric((mirror, "failed"), told.failed)
    yield sent
    failing = ((mirror, _age(told, now)) for mirror, told in pushing.downstream.items())
    yield from _gauges(
        "downstream_failing_seconds", "For how long pings to another mirror have failed.", "mirror", failing
    )
    hook = pushing.hook
    runs = (("done", hook.done), ("failed", hook.failed))
    yield _counter("hook_runs", "Runs of the hook.", "result", runs)
    yield from _gauge("hook_failing_seconds", "For how long the hook has failed.", _age(hook, now))
    yield from _gauge("hook_running", "1 while the hook runs.", float(pushing.running))


def _age(told: Told, now: float) -> float:
    return 0.0 if told.since is None else max(0.0, now - told.since)


def _requests(traffic: Traffic) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "heliostat_upstream_requests", "Requests by endpoint and status, or by what went wrong.", labels=_BY_STATUS
    )
    broken = CounterMetricFamily(
        "heliostat_upstream_broken_answers", "Answers that broke off or were wrong.", labels=("endpoint", "fault")
    )
    received = CounterMetricFamily(
        "heliostat_upstream_received_bytes", "Bytes of bodies, unpacked.", labels=("endpoint",)
    )
    waits = HistogramMetricFamily(
        "heliostat_upstream_request_duration_seconds", "From a request to the head of its answer.", labels=("endpoint",)
    )
    for kind in Kind:
        name = kind.name.lower()
        for status, count in _by_status(traffic.answers[kind]):
            requests.add_metric((name, status), count)
        for fault in Fault:
            if count := traffic.unanswered[kind][fault]:
                requests.add_metric((name, fault.name.lower()), count)
            # From the start, also as zero: an increase from nothing to something is none for Prometheus.
            if (count := traffic.broken[kind][fault]) or (kind, fault) in _CAN_BREAK:
                broken.add_metric((name, fault.name.lower()), count)
        received.add_metric((name,), traffic.received[kind])
        _add(waits, (name,), traffic.waits[kind])
    yield from (requests, broken, received, waits)
    yield _counter("upstream_retries", "Requests that were tried again.", "", [("", traffic.retries)])
    yield _counter(
        "upstream_rate_limited", "How often upstream said that it is asked too much.", "", [("", traffic.rate_limited)]
    )


_BY_STATUS = ("endpoint", "status")
#: How answers break off or are wrong, as a rule; an alert looks at some of it.
_CAN_BREAK = frozenset(
    (kind, fault)
    for kind in Kind
    for fault in (Fault.TIMEOUT, Fault.RESET, Fault.INVALID, Fault.INTEGRITY)
    if fault is not Fault.INTEGRITY or kind in (Kind.FILE, Kind.SIDECAR)
)


def _by_status(counts: list[int]) -> Iterator[tuple[str, int]]:
    """Statuses that there are; those that HTTP does not know are one: a hostile upstream could make hundreds."""
    other = 0
    for status, count in enumerate(counts):
        if count and status in _STATUSES:
            yield str(status), count
        else:
            other += count
    if other:
        yield "other", other


def _work(traffic: Traffic) -> Iterator[Metric]:
    yield from (
        _histogram("project_duration_seconds", "From a project's first request until it is durable.", traffic.projects),
        _histogram("file_duration_seconds", "From a file's first request until it is verified.", traffic.files),
        _histogram("file_size_bytes", "Sizes of files and sidecars fetched.", traffic.sizes),
        _counter("sidecars_from_wheels", "Sidecars taken out of their wheels.", "", [("", traffic.from_wheels)]),
        _histogram("batch_duration_seconds", "How long it takes to make a batch durable.", traffic.batches),
    )


def _pace(traffic: Traffic, sources: Sources) -> Iterator[Metric]:
    if traffic.pace is not None:
        pace = traffic.pace()
        gates = (("metadata", pace.metadata), ("files", pace.files))
        yield from _gauges(
            "upstream_limit_requests", "Requests allowed at a time, as the pace is now.", "gate",
            [(name, gate.limit) for name, gate in gates],
        )  # fmt: skip
        yield from _gauges(
            "upstream_limit_max_requests", "The configured bound of that.", "gate",
            [(name, gate.most) for name, gate in gates],
        )  # fmt: skip
        yield from _gauges(
            "upstream_in_flight_requests", "Requests that are being answered.", "gate",
            [(name, gate.in_flight) for name, gate in gates],
        )  # fmt: skip
        yield from _gauges(
            "upstream_waiting_requests", "Requests that wait for their turn.", "gate",
            [(name, gate.waiting) for name, gate in gates],
        )  # fmt: skip
        yield from _gauge("upstream_held_seconds", "For how long no request is sent, as upstream asked.", pace.held)
    yield from _gauges(
        "source_resting", "1 for a source of upstream that is left for others.", "source",
        [(one.base, float(one.rests_until is not None)) for one in sources.standings],
    )  # fmt: skip
    yield from _gauges(
        "source_in_use", "1 for the source of upstream that is asked.", "source",
        [(one.base, float(one is sources.in_use)) for one in sources.standings],
    )  # fmt: skip


def _scrub(scrub: Scrub) -> Iterator[Metric]:
    yield from _gauge(
        "scrub_oldest_check_timestamp_seconds", "All that is served was checked at this time or later.", scrub.oldest
    )
    yield from _gauge("scrub_round_start_timestamp_seconds", "When the round that runs began.", scrub.round_began)
    yield from _gauge("scrub_round_ratio", "Share of the mirror that is checked in this round.", scrub.share)
    yield from _gauge("scrub_every_seconds", "Within this time everything is to be checked.", scrub.every)
    yield _counter("scrub_projects", "Projects checked.", "", [("", scrub.projects)])
    yield _counter("scrub_files", "Files checked.", "", [("", scrub.files)])
    yield _counter("scrub_read_bytes", "Bytes read to check them.", "", [("", scrub.bytes)])
    found = ((kind, scrub.found.get(kind, 0)) for kind in KINDS if kind != "behind")
    yield _counter("scrub_findings", "What was found to be wrong, by what that is.", "kind", found)
    yield _counter("scrub_repaired", "Findings that were repaired.", "", [("", scrub.repaired)])
    yield from _gauge("scrub_unrepaired_findings", "Findings that could not be repaired so far.", scrub.unrepaired)
    yield from _gauge("scrub_in_trouble", "1 while the scrub cannot go on.", float(scrub.trouble is not None))


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """A gauge without labels; none where the value is not known."""
    if value is not None:
        yield GaugeMetricFamily(f"heliostat_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Iterator[Metric]:
    family = GaugeMetricFamily(f"heliostat_{name}", text, labels=(label,))
    for key, value in values:
        family.add_metric((key,), value)
    yield family


def _one_of(name: str, text: str, label: str, choice: object, value: str | None) -> Iterator[Metric]:
    yield from _gauges(name, text, label, [(one, float(one == value)) for one in get_args(choice)])


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(f"heliostat_{name}", text, labels=(label,) if label else ())
    for key, value in values:
        family.add_metric((key,) if label else (), value)
    return family


def _histogram(name: str, text: str, counts: Histogram) -> Metric:
    family = HistogramMetricFamily(f"heliostat_{name}", text, labels=())
    _add(family, (), counts)
    return family


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], counts: Histogram) -> None:
    """Prometheus' buckets hold all that is not above them."""
    total, buckets = 0, []
    for bound, count in zip((*counts.bounds, math.inf), counts.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == math.inf else repr(bound), float(total)))
    family.add_metric(labels, buckets, counts.sum)
