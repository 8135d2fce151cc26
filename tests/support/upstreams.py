"""An Upstream for tests: short limits, no pauses."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heliostat.config import UpstreamConfig
from heliostat.upstream.client import Upstream
from heliostat.upstream.clock import Clock
from heliostat.upstream.session import OwnTally
from heliostat.upstream.traffic import Traffic

#: Long enough for a busy machine, short enough for a test that waits for it.
SHORT = 0.5


def config(*urls: str, **changes: Any) -> UpstreamConfig:
    """Plain HTTP allowed, no pause before another try, and limits that no test reaches unless it sets them."""
    base = UpstreamConfig(
        url=urls, allow_http=True, retries=3, retry_delay=0.0, connect_timeout=20, stall_timeout=20, metadata_timeout=20
    )
    return dataclasses.replace(base, **changes)


def upstream(
    *urls: str,
    clock: Clock | None = None,
    tally: OwnTally | None = None,
    traffic: Traffic | None = None,
    version: str = "1.2.3",
    **changes: Any,
) -> Upstream:
    return Upstream(
        config(*urls, **changes), version=version, clock=clock, counters=tally, traffic=traffic, rng=lambda: 1.0
    )


@contextmanager
def source_lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What an operator reads meanwhile of sources."""
    found: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.INFO, "heliostat.upstream.sources"):
        yield found
    found += [record.message for record in caplog.records if record.name == "heliostat.upstream.sources"]
