"""When the daemon polls next: an interval with jitter, pauses that double after trouble, and what upstream asks for."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from heliostat.config import Config, MirrorConfig, ServiceConfig, UpstreamConfig
from heliostat.service.timing import Timing, paused

CONFIG = Config(
    mirror=MirrorConfig(directory="/x", interval=100.0),
    upstream=UpstreamConfig(url=("https://index.example",)),
    service=ServiceConfig(jitter=0.0, back_off_most=900.0),
    source="x",
)


def pauses_after_failures(timing: Timing, count: int) -> list[int]:
    found = []
    for _ in range(count):
        timing.failed(None)
        found.append(round(timing.left()))
    return found


def test_pauses_double_up_to_the_ceiling_and_are_ordinary_after_the_first_good_answer() -> None:
    timing = Timing(CONFIG)
    assert pauses_after_failures(timing, 6) == [100, 200, 400, 800, 900, 900]
    timing.answered()
    timing.well()
    assert round(timing.left()) == 100
    assert pauses_after_failures(timing, 2) == [100, 200]


def test_very_many_failures_are_no_overflow() -> None:
    timing = Timing(CONFIG)
    assert set(pauses_after_failures(timing, 2000)[10:]) == {900}


def test_an_interval_above_the_ceiling_is_never_shortened() -> None:
    timing = Timing(replace(CONFIG, service=replace(CONFIG.service, back_off_most=1.0)))
    assert pauses_after_failures(timing, 3) == [100, 100, 100]


@pytest.mark.parametrize(("asked", "kept"), [(5.0, 100), (450.0, 450), (10.0**9, 900)])
def test_a_wait_that_upstream_asks_for_is_kept_within_reason(asked: float, kept: int) -> None:
    timing = Timing(CONFIG)
    timing.failed(asked)
    assert round(timing.left()) == kept


def test_jitter_goes_both_ways_and_never_above_the_ceiling() -> None:
    timing = Timing(replace(CONFIG, service=replace(CONFIG.service, jitter=0.5)))
    seen = []
    for _ in range(200):
        timing.answered()
        seen.append(timing.left())
    assert 49 < min(seen) < 75 < 125 < max(seen) <= 150
    pauses_after_failures(timing, 20)
    assert all(400 < pause <= 900 for pause in pauses_after_failures(timing, 200))


def test_what_is_owed_does_not_make_the_loop_spin() -> None:
    timing = Timing(CONFIG)
    now = time.monotonic()
    assert timing.when(time.time() - 100) >= now + 0.9
    assert 49 < timing.when(time.time() + 50) - time.monotonic() <= 50


def test_a_short_pause_is_not_shown_as_none() -> None:
    assert [paused(seconds) for seconds in (0.25, 1, 9.94, 9.96, 900)] == ["0.2 s", "1.0 s", "9.9 s", "10 s", "900 s"]
