"""What lies where a file of the store belongs and is none, or on the way there and is no directory."""

from __future__ import annotations

from heliostat.errors import InTheWay, PlaceTaken
from heliostat.store.disk import Operations

#: Path components that are not looked at: ``web/packages`` and its like may be links that somebody has made.
_TOP = 2


def has_directory(disk: Operations, path: str) -> bool:
    """Whether there is a directory for the file at ``path``: one look at the disk where all is well.

    Raises InTheWay when something else lies in its place, or where one above it belongs.
    """
    try:
        return disk.stat_directory(path.rpartition("/")[0]) is not None
    except PlaceTaken:
        refuse_obstacle(disk, path)
        raise


def refuse_obstacle(disk: Operations, path: str) -> None:
    """Raises InTheWay when a file cannot be put at ``path`` because of what lies there, or on the way to it."""
    found = obstacle(disk, path)
    if found is not None:
        raise InTheWay(path, *found)


def obstacle(disk: Operations, path: str) -> tuple[str, str] | None:
    """Where it lies, and what it is; None when nothing is in the way of a file at ``path``."""
    parts = path.split("/")
    for count in range(_TOP + 1, len(parts) + 1):
        place = "/".join(parts[:count])
        found = disk.stat(place)
        if found is None:
            return None
        if not (found.is_directory if count < len(parts) else found.is_file):
            return place, "a directory" if found.is_directory else "a file" if found.is_file else "a link or the like"
    return None
