"""A heliostat that follows another one's tree behind the real nginx holds the same."""

import pytest

from support.mirror_of_mirror import MirrorOfMirror, Serving
from support.nginx import nginx_server

pytestmark = pytest.mark.outside


@pytest.fixture
def serving() -> Serving:
    return nginx_server


class TestBehindNginx(MirrorOfMirror):
    """All of them."""
