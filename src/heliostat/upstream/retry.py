"""When a request is tried again, and after how long.  Pure: instants and randomness come from the caller."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from heliostat.errors import Invalid, Unavailable, UpstreamError

#: The longest that upstream can make us wait at one time (seconds): a hostile Retry-After must not stop a mirror.
MOST_RETRY_AFTER = 600.0
#: Answers that mean "not now" although the request was heard.
_PASSING = frozenset({408, 425, 429})


def worth_retrying(error: UpstreamError, tries_so_far: int, tries: int) -> bool:
    """Whether the same request may be sent again at once (after a back-off), ``tries_so_far`` of them failed.

    Unreachable, cut, limited: up to ``tries``.  A wrong answer: once more, since caches serve garbage for a moment.
    404, a refusal, or a wait that is longer than anyone should hold a request for: never.
    """
    if tries_so_far >= tries:
        return False
    if isinstance(error, Unavailable):
        if (error.retry_after or 0) > MOST_RETRY_AFTER:
            return False
        return error.status is None or error.status >= 500 or error.status in _PASSING
    return isinstance(error, Invalid) and tries_so_far < 2


def pause(
    attempt: int, error: UpstreamError | None, *, first: float, most: float, random: Callable[[], float]
) -> float:
    """Seconds to wait before the next try: full jitter below a bound that doubles from ``first`` up to ``most``.

    ``attempt`` counts from 0.  A Retry-After comes on top, so that those who waited do not return all at once.
    """
    bound = min(most, first * 2.0 ** min(attempt, 60))
    asked = error.retry_after if isinstance(error, Unavailable) else None
    return random() * bound + min(asked or 0.0, MOST_RETRY_AFTER)


def retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None when there is none to understand.

    A date counts from the answer's own Date header where there is one, since clocks differ, else from ``now``.
    """
    if not value:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", text, re.ASCII):
        return float(text)
    until = _instant(text)
    if until is None:
        return None
    sent = _instant(date or "")
    return max(0.0, until - (sent if sent is not None else now))


def _instant(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
