"""The file system of a tree stays open for as long as somebody syncs it, and no longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.errors import StoreError
from heliostat.store.disk import Disk


def open_below(directory: Path) -> list[str]:
    """What this process has open there."""
    found = []
    for handle in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{handle}")
        except FileNotFoundError:  # the descriptor of that very folder
            continue
        if place.startswith(str(directory)):
            found.append(place)
    return found


def test_it_is_opened_once_and_closed_at_the_end(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    for _ in range(3):
        disk.sync()
        assert open_below(tmp_path) == [str(tmp_path)]
    del disk
    assert open_below(tmp_path) == []


def test_another_directory_in_its_place_is_the_one_that_is_synced(tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    root.mkdir()
    disk = Disk(str(root))
    disk.sync()
    root.rename(tmp_path / "before")
    with pytest.raises(StoreError, match=r"cannot sync .*/mirror: No such file or directory"):
        disk.sync()
    root.mkdir()
    disk.sync()
    assert open_below(tmp_path) == [str(root)]
