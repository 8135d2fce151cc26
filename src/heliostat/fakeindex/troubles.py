"""What goes wrong with an index in practice, as faults for tests that last: each is to be put in force now and then."""

from __future__ import annotations

from heliostat.fakeindex.faults import Cut, Hang, Reset, Stale, Status, Wire

#: Paths and what becomes of requests there: asked too much, broken off, cut short, a cache that lags, no answer at all.
TROUBLES: tuple[tuple[str, Wire], ...] = (
    ("/pypi", Status(429, retry_after=1)),
    ("/simple/*", Status(429, retry_after=1)),
    ("/packages/*", Reset()),
    ("/simple/*", Reset(-1)),
    ("/packages/*", Cut()),
    ("/pypi/*/json", Cut()),
    ("/simple/*", Stale()),
    ("/pypi/*/json", Stale()),
    ("/packages/*", Hang(0.5)),
    ("/simple/*", Hang()),
    ("/pypi", Reset(0.5)),
)
