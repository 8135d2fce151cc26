"""pip and uv install through ``heliostat serve`` what the engine mirrored."""

from collections.abc import Iterator

import pytest

from heliostat.fakeindex import Index
from support.install_scenarios import InstallScenarios
from support.mirrored import mirror_of, sample_index
from support.served import Served, static_server


@pytest.fixture(scope="module")
def index() -> Index:
    return sample_index()


@pytest.fixture(scope="module")
def site(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with static_server(mirror_of(index, tmp_path_factory.mktemp("mirror"))) as server:
        yield server


class TestThroughServe(InstallScenarios):
    """All of them."""
