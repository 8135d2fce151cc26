"""What all tests share."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Started in the background by a shell, the suite would inherit an ignored SIGINT, and so would every process it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """How many processes share a run; 0: this one does it alone.

    More than there are cores, as many tests wait for something.  Each takes some seconds to find all tests, which a run
    of single files, or of what a word picks, would only wait for.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    picked = config.option.keyword or getattr(config.option, "lf", False) or config.option.collectonly
    if picked or not all(os.path.isdir(place) for place in config.args):
        return 0
    cores = len(os.sched_getaffinity(0))
    return min(2 * cores, cores + 4)
