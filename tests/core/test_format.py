"""Figures and texts for people."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cli import format as fmt
from heliostat.cli import messages
from heliostat.cli.progress import Pace, line
from heliostat.mirror.report import Counters, Owed, Plan, Status, Summary


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (99.9 * 1024, "99.9 KiB"),
        (100 * 1024, "100 KiB"),
        (1023.6 * 1024, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (100 * 10**12, "90.9 TiB"),
        (1 << 70, "1048576 PiB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert fmt.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (86399, "1 d 0 h"),
        (5 * 86400 + 3 * 3600, "5 d 3 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


def test_rates_counts_and_moments() -> None:
    assert fmt.rate(10 << 20, 2) == "5.0 MiB/s"
    assert fmt.rate(1, 0) == "-"
    assert fmt.counted(1, "retry", "retries") == "1 retry"
    assert fmt.counted(2000, "retry", "retries") == "2,000 retries"
    assert fmt.moment(0) == "1970-01-01 00:00:00 UTC"
    assert fmt.moment(None) == "never"


@given(st.text(st.characters(codec=None)))
def test_plain_text_obeys_nothing(text: str) -> None:
    shown = fmt.plain(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800-\udfff]", shown)
    assert fmt.plain(shown) == shown
    assert fmt.plain("na\xefve \u65e5\u672c") == "na\xefve \u65e5\u672c"


def summary(**fields: object) -> Summary:
    return Summary(upstream="https://index.example", started=0.0, **fields)  # type: ignore[arg-type]


def test_the_closing_summary_says_what_happened() -> None:
    lines = messages.summary_lines(
        summary(
            seconds=2.0,
            upstream_serial=120,
            checkpoint=120,
            projects=3,
            added=2,
            updated=1,
            files_added=5,
            bytes_fetched=4 << 20,
            requests=12,
            retries=1,
        )
    )
    assert lines == [
        "complete: 2 projects added, 1 updated, 0 removed, 0 unchanged",
        "files: 5 added, 0 removed; 4.0 MiB fetched in 2.0 s (2.0 MiB/s), 12 requests, 1 retry",
        "mirror: 3 projects, complete to serial 120",
    ]


def owed(project: str, state: str = "failing", **fields: object) -> Owed:
    values = {"reason": "HTTP 500", "attempts": 2, "wanted_serial": 7, "due_at": None} | fields
    return Owed(project=project, state=state, **values)  # type: ignore[arg-type]


def test_the_closing_summary_lists_what_is_missing_and_why() -> None:
    text = "\n".join(
        messages.summary_lines(
            summary(
                upstream_serial=130,
                checkpoint=100,
                owed=[owed("bad\x1b[2J"), owed("odd", "blocked", reason="file name '..': no")],
                owed_by_state={"failing": 1, "blocked": 1, "pending": 0},
                unknown=["nosuch"],
                stuck=["slow"],
                stuck_count=3,
                held=4,
                held_by_scope=1,
                unreachable="refused\n",
                store_error="disk full",
            )
        )
    )
    assert text.startswith("incomplete: ")
    assert "complete to serial 100 of 130" in text
    assert "store: disk full" in text
    assert "upstream: refused\\n" in text
    assert "held: 4 removals wait for approval, 1 of them left out by the configuration; if that is meant, and" in text
    assert " upstream really removed the others: heliostat mirror --once --allow-removals 4\n" in text
    assert "not known to upstream: 1\n  nosuch" in text
    assert "upstream stays behind what it announced: 3\n  slow\n  and 2 more" in text
    assert "owed: 1 blocked, 1 failing\n  bad\\x1b[2J  failing: HTTP 500\n  odd  blocked: file name '..': no" in text


@pytest.mark.parametrize(
    ("held", "by_scope", "text"),
    [
        (1, 0, "1 removal waits for approval; if upstream really removed it: "),
        (5, 5, "5 removals wait for approval, left out by the configuration; if that is meant: "),
    ],
)
def test_what_is_held_says_why_and_how_it_is_approved(held: int, by_scope: int, text: str) -> None:
    line = f"held: {text}heliostat mirror --once --allow-removals {held}"
    assert line in messages.summary_lines(summary(held=held, held_by_scope=by_scope))
    plan = Plan(upstream="u", held=[f"p{number}" for number in range(held)], held_by_scope=by_scope)
    assert line in messages.plan_lines(plan)
    assert f"would hold: {held}" in messages.plan_lines(plan)


def test_an_interrupted_pass_says_so() -> None:
    assert messages.summary_lines(summary(interrupted=True))[0].startswith("interrupted: ")


def test_long_lists_end_with_how_many_there_are_more() -> None:
    many = [owed(f"p{number}") for number in range(150)]
    lines = messages.owed_lines(many, {"failing": 900})
    assert lines[0] == "owed: 900 failing"
    assert lines[-1] == "  and 800 more"
    assert len(lines) == 102
    assert messages.owed_lines([], {"failing": 0}) == []


def test_owed_rows_say_when_they_are_tried_again() -> None:
    assert messages.owed_lines([owed("p", due_at=0.0)], {})[1] == "  p  failing: HTTP 500 (due now, tried 2 times)"
    assert "next try in " in messages.owed_lines([owed("p", due_at=2.0**40)], {})[1]


def test_a_plan_lists_what_would_change() -> None:
    plan = Plan(upstream="u", adds=["a"], updates=["b"], removals=["c"], problems=[owed("d")], files=3, bytes=2048)
    plan.unreachable = "refused\n"
    assert messages.plan_lines(plan) == [
        "would add: 1",
        "  a",
        "would update: 1",
        "  b",
        "would remove: 1",
        "  c",
        "would fetch 3 files, 2.0 KiB; free: 0 B, 0 inodes",
        "upstream: refused\\n",
        "owed: 1",
        "  d  failing: HTTP 500",
    ]


def test_the_status_of_a_mirror() -> None:
    status = Status(
        directory="/srv/pypi",
        upstream="https://index.example",
        upstream_serial=130,
        upstream_seen=0.0,
        cursor=120,
        checkpoint=100,
        last_poll=None,
        states={"current": 8, "failing": 1, "gone": 0},
        projects=9,
        files=20,
        bytes=3 << 20,
        owed=[owed("p")],
        running="process 7",
        lag=30,
    )
    text = "\n".join(messages.status_lines(status, None, 1000.0))
    assert "complete to   serial 100, 30 behind" in text
    assert "serial 130 seen 1970-01-01 00:00:00 UTC" in text
    assert "last poll     never" in text
    assert "holds         9 projects, 20 files, 3.0 MiB" in text
    assert "states        8 current, 1 failing" in text
    assert "running       process 7" in text
    assert text.endswith("owed: 1 failing\n  p  failing: HTTP 500")


def test_progress_in_one_line() -> None:
    counters, pace = Counters(phase="projects", projects_total=100, bytes_total=1000 << 20), Pace()
    pace.feed(counters, 0.0)
    assert line(counters, pace) == "projects; 0 of 100 projects; 0 files, 0 B; -"
    counters.projects_done, counters.files_done, counters.bytes_done, counters.projects_failed = 20, 3, 100 << 20, 1
    pace.feed(counters, 10.0)
    assert line(counters, pace) == (
        "projects; 20 of 100 projects; 3 files, 100 MiB; 10.0 MiB/s; 1 failed; 1 min 30 s left"
    )


def test_time_left_is_what_takes_longer_and_nothing_while_unknown() -> None:
    counters, pace = Counters(projects_total=10), Pace()
    pace.feed(counters, 0.0)
    pace.feed(counters, 5.0)
    assert pace.left(counters) is None  # nothing moved
    counters.projects_done = 5
    pace.feed(counters, 10.0)
    assert pace.left(counters) == 10.0
    counters.bytes_total, counters.bytes_done = 1000, 100
    pace.feed(counters, 10.0)
    assert pace.left(counters) == 90.0
    counters.projects_done = 10
    assert pace.left(counters) == 90.0


def test_pace_forgets_what_is_long_past() -> None:
    counters, pace = Counters(), Pace()
    for second in range(100):
        counters.bytes_done = 1000 << 10 if second < 50 else (1000 << 10) + (second - 49 << 10)
        pace.feed(counters, float(second))
    assert pace.rate() == "1.0 KiB/s"
