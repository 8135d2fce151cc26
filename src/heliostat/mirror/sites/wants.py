"""Which projects somebody cares about, and which of their files: from names, requirement files, and lock files.

Of a lock only names, versions and hashes count: ``uv.lock``, ``pylock.toml`` (PEP 751), ``poetry.lock``.  Environment
markers decide nothing here, since those who read the mirror have other environments than this one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from heliostat.errors import ConfigError, Refused, printable
from heliostat.model import DistFile, ProjectName
from heliostat.names import normalise

#: The largest file that is read (bytes), how deep files may name others, and how many there may be.
_MOST_BYTES, _MOST_DEPTH, _MOST_FILES = 64 << 20, 10, 200
#: Problems that are reported at once.
_MOST_PROBLEMS = 50
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_NESTED = re.compile(r"(-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?<=-r)|(?<=-c))(\S.*)")
_HASH = re.compile(r"\s--hash(?:=|\s+)([a-z0-9_]+):([0-9A-Fa-f]+)")
_OPTION = re.compile(r"\s--?[a-z].*$")
_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.z", ".tgz", ".tar", ".zip")


class Want(msgspec.Struct):
    """What is wanted of one project: everything, unless specifiers or hashes say less."""

    name: ProjectName
    #: A file counts that one of them allows; empty: every file does.
    specifiers: list[SpecifierSet] = []
    #: ``sha256:...`` of the files that count, where somebody pinned them.
    hashes: set[str] = set()
    #: Somebody wants it without any restriction.
    everything: bool = False

    @property
    def restricted(self) -> bool:
        """Whether some files of the project do not matter."""
        return not self.everything and bool(self.hashes or self.specifiers)

    def wants(self, file: DistFile) -> bool:
        """Whether a file counts; one whose version cannot be told does."""
        if not self.restricted:
            return True
        if self.hashes:
            return any(f"{kind}:{digest}" in self.hashes for kind, digest in file.hashes.items())
        version = version_of(self.name, file.filename)
        return version is None or any(one.contains(version, prereleases=True) for one in self.specifiers)


class Wants(msgspec.Struct):
    """The projects asked for, and lines that name no project of an index."""

    projects: dict[ProjectName, Want] = {}
    #: ``FILE:LINE: why``.
    skipped: list[str] = []

    def add(self, name: ProjectName, specifier: SpecifierSet | None, hashes: Iterable[str] = ()) -> None:
        """One more wish, beside those that there are."""
        want = self.projects.get(name)
        if want is None:
            want = self.projects[name] = Want(name, [], set())
        found = set(hashes)
        want.hashes |= found
        if specifier is not None and len(specifier):
            want.specifiers.append(specifier)
        elif not found:
            want.everything = True

    def sorted(self) -> list[Want]:
        return [self.projects[name] for name in sorted(self.projects)]


def version_of(name: str, filename: str) -> Version | None:
    """The version that a file of the project is of; None where its name does not say."""
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        suffix = next((one for one in _SUFFIXES if filename.lower().endswith(one)), None)
        if suffix is None:
            return None
        stem = filename[: -len(suffix)]
        # The project's name may itself hold what looks like a version: only a known prefix can be cut off.
        pattern = "[-_.]+".join(map(re.escape, name.split("-")))
        found = re.fullmatch(rf"{pattern}[-_](.+)", stem, re.IGNORECASE)
        return Version(found[1]) if found else None
    except (InvalidVersion, ValueError):
        return None


# --- requirement files -----------------------------------------------------------------------------------------------


def read_requirements(wants: Wants, path: str) -> None:
    """Add what a requirement file, and those that it names, ask for.  Raises ConfigError with all problems."""
    reader = _Requirements(wants)
    reader.read(path, 0, constraint=False)
    if reader.problems:
        raise ConfigError(reader.problems)
    reader.constrain()


class _Requirements:
    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._seen: set[tuple[str, bool]] = set()
        self._constraints: dict[ProjectName, SpecifierSet] = {}
        self.problems: list[str] = []

    def read(self, path: str, depth: int, *, constraint: bool) -> None:
        key = (os.path.realpath(path), constraint)
        if key in self._seen:
            return
        self._seen.add(key)
        if depth > _MOST_DEPTH or len(self._seen) > _MOST_FILES:
            self._complain(f"{path}: nested too deeply, or too many files; name the files themselves with -r")
            return
        for number, line in _logical_lines(_text(path)):
            if len(self.problems) >= _MOST_PROBLEMS:
                return
            self._line(path, number, line, depth, constraint=constraint)

    def _line(self, path: str, number: int, line: str, depth: int, *, constraint: bool) -> None:
        place = f"{path}:{number}"
        if nested := _NESTED.fullmatch(line):
            target = nested[2].strip().strip("\"'")
            if "://" in target:
                self._wants.skipped.append(f"{place}: {printable(target)} is not on this machine")
                return
            below = os.path.join(os.path.dirname(path), target)
            if not os.path.isfile(below):
                self._complain(f"{place}: {printable(target)} is not there; correct this line")
                return
            self.read(below, depth + 1, constraint=constraint or nested[1] in ("-c", "--constraint"))
            return
        if line.startswith("-"):
            if line.startswith(("-e", "--editable")):
                self._wants.skipped.append(f"{place}: an editable project comes from no index")
            return
        hashes = [f"{kind.lower()}:{digest.lower()}" for kind, digest in _HASH.findall(line)]
        text = _OPTION.sub("", line).strip()
        if _is_place(text):
            self._wants.skipped.append(f"{place}: a path or URL, not a project of an index")
            return
        try:
            requirement = Requirement(text)
            name = normalise(requirement.name)
        except (InvalidRequirement, Refused) as error:
            reason = str(error).splitlines()[0]
            self._complain(f"{place}: {printable(text, 60)} is no requirement: {printable(reason)[1:-1]}")
            return
        if requirement.url is not None:
            self._wants.skipped.append(f"{place}: {name} comes from a URL, not from an index")
        elif constraint:
            self._constraints[name] = self._constraints.get(name, SpecifierSet()) & requirement.specifier
        else:
            self._wants.add(name, requirement.specifier, hashes)

    def constrain(self) -> None:
        """Constraints say nothing of projects that nobody requires."""
        for name, specifier in self._constraints.items():
            want = self._wants.projects.get(name)
            if want is not None and len(specifier):
                want.specifiers = [one & specifier for one in want.specifiers] or [specifier]
                want.everything = False

    def _complain(self, problem: str) -> None:
        self.problems.append(problem)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number of their first line."""
    whole, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw)
        if not whole:
            start = number
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        whole += line
        if whole.strip():
            yield start, whole.strip()
        whole = ""
    if whole.strip():
        yield start, whole.strip()


