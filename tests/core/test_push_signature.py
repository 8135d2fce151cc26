"""Who a ping is from, and how many there may be: pure."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.service.allowance import Allowance
from heliostat.service.signature import SIGNATURE, SLACK, TIMESTAMP, Verifier, sign

SECRET = "correct horse battery staple"
NOW = 1_700_000_000.0
#: When the daemon started, unless it matters.
EARLIER = NOW - 1000


def problem(
    verifier: Verifier,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    secret: str = SECRET,
    now: float = NOW,
) -> str | None:
    return verifier.problem(
        secret, [headers[TIMESTAMP]], [headers[SIGNATURE]], body, now=now, window=300
    )  # fmt: skip


def test_it_is_hmac_sha256_of_timestamp_and_body() -> None:
    """By its definition (RFC 2104), so that others can make it."""
    key = SECRET.encode().ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in key) for pad in (0x36, 0x5C))
    body = b'{"projects": ["demo"]}'
    headers = sign(SECRET, body, NOW)
    message = headers[TIMESTAMP].encode() + b"." + body
    expected = hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).hexdigest()
    assert headers == {TIMESTAMP: "1700000000.000000", SIGNATURE: f"sha256={expected}"}


@given(st.text(min_size=1), st.binary())
def test_what_was_signed_is_accepted_once(secret: str, body: bytes) -> None:
    verifier, headers = Verifier(EARLIER), sign(secret, body, NOW)
    assert problem(verifier, headers, body, secret=secret) is None
    assert "taken before" in str(problem(verifier, headers, body, secret=secret))
    assert problem(verifier, sign(secret, body, NOW + 0.001), body, secret=secret) is None


@pytest.mark.parametrize("off", [-301, 301])
def test_only_near_its_time(off: float) -> None:
    assert "more than 300 s" in str(problem(Verifier(EARLIER), sign(SECRET, b"", NOW), now=NOW + off))
    assert problem(Verifier(EARLIER), sign(SECRET, b"", NOW), now=NOW + off / 2) is None


def test_nothing_from_before_it_started() -> None:
    """What was taken by the process before is not taken again, but for a few seconds between two clocks."""
    verifier = Verifier(NOW)
    assert "before this daemon started" in str(problem(verifier, sign(SECRET, b"", NOW - SLACK - 0.1)))
    assert problem(verifier, sign(SECRET, b"", NOW - SLACK + 0.1)) is None
    assert problem(verifier, sign(SECRET, b"", NOW)) is None


def test_nothing_else_is_accepted() -> None:
    verifier, headers = Verifier(EARLIER), sign(SECRET, b"body", NOW)
    assert "does not fit" in str(problem(verifier, headers, b"bodY"))
    assert "does not fit" in str(problem(verifier, headers, b"body", secret=SECRET + "."))
    later = headers | {TIMESTAMP: f"{NOW + 1:.6f}"}
    assert "does not fit" in str(problem(verifier, later, b"body"))
    for signature in ("", "sha256=", headers[SIGNATURE][:-1], headers[SIGNATURE].upper(), "sha1=ä", "\udcff"):
        assert "does not fit" in str(problem(verifier, headers | {SIGNATURE: signature}, b"body"))
    for timestamp in ("", "now", "1e9", "-1", "٣", "1" * 13, "nan", " 1", f"{NOW}\n"):
        assert "not a number" in str(problem(verifier, headers | {TIMESTAMP: timestamp}, b"body"))
    for several in ([], [headers[SIGNATURE]] * 2):
        found = verifier.problem(SECRET, [headers[TIMESTAMP]], several, b"body", now=NOW, window=300)
        assert "once each" in str(found)
    assert problem(verifier, headers, b"body") is None


def test_what_it_remembers_is_bounded_by_the_window() -> None:
    verifier = Verifier(EARLIER)
    for second in range(1000):
        headers = sign(SECRET, b"", NOW + second)
        assert problem(verifier, headers, now=NOW + second) is None
    assert len(verifier._seen) <= 302


def test_a_longer_window_makes_nothing_new_that_was_forgotten() -> None:
    verifier = Verifier(EARLIER)

    def ask(headers: dict[str, str], now: float, window: float) -> str | None:
        return verifier.problem(SECRET, [headers[TIMESTAMP]], [headers[SIGNATURE]], b"", now=now, window=window)

    first, second = sign(SECRET, b"", NOW), sign(SECRET, b"", NOW + 3)
    assert ask(first, NOW, 2) is None
    assert ask(second, NOW + 3, 2) is None
    assert "sign anew" in (ask(first, NOW + 3.5, 300) or "")
    assert "taken before" in (ask(second, NOW + 4, 300) or "")
    assert ask(sign(SECRET, b"", NOW + 4), NOW + 4, 300) is None


def test_a_clock_that_was_set_back() -> None:
    verifier = Verifier(NOW)
    assert problem(verifier, sign(SECRET, b"", NOW - 3600), now=NOW - 3600) is None
    assert "taken before" in (problem(verifier, sign(SECRET, b"", NOW - 3600), now=NOW - 3600) or "")


def test_so_many_a_minute() -> None:
    allowance = Allowance()
    assert [allowance.take(3, 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 20.0]
    assert allowance.take(3, 110.0) == pytest.approx(10.0)
    assert allowance.take(3, 120.1) == 0.0
    assert allowance.take(3, 120.1) > 0
    assert [allowance.take(3, 10_000.0) > 0 for _ in range(4)] == [False, False, False, True]
