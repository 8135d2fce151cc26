"""Directories and rights for tests that other users than the one who runs the tests take part in."""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Who stands for "any other user" where the tests run as root.
NOBODY = "nobody"


@contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that every user may read, as a mirror's web root is (pytest's own are private)."""
    with tempfile.TemporaryDirectory(prefix="heliostat-open-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@contextmanager
def not_root() -> Iterator[None]:
    """The whole process has the rights of an ordinary user inside the block."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(pwd.getpwnam(NOBODY).pw_uid)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def group_of(user: str) -> str:
    return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
