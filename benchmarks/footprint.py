"""What lies on a disk: every path with inode, time and size, and what changed between two looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple


class Found(NamedTuple):
    """What identifies the content of a path without reading it."""

    inode: int
    mtime_ns: int
    size: int


def snapshot(directory: str) -> dict[str, Found]:
    """Everything below ``directory``, by path relative to it."""
    return {
        os.path.relpath(entry.path, directory): Found(status.st_ino, status.st_mtime_ns, status.st_size)
        for entry, status in _walk(directory)
    }


def changed_paths(before: dict[str, Found], after: dict[str, Found]) -> list[str]:
    """Paths that came, went, or are not what they were."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def usage(directory: str) -> tuple[int, int]:
    """Inodes and bytes of storage that ``directory`` takes; a file with two names counts once."""
    inodes: set[int] = set()
    size = 0
    for _, status in _walk(directory):
        if status.st_nlink > 1 and status.st_ino in inodes:
            continue
        inodes.add(status.st_ino)
        size += status.st_blocks * 512
    return len(inodes), size


def _walk(directory: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    folders = [directory]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                yield entry, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
