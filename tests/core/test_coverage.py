"""Where a scrub is, and what it may promise: never that something was checked later than it was."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.mirror.coverage import MOST_OPEN, Round, weight
from heliostat.mirror.verify.findings import finding

DAY = 86400.0


def named(number: int) -> str:
    return f"p{number:05}"


def go_round(position: Round, count: int, start: float, step: float, size: int = 1000) -> float:
    """A whole round over so many projects; when it ends."""
    position.begin(start)
    total = weight(size * count, count)
    for number in range(count):
        start += step
        position.passed(named(number), size, total, start)
    return start


def test_nothing_is_promised_before_a_round_has_ended() -> None:
    position = Round()
    assert position.oldest() is None
    end = go_round(position, 10, 1000.0, 1.0)
    assert position.oldest() is None
    position.begin(end)
    assert position.oldest() == 1000.0


@given(
    count=st.integers(1, 300), done=st.integers(0, 300), size=st.integers(0, 10**9), step=st.floats(0.1, 1e6),
    rounds=st.integers(1, 3),
)  # fmt: skip
def test_what_is_promised_is_true_and_not_far_from_it(
    count: int, done: int, size: int, step: float, rounds: int
) -> None:
    position, now, checked = Round(), 1000.0, dict[str, float]()
    for _ in range(rounds):
        began = now
        now = go_round(position, count, began, step, size)
        checked = {named(number): began + step * (number + 1) for number in range(count)}
    position.begin(now)
    total = weight(size * count, count)
    for number in range(min(done, count)):
        now += step
        position.passed(named(number), size, total, now)
        checked[named(number)] = now
    promised = position.oldest()
    assert promised is not None
    oldest = min(checked.values())
    assert promised <= oldest + 1e-6
    assert oldest - promised <= step * (count / 48 + 2)
    assert len(msgspec.json.encode(position)) < 8192


def test_projects_that_come_and_go_do_not_make_it_lie() -> None:
    position = Round()
    end = go_round(position, 100, 1000.0, 10.0)
    position.begin(end)
    position.passed("p00050a", 0, weight(0, 100), end + 1)  # a new one
    promised = position.oldest()
    assert promised is not None
    assert promised <= 1510.0  # when p00050 was passed
    assert promised > 1400.0


def test_the_work_is_spread_over_the_time_there_is() -> None:
    position = Round()
    position.begin(0.0)
    total = weight(100_000, 10)
    dues = []
    for number in range(10):
        dues.append(position.due(total, 10 * DAY, 1.0))
        position.passed(named(number), 10_000, total, 1.0)
    assert dues[0] == 0.0
    assert dues == sorted(dues)
    assert dues[-1] == pytest.approx(0.9 * 9 * DAY)
    assert position.share(total) == 1.0
    assert position.next_begin(10 * DAY, 1.0) == pytest.approx(9 * DAY)


def test_a_clock_that_is_set_back_does_not_stop_it() -> None:
    position = Round()
    position.begin(1e9)
    assert position.due(100, DAY, 5.0) == 5.0
    assert position.next_begin(DAY, 5.0) <= 5.0 + DAY


def test_an_empty_mirror_is_checked_whole() -> None:
    position = Round()
    position.begin(0.0)
    assert position.share(0) == 1.0


def test_it_is_the_same_after_a_restart() -> None:
    position = Round()
    end = go_round(position, 60, 5.0, 1.0)
    position.begin(end)
    position.passed("p00001", 1000, weight(60_000, 60), end + 1)
    position.current, position.path = "p00002", "packages/aa/x"
    position.take(["p00001"], [finding("digest", "web/x", "p00001", "bad")])
    kept = msgspec.json.decode(msgspec.json.encode(position), type=Round)
    assert kept == position
    assert kept.oldest() == position.oldest()


def test_what_is_wrong_is_remembered_by_project() -> None:
    position = Round()
    first, second = finding("digest", "web/x", "a", "bad"), finding("missing", "web/y", "b", "gone")
    assert position.take(["a", "b"], [second, first]) == 0
    assert position.open == [first, second]
    position.take(["a"], [])
    assert position.open == [second]
    position.take(["c"], [second])
    assert position.open == [second]


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    position = Round()
    found = [finding("missing", f"web/{number}", "a", "gone") for number in range(MOST_OPEN + 7)]
    assert position.take(["a"], found) == 7
    assert len(position.open) == MOST_OPEN
