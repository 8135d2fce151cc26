"""The adaptive limit: always within its bounds, grows while that pays, backs off, and recovers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.upstream.limit import Limit


class Server:
    """A model of an upstream: so many requests at once go through without waiting, each taking ``latency`` seconds."""

    def __init__(self, limit: Limit, *, capacity: float, latency: float = 0.1) -> None:
        self.limit, self.capacity, self.latency = limit, capacity, latency
        self.now = 0.0

    def serve(self, count: int) -> list[int]:
        """``count`` requests, as many at once as is allowed; the limits that were in force."""
        seen = []
        for _ in range(count):
            at_once = self.limit.value
            rate = min(at_once, self.capacity) / self.latency
            self.now += 1 / rate
            self.limit.succeeded(self.now, at_once / rate, 1.0, saturated=True)
            seen.append(self.limit.value)
        return seen


def test_it_doubles_while_throughput_grows() -> None:
    limit = Limit(64)
    seen = Server(limit, capacity=1000).serve(400)
    assert sorted(set(seen)) == [4, 8, 16, 32, 64]
    assert limit.value == 64


def test_it_starts_no_higher_than_it_may() -> None:
    assert Limit(2).value == 2
    assert Limit(1).value == 1
    assert Limit(8, least=6).value == 6


def test_it_stops_where_more_at_once_brings_nothing() -> None:
    limit = Limit(256)
    seen = Server(limit, capacity=16).serve(5000)
    assert max(seen) <= 48
    assert limit.value >= 16


def test_it_stops_where_throughput_is_limited_although_answers_begin_at_once() -> None:
    limit, now, highest = Limit(256), 0.0, 0
    for _ in range(3000):
        now += 0.01  # as on a thin line: so many bytes a second, however many requests share it
        limit.succeeded(now, 0.01, 1.0, saturated=True)
        highest = max(highest, limit.value)
    assert highest <= 10


def test_it_stops_when_latency_doubles_although_throughput_grows() -> None:
    limit = Limit(256)
    now, latency = 0.0, {4: 0.1, 8: 0.1, 16: 0.25}
    for _ in range(100):
        now += 1 / limit.value**2
        limit.succeeded(now, latency.get(limit.value, 1.0), 1.0, saturated=True)
    assert limit.value == 16


def test_it_does_not_grow_when_nobody_waits() -> None:
    limit, now = Limit(64), 0.0
    for _ in range(500):
        now += 0.01
        limit.succeeded(now, 0.01, 1.0, saturated=False)
    assert limit.value == 4


def test_it_halves_once_for_one_round() -> None:
    limit = Limit(64)
    server = Server(limit, capacity=1000)
    server.serve(400)
    begun = server.now
    assert limit.overloaded(begun - 1.0, begun)
    assert limit.value == 32
    assert not limit.overloaded(begun - 0.5, begun + 0.1)
    assert limit.value == 32
    assert limit.overloaded(begun + 0.1, begun + 0.2)
    assert limit.value == 16


def test_it_finds_a_better_place_when_the_upstream_grows() -> None:
    limit = Limit(64)
    server = Server(limit, capacity=8)
    server.serve(2000)
    assert limit.value < 24
    server.capacity = 1000
    server.serve(20_000)
    assert limit.value == 64


def test_one_slow_request_among_many_is_its_own_fault() -> None:
    limit = Limit(64)
    server = Server(limit, capacity=1000)
    server.serve(400)
    before = limit.successes
    server.serve(64)
    assert not limit.timed_out(0.0, server.now, before)
    assert limit.value == 64
    assert limit.timed_out(0.0, server.now, limit.successes)
    assert limit.value == 32


def test_bounds_must_make_sense() -> None:
    with pytest.raises(ValueError, match="least"):
        Limit(0)
    with pytest.raises(ValueError, match="least"):
        Limit(2, least=3)


observations = st.lists(
    st.tuples(
        st.sampled_from(["good", "good", "good", "overloaded", "timed out"]),
        st.floats(0, 10),
        st.floats(0, 100),
        st.floats(0, 1e9),
        st.booleans(),
    ),
    max_size=300,
)


@given(st.integers(1, 300), st.integers(1, 4), observations)
def test_it_never_leaves_its_bounds_and_recovers(
    most: int, least: int, seen: list[tuple[str, float, float, float, bool]]
) -> None:
    least = min(least, most)
    limit, now = Limit(most, least=least), 0.0
    for what, passed, latency, work, saturated in seen:
        now += passed
        if what == "good":
            limit.succeeded(now, latency, work, saturated=saturated)
        elif what == "overloaded":
            limit.overloaded(now - latency, now)
        else:
            limit.timed_out(now - latency, now, limit.successes)
        assert least <= limit.value <= most
    # Then an upstream that bears anything: whatever happened, it gets back to the top.
    server = Server(limit, capacity=1000, latency=0.001)
    server.now = now
    for _ in range(200):
        if limit.value == most:
            break
        server.serve(50 * most)
    assert limit.value == most


def test_one_error_in_a_hundred_does_not_slow_down() -> None:
    limit = Limit(64)
    server = Server(limit, capacity=1000)
    server.serve(400)
    for _ in range(50):
        assert not limit.stumbled(server.now - 0.1, server.now)
        assert min(server.serve(99)) == 64


def test_one_error_in_five_does() -> None:
    limit = Limit(64)
    server = Server(limit, capacity=1000)
    server.serve(400)
    for _ in range(20):
        limit.stumbled(server.now - 0.1, server.now)
        server.serve(4)
    assert limit.value <= 48
