"""pip and uv install through the real nginx what the engine mirrored."""

from collections.abc import Iterator

import pytest

from heliostat.fakeindex import Index
from support.install_scenarios import InstallScenarios
from support.mirrored import mirror_of, sample_index
from support.nginx import Nginx, nginx_server
from support.places import open_directory

pytestmark = pytest.mark.outside


@pytest.fixture(scope="module")
def index() -> Index:
    return sample_index()


@pytest.fixture(scope="module")
def site(index: Index) -> Iterator[Nginx]:
    """nginx as another user than the mirror's, as it is in production."""
    with open_directory() as directory, nginx_server(mirror_of(index, directory), unprivileged=True) as server:
        yield server


class TestThroughNginx(InstallScenarios):
    """All of them."""
