"""How a mirror stands, in words and as a page: what an operator must see at a glance."""

import io
from typing import Any

import pytest
from rich.console import Console

from heliostat.cli import status_words as words
from heliostat.cli.messages import status_lines
from heliostat.cli.status_page import page, problem
from heliostat.mirror.report import Counters, Owed, Status
from heliostat.service.health import Scrub
from heliostat.service.live import LastPass, Live, live_from

NOW = 1_000_000.0


def status(**changes: Any) -> Status:
    values: dict[str, Any] = {
        "directory": "/srv/pypi",
        "upstream": "https://index.example",
        "upstream_serial": 120,
        "upstream_seen": NOW - 12,
        "cursor": 120,
        "checkpoint": 120,
        "last_poll": NOW - 30,
        "states": {"current": 8},
        "projects": 8,
        "files": 20,
        "bytes": 3 << 20,
        "owed": [],
        "lag": 0,
    }
    return Status(**(values | changes))


def live(**changes: Any) -> Live:
    values: dict[str, Any] = {
        "version": "1.2",
        "started": NOW - 60,
        "phase": "waiting",
        "counters": Counters(),
        "next_poll": NOW + 40,
    }
    return Live(**(values | changes))


def shown(one: Status, daemon: Live | None, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(page(one, daemon, NOW, **more))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


WORKING = live(phase="working", counters=Counters(phase="projects", projects_total=9, projects_done=2))


@pytest.mark.parametrize(
    ("changes", "daemon", "word", "reason"),
    [
        ({}, None, "complete", "as upstream was"),
        ({"cursor": 0, "checkpoint": 0, "projects": 0, "lag": 120}, None, "empty", "nothing has been mirrored"),
        (
            {},
            live(phase="working", held_by="https://index.example", held_until=NOW + 60),
            "waiting",
            "https://index.example asks to wait until 1970-01-12 13:47:40 UTC",
        ),
        (
            {},
            live(held_by="https://index.example", held_until=NOW - 1),
            "complete",
            "as upstream was when it was last asked",
        ),
        ({"lag": 20, "cursor": 100, "checkpoint": 100}, None, "catching up", "changes are still to be read"),
        ({"lag": 20, "states": {"pending": 1}}, None, "catching up", "1 project to go"),
        ({"lag": 20, "states": {"pending": 5}}, WORKING, "catching up", "7 projects to go in this pass"),
        ({"states": {"failing": 2, "blocked": 1}}, None, "incomplete", "2 failing and 1 blocked"),
        ({"states": {"held": 3, "failing": 1}}, None, "incomplete", "--allow-removals 3"),
        ({"trouble": "disk full", "trouble_since": NOW - 60}, None, "in trouble", "for 1 min 00 s: disk full"),
        ({}, live(trouble="unreachable", trouble_text="refused"), "in trouble", "refused"),
        ({"trouble": "old"}, live(), "complete", "as upstream was"),  # the daemon knows better
    ],
)
def test_the_verdict(changes: dict[str, Any], daemon: Live | None, word: str, reason: str) -> None:
    one = status(**changes)
    found = words.verdict(one, daemon, NOW)
    assert found[0] == word
    assert reason in found[1]
    assert f"{word}: " in status_lines(one, daemon, NOW)[1]
    assert word in shown(one, daemon).splitlines()[0]
    assert reason in shown(one, daemon)


def test_the_page_of_a_busy_mirror() -> None:
    owed = [
        Owed(f"p{number}", "failing", f"HTTP 500 [red]x[/red]\n{'z' * 200}", 2, 7, NOW + 60) for number in range(40)
    ]
    one = status(
        lag=20, checkpoint=100, behind_since=NOW - 185, owed_since=NOW - 7800, owed=owed, states={"failing": 900},
        running="process 7 since then", disk_free=1 << 40, disk_total=40 << 40, inodes_free=5,
    )  # fmt: skip
    last = LastPass(started=NOW - 60, seconds=10, added=1, updated=2, removed=3, bytes_fetched=4096)
    daemon = live(
        phase="working", counters=Counters(phase="projects", projects_total=9), result="incomplete", last=last
    )
    text = shown(one, daemon, lines=30)
    for wanted in (
        "serial 100, 20 behind 120 for 3 min 05 s",
        "asked 12 s ago",
        "process 7 for 1 min 00 s, heliostat 1.2: projects, 0 of 9 projects",
        "incomplete 50 s ago: 1 added, 2 updated, 3 removed, 4.0 KiB in 10 s",
        "1.0 TiB of 40.0 TiB free (2%), 5 inodes",
        "Owed: 900 (900 failing; the oldest announced 2 h 10 min ago)",
        "HTTP 500 [red]x[/red]\\n",
        "in 1 min 00 s",
    ):
        assert wanted in text, wanted
    assert len(text.splitlines()) <= 30
    assert "and 888 more" in text
    assert "p11" in text
    assert "p12" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 300])
def test_every_width_has_a_page(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(page(status(owed=[Owed("p", "failing", "why", 1, 2, None)], states={"failing": 1}), live(), NOW))
    assert isinstance(console.file, io.StringIO)
    assert max(len(line) for line in console.file.getvalue().splitlines()) <= width


@pytest.mark.parametrize(
    ("scrub", "text"),
    [
        (None, None),
        (Scrub(), None),
        (Scrub(round_began=NOW - 5, share=0.126), "not everything yet, 13% in this round"),
        (Scrub(round_began=1.0, oldest=NOW - 3600, share=1.0), "everything within 1 h 00 min, 100% in this round"),
        (
            Scrub(round_began=1.0, found={"digest": 2, "missing": 1}, repaired=2, unrepaired=1, trouble="no disk"),
            "not everything yet, 0% in this round; 3 findings, 2 repaired; 1 not repaired; no disk",
        ),
    ],
)
def test_what_is_checked_all_the_time(scrub: Scrub | None, text: str | None) -> None:
    daemon = live(scrub=scrub)
    assert words.scrubbed(daemon, NOW) == text
    assert ("checked " in shown(status(), daemon)) == (text is not None)


def test_what_runs() -> None:
    assert words.process(status(), None, NOW) == "no"
    assert words.process(status(running="process 7 since x"), None, NOW) == "process 7 since x"
    assert words.process(status(running="process 7 since x"), live(), NOW).endswith("next poll in 40 s")
    assert words.process(status(), live(next_poll=NOW - 1), NOW).endswith("next poll now")
    assert words.process(status(), live(phase="stopping"), NOW).endswith("stopping")


def test_a_problem_is_a_page_too() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(problem("no ledger\x1b[2J"))
    assert isinstance(console.file, io.StringIO)
    assert "no ledger\\x1b[2J" in console.file.getvalue()


def test_another_version_of_the_daemon_is_none_at_all() -> None:
    assert live_from({"version": 3}) is None
    assert live_from("nonsense") is None
    told = {"version": "9", "started": 1.0, "phase": "waiting", "counters": {}, "something": {"new": 1}}
    assert live_from(told) is not None