def _is_place(text: str) -> bool:
    head = text.split(";", maxsplit=1)[0].strip()
    if " @ " in head or re.match(r"[A-Za-z0-9._-]+(?:\[[^\]]*\])?\s*@", head):
        return False
    return "://" in head or head.startswith((".", "/", "~")) or head.endswith((".whl", *_SUFFIXES)) or os.sep in head


# --- lock files ------------------------------------------------------------------------------------------------------


def read_lock(wants: Wants, path: str) -> None:
    """Add what a lock pins.  Raises ConfigError."""
    try:
        lock = tomllib.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not valid TOML: {printable(str(error))[1:-1]}"]) from None
    if isinstance(lock.get("packages"), list):
        entries, read = lock["packages"], _of_pylock
    elif isinstance(lock.get("package"), list):
        entries = lock["package"]
        metadata = lock.get("metadata")
        old = metadata.get("files") if isinstance(metadata, dict) else None
        is_poetry = isinstance(metadata, dict) and ("content-hash" in metadata or "files" in metadata)
        read = _poetry(old if isinstance(old, dict) else {}) if is_poetry else _of_uv
    elif "version" in lock or "lock-version" in lock:
        return  # of something that needs nothing
    else:
        raise ConfigError([f"{path}: no lock that is known; uv.lock, pylock.toml and poetry.lock are"])
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise ConfigError([f"{path}: package {number} has no name; write the lock anew"])
        try:
            normal = normalise(name)
        except Refused as error:
            raise ConfigError([f"{path}: package {number}: {error}"]) from None
        found = read(entry)
        if found is None:
            wants.skipped.append(f"{path}: {normal} comes from no index")
            continue
        version = entry.get("version")
        wants.add(normal, None if found else _exactly(version), found)


def _exactly(version: object) -> SpecifierSet | None:
    """Only this version; None where it cannot be told."""
    try:
        return SpecifierSet(f"=={Version(version)}") if isinstance(version, str) else None
    except InvalidVersion:
        return None


def _of_pylock(entry: dict[str, Any]) -> set[str] | None:
    if any(key in entry for key in ("vcs", "directory", "archive")):
        return None
    files = [*_tables(entry.get("wheels")), *_tables([entry.get("sdist")])]
    hashes: set[str] = set()
    for file in files:
        found = file.get("hashes")
        if isinstance(found, dict):
            hashes |= {f"{kind}:{digest}".lower() for kind, digest in found.items() if isinstance(digest, str)}
    return hashes


def _of_uv(entry: dict[str, Any]) -> set[str] | None:
    source = entry.get("source")
    if isinstance(source, dict) and "registry" not in source:
        return None
    files = [*_tables(entry.get("wheels")), *_tables([entry.get("sdist")])]
    return {file["hash"].lower() for file in files if isinstance(file.get("hash"), str)}


def _poetry(old: dict[str, Any]) -> Any:
    """``old``: where poetry before 1.3 kept the files."""

    def read(entry: dict[str, Any]) -> set[str] | None:
        source = entry.get("source")
        if isinstance(source, dict) and source.get("type") not in (None, "legacy"):
            return None
        files = _tables(entry.get("files")) or _tables(old.get(entry["name"]))
        return {file["hash"].lower() for file in files if isinstance(file.get("hash"), str)}

    return read


def _tables(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            body = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; check its path and permissions"]) from None
    if len(body) > _MOST_BYTES:
        raise ConfigError([f"{path}: larger than {_MOST_BYTES} bytes"])
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8"]) from None
