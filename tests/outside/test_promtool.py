"""Prometheus' own tool: what we export is in good form, the rules are right, and alarm when they should."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from heliostat.service.metrics import render, render_text
from support.exported import CONFIGS, REPOSITORY, everything

pytestmark = pytest.mark.outside

RULES = CONFIGS / "prometheus-alerts.yml"
CASES = Path(__file__).parent / "alerts_test.yml"


def promtool(*arguments: str | Path, stdin: bytes = b"") -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert not done.stderr, done.stderr.decode()  # where "check metrics" says what is no good form


def test_what_is_exported_is_in_good_form() -> None:
    promtool("check", "metrics", stdin=render(everything(), None)[0])


def test_so_is_the_text_file() -> None:
    promtool("check", "metrics", stdin=render_text(everything(process=None)))


def test_the_check_finds_what_is_wrong() -> None:
    with pytest.raises(AssertionError, match="counter metrics should have"):
        promtool("check", "metrics", stdin=b"# HELP x_y Text.\n# TYPE x_y counter\nx_y 1\n")


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", RULES)


def cases(folder: Path, rules: str) -> Path:
    (folder / "rules.yml").write_text(rules, encoding="utf-8")
    (folder / "cases.yml").write_text(
        CASES.read_text(encoding="utf-8").replace("{rules}", "rules.yml"), encoding="utf-8"
    )
    return folder / "cases.yml"


def test_the_rules_alarm_when_they_should(tmp_path: Path) -> None:
    promtool("test", "rules", cases(tmp_path, RULES.read_text(encoding="utf-8")))


def test_the_cases_know_each_rule() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    well, wrong, _ = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    assert sorted(case["alertname"] for case in well["alert_rule_test"]) == sorted(alerts)
    assert not any(case["exp_alerts"] for case in well["alert_rule_test"])
    (question,) = wrong["promql_expr_test"]
    assert [f'{{alertname="{alert}"}}' for alert in sorted(alerts)] == [
        one["labels"] for one in question["exp_samples"]
    ]


@pytest.mark.parametrize("always", [False, True])
def test_rules_that_never_or_always_alarm_are_found(always: bool, tmp_path: Path) -> None:
    loaded = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for rule in loaded["groups"][0]["rules"]:
        rule["expr"] = "vector(1)" if always else "vector(1) == 0"
    with pytest.raises(AssertionError, match="HeliostatHangs"):
        promtool("test", "rules", cases(tmp_path, yaml.safe_dump(loaded)))


def test_the_dashboard_asks_well_formed_questions(tmp_path: Path) -> None:
    dashboard = json.loads((CONFIGS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 20
    rules = [
        {"record": f"question:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(asked)
    ]
    (tmp_path / "questions.yml").write_text(yaml.safe_dump({"groups": [{"name": "questions", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "questions.yml")


def test_the_configuration_in_the_documentation(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "prometheus.yml").write_text(snippet, encoding="utf-8")
    (tmp_path / RULES.name).write_text(RULES.read_text(encoding="utf-8"), encoding="utf-8")
    promtool("check", "config", tmp_path / "prometheus.yml")
