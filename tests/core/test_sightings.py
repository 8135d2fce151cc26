"""Serials and when they were seen: what turns a lag in serials into one in seconds."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat.mirror.sightings import MOST, noted, seen_at


def test_a_serial_was_there_when_one_as_high_was_seen_first() -> None:
    text = noted(noted(noted(None, 10, 100.0), 20, 200.0), 30, 300.0)
    assert [seen_at(text, serial) for serial in (1, 10, 11, 20, 25, 30)] == [100.0, 100.0, 200.0, 200.0, 300.0, 300.0]
    assert seen_at(text, 31) is None


def test_seeing_the_same_again_says_nothing_new() -> None:
    text = noted(None, 10, 100.0)
    assert noted(text, 10, 500.0) == text


def test_an_index_that_went_back_begins_anew() -> None:
    assert seen_at(noted(noted(None, 10, 100.0), 5, 200.0), 4) == 200.0


def test_nothing_and_nonsense_are_nothing() -> None:
    assert seen_at(None, 1) is None
    assert seen_at("x@y 1", 1) is None


def test_recent_ones_are_exact_and_old_ones_nearly() -> None:
    text, start = "", 1_000_000.0
    for serial in range(1, 5001):
        text = noted(text, serial, start + 60.0 * serial)
    now = start + 60.0 * 5000
    assert len(text.split()) == MOST
    for serial in range(1, 5001):
        exact, found = now - (start + 60.0 * serial), seen_at(text, serial)
        assert found is not None
        told = now - found
        assert told <= exact  # never longer behind than it is
        assert exact - told <= max(60.0, 0.5 * exact), serial
    assert seen_at(text, 5000) == now


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6)), max_size=300), st.integers(0, 1000))
def test_it_stays_small_and_in_order(steps: list[tuple[int, float]], asked: int) -> None:
    text, now = "", 0.0
    for serial, later in steps:
        now += later
        text = noted(text, serial, now)
    pairs = [item.split("@") for item in text.split()]
    assert len(pairs) <= MOST
    assert [int(serial) for serial, _ in pairs] == sorted({int(serial) for serial, _ in pairs})
    assert [float(when) for _, when in pairs] == sorted(float(when) for _, when in pairs)
    assert (seen_at(text, asked) is None) == (not pairs or int(pairs[-1][0]) < asked)
