"""What an operator does not want, whatever upstream offers: projects, and single releases of others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from heliostat.errors import Refused
from heliostat.model import ProjectName
from heliostat.names import normalise

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}")
_Versions = frozenset[str]


class Entry(msgspec.Struct, frozen=True, order=True):
    """A project, or one release of it; ``version`` is empty for the whole project."""

    project: ProjectName
    version: str = ""

    def __str__(self) -> str:
        return f"{self.project}=={self.version}" if self.version else self.project


def parse_entry(text: str) -> Entry:
    """``NAME`` or ``NAME==VERSION``.  Raises Refused."""
    name, separator, version = text.strip().partition("==")
    version = version.strip()
    if separator and not _VERSION.fullmatch(version):
        raise Refused("release", text, "write it like name==1.0")
    return Entry(normalise(name.strip()), version)


class Denials(msgspec.Struct, frozen=True):
    """All that is denied; a project that is denied as a whole is not among ``releases``."""

    projects: frozenset[ProjectName] = frozenset()
    releases: Mapping[ProjectName, _Versions] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Denials:
        projects: set[ProjectName] = set()
        releases: dict[ProjectName, set[str]] = {}
        for entry in entries:
            if entry.version:
                releases.setdefault(entry.project, set()).add(entry.version)
            else:
                projects.add(entry.project)
        kept = {name: frozenset(versions) for name, versions in releases.items() if name not in projects}
        return cls(frozenset(projects), kept)


class Versions:
    """Some releases of one project, in whatever spelling upstream uses (PEP 440: ``1.0`` is ``1.0.0``)."""

    def __init__(self, versions: Iterable[str]) -> None:
        self._texts = frozenset(versions)
        self._normal = {_canonical(version) for version in self._texts}

    def __bool__(self) -> bool:
        return bool(self._texts)

    def __contains__(self, version: object) -> bool:
        if not self._texts or not isinstance(version, str):
            return False
        return version in self._texts or _canonical(version) in self._normal

    def has_file(self, filename: str, version: str | None) -> bool:
        """Whether a file is of one of these: as the index says, or as its name does.

        ``version``: what the index says, if it says anything.
        """
        return version in self or release_of(filename) in self or any(_spells(filename, one) for one in self._texts)


def release_of(filename: str) -> str | None:
    """The version that a file's name tells; None where it does not."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[1])
        return str(parse_sdist_filename(filename)[1])
    except (InvalidSdistFilename, InvalidWheelFilename, ValueError):
        return None


def _spells(filename: str, version: str) -> bool:
    """For names that follow no standard: whether a version stands in one as a part of its own."""
    spelling = re.escape(version).replace(r"\-", "[-_]")
    return re.search(rf"[-_]{spelling}(?:-|\.(?![0-9]))", filename) is not None


def _canonical(version: str) -> str:
    from packaging.utils import canonicalize_version

    return str(canonicalize_version(version))
