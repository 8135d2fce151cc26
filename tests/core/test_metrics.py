"""What is exported: complete, documented, in Prometheus' form; the rules and the dashboard name nothing else."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from heliostat.errors import (
    ConfigError,
    IntegrityError,
    Invalid,
    MirrorLocked,
    RateLimited,
    StateError,
    StoreError,
    Unavailable,
    UpstreamChanged,
)
from heliostat.mirror.report import Summary
from heliostat.mirror.tally import Tally
from heliostat.service.figures import Figures, Process, why_not_ready
from heliostat.service.health import Scrub
from heliostat.service.metrics import families, render, render_text
from heliostat.service.results import result_of, result_of_error
from heliostat.upstream.faults import NotConnected, TimedOut
from heliostat.upstream.sources import Sources
from heliostat.upstream.traffic import Fault, Histogram, Kind, Traffic, fault_of
from support.exported import (
    CONFIG,
    CONFIGS,
    NOW,
    REPOSITORY,
    Exported,
    everything,
    exported,
    health,
    ledger_figures,
    named_in,
)

ALL = exported(everything())
#: Of prometheus_client's own collector.
PROCESS = {
    "process_cpu_seconds_total", "process_open_fds", "process_max_fds", "process_resident_memory_bytes",
    "process_virtual_memory_bytes", "process_start_time_seconds",
}  # fmt: skip


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(figures: Figures, name: str, **labels: str) -> float | None:
    """What is exported under this name with these labels."""
    found = samples(render(figures, None)[0].decode())
    return found.get((name, frozenset(labels.items())))


# --- documents, rules, dashboard ---------------------------------------------------------------------------------


def documented() -> dict[str, tuple[Exported, bool]]:
    """The rows of the table in the documentation, and whether they are marked with ``once``."""
    found = {}
    text = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, kind, labels, once in re.findall(
        r"^\| `(heliostat_\w+)` \| (\w+) \| ([^|]*) \| (once)? *\| \S", text, re.MULTILINE
    ):
        assert name not in found, name
        found[name] = (Exported(kind, frozenset(re.findall(r"`(\w+)`", labels))), bool(once))
    return found


def test_the_documentation_has_every_metric_and_no_other() -> None:
    assert {name: described for name, (described, _) in documented().items()} == ALL


def test_the_documentation_says_which_are_in_the_text_file() -> None:
    marked = {name for name, (_, once) in documented().items() if once}
    assert marked == set(exported(everything(process=None)))


def test_names_follow_the_conventions() -> None:
    assert len(ALL) > 40
    for name, described in ALL.items():
        assert re.fullmatch(r"heliostat(_[a-z]+)+", name), name
        assert name.endswith("_total") == (described.kind == "counter"), name
        if described.kind == "histogram":
            assert name.endswith(("_seconds", "_bytes")), name
        assert not {"le", "job", "instance"} & described.labels
    for family in families(everything()):
        assert family.documentation.endswith("."), family.name


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((CONFIGS / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_names_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    named = named_in(rule["expr"])
    assert named <= set(ALL) | PROCESS, rule["expr"]
    assert named or rule["expr"].startswith("up{")
    for name, labels in re.findall(r"\b(heliostat_\w+)\{([^}]*)\}", rule["expr"]):
        for label, wanted in re.findall(r'(\w+)="(\w+)"', labels):
            known = {pair for family, pairs in SAMPLES for pair in pairs if family == name}
            assert label in ALL[name].labels, rule["expr"]
            assert (label, wanted) in known, rule["expr"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}


def test_what_rules_count_is_there_before_the_first_one() -> None:
    """``increase`` sees no step from nothing to something."""
    process = Process(
        health=health(scrub=Scrub(every=86400.0)), traffic=Traffic(), sources=Sources(CONFIG.upstream), done=Tally(),
        idle=0.0,
    )  # fmt: skip
    known = samples(render(everything(process=process), None)[0].decode())
    for rule in rules():
        for name, labels in re.findall(r"increase\((heliostat_\w+)(?:\{([^}]*)\})?\[", rule["expr"]):
            wanted = re.findall(r'(\w+)=~?"([^"]+)"', labels)
            for values in itertools.product(*(value.split("|") for _, value in wanted)):
                labelled = set(zip((label for label, _ in wanted), values, strict=True))
                assert any(name == one and labelled <= pairs for one, pairs in known), (rule["alert"], values)


SAMPLES = list(samples(render(everything(), None)[0].decode()))


def test_each_thing_an_operator_must_know_has_a_rule() -> None:
    names = {rule["alert"].removeprefix("Heliostat") for rule in rules()}
    wanted = {"Down", "Hangs", "Behind", "Incomplete", "ProjectsBlocked", "RemovalsHeld", "UpstreamUnreachable"}
    assert wanted | {"UpstreamChanged", "StoreRefuses", "DiskFull", "DiskFilling", "NoPoll"} <= names


DASHBOARD = json.loads((CONFIGS / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_dashboard_names_metrics_that_exist() -> None:
    named: set[str] = set()
    for panel in PANELS:
        for target in panel["targets"]:
            found = named_in(target["expr"])
            assert found, panel["title"]
            assert found <= set(ALL) | PROCESS, panel["title"]
            named |= found
            by = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
            assert by <= set().union(*(ALL[name].labels for name in found if name in ALL)), panel["title"]
    # what an operator must see at a glance
    assert {
        "heliostat_lag_seconds", "heliostat_lag_serials", "heliostat_projects", "heliostat_trouble",
        "heliostat_upstream_requests_total", "heliostat_upstream_broken_answers_total", "heliostat_disk_free_bytes",
    } <= named  # fmt: skip


def test_the_dashboard_works_with_any_data_source() -> None:
    (source,) = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    assert source["query"] == "prometheus"
    for panel in PANELS:
        for item in (panel, *panel["targets"]):
            assert item["datasource"] == {"type": "prometheus", "uid": "${" + source["name"] + "}"}
            assert "$datasource" not in item.get("expr", "")
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert "id" not in DASHBOARD  # it is the importing server's


# --- forms -------------------------------------------------------------------------------------------------------

OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/plain", "text/html, nonsense;;q=,", f"{OPEN}x;q=1"])
def test_the_usual_form(accept: str | None) -> None:
    body, kind = render(everything(), accept)
    assert kind.startswith("text/plain; version=")
    assert b"# EOF" not in body
    assert dict(samples(body.decode()))


@pytest.mark.parametrize("accept", [OPEN, f"{OPEN},text/plain;version=0.0.4;q=0.5,*/*;q=0.1"])
def test_openmetrics(accept: str) -> None:
    body, kind = render(everything(), accept)
    assert kind.startswith(OPEN)
    parsed = {family.name: family for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert parsed["heliostat_polls"].type == "counter"
    assert parsed["heliostat_upstream_request_duration_seconds"].type == "histogram"


def test_the_text_file_tells_mirrors_apart_and_leaves_the_process_out() -> None:
    found = samples(render_text(everything(process=None)).decode())
    assert {dict(labels)["directory"] for _, labels in found} == {"/srv/pypi"}
    assert not [name for name, _ in found if not name.startswith("heliostat_")]
    assert not [name for name, _ in found if name.endswith("_total")]


def test_what_is_not_known_is_left_out() -> None:
    figures = everything(ledger=None, disk=None, last=None, result=None, process=None)
    assert set(exported(figures)) == {"heliostat_build_info"}
    unknown = everything(ledger=ledger_figures(upstream_serial=None, behind_since=None, owed_since=None))
    for name in ("upstream_serial", "lag_serials", "lag_seconds"):
        assert value(unknown, f"heliostat_{name}") is None
    assert value(unknown, "heliostat_oldest_owed_seconds") == 0


# --- values ------------------------------------------------------------------------------------------------------


def test_position() -> None:
    figures = everything()
    assert value(figures, "heliostat_upstream_serial") == 120
    assert value(figures, "heliostat_checkpoint_serial") == 100
    assert value(figures, "heliostat_lag_serials") == 20
    assert value(figures, "heliostat_lag_seconds") == 50
    assert value(figures, "heliostat_oldest_owed_seconds") == 40
    assert value(figures, "heliostat_projects", state="failing") == 1
    assert value(figures, "heliostat_projects", state="held") == 0
    level = everything(ledger=ledger_figures(checkpoint=120, behind_since=None))
    assert (value(level, "heliostat_lag_serials"), value(level, "heliostat_lag_seconds")) == (0, 0)


def test_the_last_poll_is_the_later_one_of_ledger_and_process() -> None:
    name = "heliostat_last_poll_timestamp_seconds"
    assert value(everything(), name) == NOW - 25
    assert value(everything(result="unreachable"), name) == NOW - 30
    assert value(everything(result="interrupted", ledger=None), name) is None


def test_disk() -> None:
    figures = everything()
    assert value(figures, "heliostat_disk_free_bytes") == 10 << 30
    assert value(figures, "heliostat_disk_reserved_bytes") == pytest.approx(5 << 30)
    assert value(figures, "heliostat_disk_free_inodes") == 5000


def with_traffic(traffic: Traffic) -> Figures:
    process = Process(health=health(), traffic=traffic, sources=Sources(CONFIG.upstream), done=Tally(), idle=0.0)
    return everything(process=process)


def test_requests_by_endpoint_and_status() -> None:
    traffic = Traffic()
    for status in (200, 200, 404, 599, 0, 999, 10**6):
        traffic.answered(Kind.PAGE, status, 0.3)
    traffic.failed(Kind.PAGE, TimedOut("https://x", "late"))
    traffic.broke(Kind.FILE, IntegrityError("https://x", "size", "1", "2"))
    figures, name = with_traffic(traffic), "heliostat_upstream_requests_total"
    assert value(figures, name, endpoint="page", status="200") == 2
    assert value(figures, name, endpoint="page", status="404") == 1
    assert value(figures, name, endpoint="page", status="other") == 4
    assert value(figures, name, endpoint="page", status="timeout") == 1
    assert value(figures, "heliostat_upstream_broken_answers_total", endpoint="file", fault="integrity") == 1
    assert value(figures, name, endpoint="file", status="integrity") is None


def test_a_hostile_upstream_makes_no_more_series_than_http_has_statuses() -> None:
    traffic = Traffic()
    for status in range(1000):
        traffic.answered(Kind.PAGE, status, 0.0)
    found = samples(render(with_traffic(traffic), None)[0].decode())
    assert len([1 for name, _ in found if name == "heliostat_upstream_requests_total"]) < 80


def test_buckets_are_cumulative_and_bounds_inclusive() -> None:
    traffic = Traffic()
    for seconds in (0.001, 0.005, 0.006, 2.0, 1e9):
        traffic.answered(Kind.FILE, 200, seconds)
    figures, name = with_traffic(traffic), "heliostat_upstream_request_duration_seconds"
    buckets = {
        float(dict(labels)["le"]): count
        for (found, labels), count in samples(render(figures, None)[0].decode()).items()
        if found == f"{name}_bucket" and dict(labels)["endpoint"] == "file"
    }
    assert (buckets[0.005], buckets[0.01], buckets[1.0], buckets[2.5], buckets[math.inf]) == (2, 3, 3, 4, 5)
    assert list(buckets.values()) == sorted(buckets.values())
    assert value(figures, f"{name}_count", endpoint="file") == 5
    assert value(figures, f"{name}_sum", endpoint="file") == pytest.approx(2.012 + 1e9)


def test_a_histogram_keeps_each_value_once() -> None:
    counts = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 3.0):
        counts.add(number)
    assert (counts.counts, counts.sum) == ([2, 1, 1], 6.0)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimedOut("u", "r"), Fault.TIMEOUT),
        (NotConnected("u", "r"), Fault.UNREACHABLE),
        (Unavailable("u", "r"), Fault.RESET),
        (RateLimited("u", "r"), Fault.LIMITED),
        (Invalid("u", "r"), Fault.INVALID),
        (IntegrityError("u", "size", "1", "2"), Fault.INTEGRITY),
        (StateError("s"), Fault.OTHER),
    ],
)
def test_faults(error: Exception, fault: Fault) -> None:
    assert fault_of(error) == fault


# --- results and readiness ---------------------------------------------------------------------------------------

SUMMARY = Summary(upstream="https://x", started=NOW)


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({}, "complete"),
        ({"owed_by_state": {"failing": 1}}, "incomplete"),
        ({"owed_by_state": {"failing": 1}, "held": 2}, "held"),
        ({"owed_by_state": {"held": 2}}, "held"),
        ({"unreachable": "no", "held": 2}, "unreachable"),
        ({"unreachable": "no", "interrupted": True}, "interrupted"),
        ({"unreachable": "no", "store_error": "full"}, "store"),
    ],
)
def test_results(changes: dict[str, Any], result: str) -> None:
    assert result_of(msgspec.structs.replace(SUMMARY, **changes)) == result


def test_results_of_errors() -> None:
    assert result_of_error(UpstreamChanged("x")) == "approval"
    assert result_of_error(StoreError("open", "x", "full")) == "store"
    assert result_of_error(StateError("x")) == "store"
    assert result_of_error(MirrorLocked("x", "y")) is None
    assert result_of_error(ConfigError(["x"])) is None


LEVEL = {"checkpoint": 120, "behind_since": None}


@pytest.mark.parametrize(
    ("ledger", "answered", "reason"),
    [
        (LEVEL, NOW - 20, None),
        ({}, NOW - 20, None),
        ({"behind_since": NOW - 899}, NOW - 20, None),
        ({"behind_since": NOW - 901}, NOW - 20, "20 serials behind since 901 s"),
        ({"behind_since": None}, NOW - 20, "20 serials behind"),
        ({"last_poll": None}, NOW - 20, "no poll ran to its end yet"),
        ({**LEVEL, "last_poll": NOW - 5000}, NOW - 20, None),
        ({**LEVEL, "last_poll": NOW - 5000}, NOW - 1100, "upstream was heard 1100 s ago"),
        ({**LEVEL, "last_poll": NOW - 500}, None, None),
        ({**LEVEL, "upstream_serial": None}, NOW - 20, None),
        (None, NOW - 20, "the ledger cannot be read"),
    ],
)
def test_readiness(ledger: dict[str, Any] | None, answered: float | None, reason: str | None) -> None:
    figures = everything(
        ledger=None if ledger is None else ledger_figures(**ledger),
        last=None,
        result=None,
        process=Process(
            health=health(answered=answered), traffic=Traffic(), sources=Sources(CONFIG.upstream), done=Tally(), idle=0
        ),
    )
    assert why_not_ready(figures) == reason
