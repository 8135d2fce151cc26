"""A heliostat that follows another one's tree behind ``heliostat serve`` holds the same."""

import pytest

from support.mirror_of_mirror import MirrorOfMirror, Serving
from support.served import static_server


@pytest.fixture
def serving() -> Serving:
    return static_server


class TestBehindServe(MirrorOfMirror):
    """All of them."""
