"""What all tests share."""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Started in the background by a shell, the suite would inherit an ignored SIGINT, and so would every process it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
