"""Whether a file that a page names is there, and right, as thoroughly as was asked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from heliostat import names
from heliostat.errors import StoreError
from heliostat.mirror.adopt.drafts import Entry
from heliostat.mirror.adopt.eye import Eye
from heliostat.mirror.adopt.layouts import is_temporary
from heliostat.mirror.adopt.report import Finding
from heliostat.mirror.wanted import strongest
from heliostat.model import CoreMetadata

Check = Literal["size", "digest", "none"]
CHECKS: tuple[Check, ...] = ("size", "digest", "none")

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
#: What makes a place; an upstream that is met later has one of them in its URLs.
PLACE_MAKERS = ("sha256", "blake2b_256")


class Seen(msgspec.Struct, kw_only=True):
    """What lies at the place of one file."""

    entry: Entry
    #: Something is there.
    there: bool = False
    #: The file may be offered: it is there, and nothing that was looked at speaks against it.
    right: bool = False
    size: int = 0
    #: It was read.
    hashed: bool = False
    #: Computed digests, of a file that is to get another place.
    digests: dict[str, str] | None = None
    sidecar: CoreMetadata = None
    #: Wrong bytes, to be moved out of the way.
    aside: list[str] = []
    #: Paths that readers cannot read.
    modes: list[str] = []
    #: Temporaries of the old tool beside it.
    leftovers: list[str] = []
    findings: list[Finding] = []


class Inspector(NamedTuple):
    """Looks at files; any number of threads may."""

    eye: Eye
    check: Check
    stopped: Callable[[], bool]

    def look(self, project: str, entry: Entry) -> Seen:
        """Raises StoreError, Stopping."""
        seen = Seen(entry=entry)
        path = entry.path
        if path is None:
            return seen
        try:
            self._look(project, path, seen)
        except StoreError as error:  # one sector that cannot be read is no reason to give up
            seen.right = False
            seen.findings.append(Finding("digest", path, project, str(error)))
            seen.aside.append(path)
        return seen

    def _look(self, project: str, path: str, seen: Seen) -> None:
        entry = seen.entry
        if self._is_behind_link(project, path, path, seen):
            return
        found = self.eye.lstat(path)
        if found is None:
            seen.findings.append(Finding("missing", path, project, f"{entry.file.filename} is not there"))
            return
        seen.there = True
        if not stat.S_ISREG(found.st_mode):
            seen.findings.append(Finding("obstacle", path, project, "no plain file"))
            return
        seen.size = found.st_size
        kind, problem = self._problem(path, found, seen)
        if kind is not None:
            seen.findings.append(Finding(kind, path, project, problem))
            seen.aside.append(path)
            return
        for target in places_of(entry, seen.digests):
            if self._is_behind_link(project, path, target, seen):
                return
        seen.right = True
        if found.st_mode & _READABLE != _READABLE:
            seen.modes.append(path)
        self._look_beside(project, path, seen)

    def _is_behind_link(self, project: str, path: str, place: str, seen: Seen) -> bool:
        """Whether a ``place`` for the file at ``path`` is in a directory that is perhaps not the mirror's own."""
        link = self.eye.linked(place)
        if link is None:
            return False
        seen.there = True
        problem = f"{link} is a symbolic link; files are not looked for behind it"
        seen.findings.append(Finding("obstacle", path, project, problem))
        return True

    def _problem(self, path: str, found: os.stat_result, seen: Seen) -> tuple[Literal["size", "digest"] | None, str]:
        size, hashes = seen.entry.file.size, seen.entry.hashes
        if size is not None and size != found.st_size and self.check != "none":
            return "size", f"{found.st_size} bytes instead of {size}"
        algorithm = strongest(hashes)
        moves = names.content_digits(path) is None
        digits = names.content_digits(path) or ""
        wanted: tuple[str, ...] = PLACE_MAKERS if moves else ()
        if self.check == "digest" or moves:
            wanted = (*wanted, *((algorithm,) if algorithm and algorithm not in wanted else ()))
            if not algorithm:  # the place is made of a digest, so it tells
                wanted = PLACE_MAKERS
        if not wanted:
            return None, ""
        computed = self.eye.digests(path, wanted, self.stopped)
        seen.hashed = True
        if algorithm and computed.get(algorithm) != hashes[algorithm]:
            return "digest", f"{algorithm} is {computed.get(algorithm)} instead of {hashes[algorithm]}"
        if not algorithm and digits and digits not in computed.values():
            return "digest", "neither its SHA-256 nor its BLAKE2b-256 is what its place says"
        if moves:
            seen.digests = computed
        return None, ""

    def _look_beside(self, project: str, path: str, seen: Seen) -> None:
        """The sidecar, and temporaries in the same folder."""
        file = seen.entry.file
        sidecar = names.sidecar_path(path)
        if file.core_metadata:
            found = self.eye.lstat(sidecar)
            if found is None:
                seen.findings.append(Finding("missing", sidecar, project, "the page says that there is one"))
            elif not stat.S_ISREG(found.st_mode):
                seen.findings.append(Finding("obstacle", sidecar, project, "no plain file"))
            elif (problem := self._sidecar_problem(sidecar, file.core_metadata)) is not None:
                seen.findings.append(Finding("digest", sidecar, project, problem))
                seen.aside.append(sidecar)
            else:
                seen.sidecar = file.core_metadata
                if found.st_mode & _READABLE != _READABLE:
                    seen.modes.append(sidecar)
        if names.content_digits(path) is not None:
            folder, _, filename = path.rpartition("/")
            own = frozenset((filename, sidecar.rpartition("/")[2]))
            seen.leftovers += [f"{folder}/{one}" for one in self.eye.names(folder) if is_temporary(one, own)]

    def _sidecar_problem(self, sidecar: str, stated: CoreMetadata) -> str | None:
        if self.check != "digest" or not isinstance(stated, dict):
            return None
        computed = self.eye.digests(sidecar, tuple(stated), self.stopped)
        return _difference(computed, stated)


def places_of(entry: Entry, digests: Mapping[str, str] | None) -> tuple[str, ...]:
    """Where a file with these ``digests`` is to be; nowhere but where it is, without."""
    return tuple(names.package_path(digests[one], entry.file.filename) for one in PLACE_MAKERS) if digests else ()


def _difference(computed: Mapping[str, str], stated: Mapping[str, str]) -> str | None:
    for algorithm, digest in stated.items():
        if computed.get(algorithm) != digest:
            return f"{algorithm} is {computed.get(algorithm)} instead of {digest}"
    return None
