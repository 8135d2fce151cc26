"""When a request is tried again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import FeedUnsupported, IntegrityError, Invalid, Missing, RateLimited, Unavailable
from heliostat.upstream import retry

URL = "https://index.example/x"
NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Unavailable(URL, "reset"), True),
        (Unavailable(URL, "status 500", status=500), True),
        (Unavailable(URL, "status 503", status=503), True),
        (Unavailable(URL, "status 408", status=408), True),
        (RateLimited(URL, "slow down", status=429, retry_after=30.0), True),
        (RateLimited(URL, "a fault", retry_after=None), True),
        (RateLimited(URL, "slow down", status=429, retry_after=601.0), False),
        (Unavailable(URL, "status 403", status=403), False),
        (Unavailable(URL, "status 401", status=401), False),
        (Missing(URL, "status 404"), False),
        (FeedUnsupported(URL, "none"), False),
        (IntegrityError(URL, "size", "1", "2"), False),
        (Invalid(URL, "garbage"), True),
    ],
)
def test_what_is_worth_another_try(error: Unavailable, again: bool) -> None:
    assert retry.worth_retrying(error, 1, 5) is again
    assert not retry.worth_retrying(error, 5, 5)


def test_a_wrong_answer_is_asked_for_once_more_only() -> None:
    error = Invalid(URL, "garbage")
    assert [retry.worth_retrying(error, tries, 5) for tries in (1, 2, 3)] == [True, False, False]
    assert not retry.worth_retrying(error, 1, 1)


def test_the_pause_doubles_up_to_its_bound() -> None:
    pauses = [retry.pause(n, None, first=1.0, most=10.0, random=lambda: 1.0) for n in range(6)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert retry.pause(10_000, None, first=1.0, most=10.0, random=lambda: 0.5) == 5.0


@given(
    st.integers(0, 2000), st.floats(0, 100), st.floats(0, 1000), st.floats(0, 1), st.none() | st.floats(0, 10_000_000)
)
def test_the_pause_is_bounded_and_obeys_upstream(
    attempt: int, first: float, most: float, chance: float, asked: float | None
) -> None:
    error = Unavailable(URL, "busy", retry_after=asked)
    pause = retry.pause(attempt, error, first=first, most=most, random=lambda: chance)
    least = min(asked or 0.0, retry.MOST_RETRY_AFTER)
    assert least <= pause <= least + most


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", None, 120.0),
        (" 0 ", None, 0.0),
        ("1.5", None, 1.5),
        ("Mon, 21 Sep 2026 14:13:50 GMT", None, 30.0),
        ("Mon, 21 Sep 2026 14:13:50 GMT", "Mon, 21 Sep 2026 14:13:40 GMT", 10.0),
        ("Mon, 21 Sep 2026 14:13:50 GMT", "nonsense", 30.0),
        ("Monday, 21-Sep-26 14:13:50 GMT", None, 30.0),
        ("Mon, 21 Sep 2026 14:00:00 GMT", None, 0.0),
        (None, None, None),
        ("", None, None),
        ("soon", None, None),
        ("-5", None, None),
        ("1e9", None, None),
        ("nan", None, None),
        ("9" * 50, None, None),
        ("Mon, 99 Sep 2026 14:13:50 GMT", None, None),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry.retry_after(value, date, NOW) == seconds


@given(st.text(), st.text())
def test_no_header_breaks_it(value: str, date: str) -> None:
    seconds = retry.retry_after(value, date, NOW)
    assert seconds is None or seconds >= 0
