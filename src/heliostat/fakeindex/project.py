"""What the fake index knows of one project: its releases and their files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import InitVar, dataclass, field, replace
from typing import Any
from typing import Literal as OneOf
from urllib.parse import quote, unquote

from packaging.version import InvalidVersion, Version

from heliostat.fakeindex.content import Content, Literal

#: Which hashes pages and documents give: all that the public index gives, one alone, or none.
Hashes = OneOf["all", "sha256", "md5", "none"]

_URL_SAFE = "/~!$&'()*+,;=:@"
_SEPARATORS = re.compile(r"[-_.]+")
_SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar", ".tar.xz", ".tar.Z")


def normal_form(display: str) -> str:
    """PEP 503; any text is accepted, because a hostile index may use any."""
    return _SEPARATORS.sub("-", display).lower()


@dataclass(slots=True, eq=False)
class UploadedFile:
    """One distribution file.  Everything but the name and the content has a sensible default."""

    filename: str
    data: InitVar[Content | bytes]
    content: Content = field(init=False)
    #: The ``.metadata`` file (PEP 658).
    sidecar: bytes | None = None
    #: ``yyyy-mm-ddThh:mm:ss[.ffffff]Z``; empty: the index's clock at the upload.
    upload_time: str = ""
    requires_python: str | None = None
    #: A PEP 740 object.
    provenance: dict[str, Any] | None = None
    hashes: Hashes = "all"
    #: ``blake2b`` as the public index, ``sha256``, or the path itself, quoted (``/f/7/x-1.0.zip``).
    path_form: str = "blake2b"
    #: Written on pages and documents in place of the true URL, as it is: for hostile indexes.
    url: str | None = None
    packagetype: str = ""
    python_version: str = ""
    comment_text: str = ""
    gpg_sig: bool | None = None
    #: Said on pages and documents in place of the true size.
    stated_size: int | None = None
    _path: str = field(default="", init=False, repr=False)

    def __post_init__(self, data: Content | bytes) -> None:
        self.content = Literal(data) if isinstance(data, bytes) else data
        kind, python = _kind(self.filename)
        self.packagetype = self.packagetype or kind
        self.python_version = self.python_version or python

    @property
    def path(self) -> str:
        """The path of its URL, quoted, beginning with a slash."""
        if not self._path:
            self._path = self._make_path()
        return self._path

    def _make_path(self) -> str:
        if self.path_form not in ("blake2b", "sha256"):
            return self.path_form
        digests = self.content.digests
        digits = digests.blake2b_256 if self.path_form == "blake2b" else digests.sha256
        return f"/packages/{digits[:2]}/{digits[2:4]}/{digits[4:]}/{quote(self.filename, safe=_URL_SAFE)}"

    @property
    def size(self) -> int:
        """As pages and documents say it."""
        return self.content.size if self.stated_size is None else self.stated_size

    @property
    def sidecar_sha256(self) -> str:
        """Of the sidecar, which there must be."""
        return hashlib.sha256(self.sidecar or b"").hexdigest()

    @property
    def page_hashes(self) -> dict[str, str]:
        """As the Simple API gives them."""
        if self.hashes == "none":
            return {}
        if self.hashes == "md5":
            return {"md5": self.content.digests.md5}
        return {"sha256": self.content.digests.sha256}

    @property
    def document_hashes(self) -> dict[str, str]:
        """As the JSON document gives them."""
        known = self.content.digests._asdict()
        return known if self.hashes == "all" else {self.hashes: known[self.hashes]} if self.hashes != "none" else {}


@dataclass(slots=True)
class Release:
    """One version; yanking and quarantine concern all of its files."""

    version: str
    files: list[UploadedFile] = field(default_factory=list)
    yanked: bool = False
    yanked_reason: str | None = None
    quarantined: bool = False
    #: Keys of the document's ``info`` that differ from the defaults (``summary``, ``requires_dist``...).
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Project:
    """One project as the index knows it now."""

    display: str
    name: str
    last_serial: int = 0
    releases: dict[str, Release] = field(default_factory=dict)
    #: ``active``, ``archived`` or ``quarantined``.
    status: str = "active"
    #: The public index never gives one.
    status_reason: str | None = None
    roles: list[tuple[str, str]] = field(default_factory=lambda: [("Owner", "alice")])
    organization: str | None = None
    vulnerabilities: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    #: The project's serial stays where it is, whatever the journal says (seen on the public index).
    stuck: bool = False
    #: Grows with every change, also with those that have no serial.
    revision: int = 0

    @property
    def quarantined(self) -> bool:
        return self.status == "quarantined"

    def visible(self) -> list[Release]:
        """Releases in version order, without those in quarantine; none when the project is."""
        if self.quarantined:
            return []
        releases = [release for release in self.releases.values() if not release.quarantined]
        return sorted(releases, key=lambda release: version_key(release.version))

    def offered(self) -> list[tuple[Release, UploadedFile]]:
        """The files that pages list, in their order: by version, then by name."""
        return [
            (release, file)
            for release in self.visible()
            for file in sorted(release.files, key=lambda file: file.filename)
        ]

    def latest(self) -> Release | None:
        """The release that the document describes: not yanked before yanked, final before pre-release, then highest."""
        return max(self.visible(), key=_latest_key, default=None)

    def copy(self) -> Project:
        """As it is now: later changes leave the copy alone (files are shared)."""
        releases = {
            version: replace(release, files=[replace(file, data=file.content) for file in release.files])
            for version, release in self.releases.items()
        }
        return replace(self, releases=releases, roles=list(self.roles), vulnerabilities=dict(self.vulnerabilities))

    def find(self, version: str, filename: str) -> UploadedFile | None:
        release = self.releases.get(version)
        return next((file for file in release.files if file.filename == filename), None) if release else None


def version_key(version: str) -> tuple[int, Version | None, str]:
    """Sorts versions; those that do not parse come first."""
    try:
        return (1, Version(version), version)
    except InvalidVersion:
        return (0, None, version)


def decoded(path: str) -> str:
    """A URL's path without quoting: what two spellings of one path have in common."""
    return unquote(path) if "%" in path else path


def _latest_key(release: Release) -> tuple[bool, bool, tuple[int, Version | None, str]]:
    key = version_key(release.version)
    return (not release.yanked, bool(key[1] and not key[1].is_prerelease), key)


def _kind(filename: str) -> tuple[str, str]:
    """The package type and Python version that an uploader would state."""
    stem = filename.rpartition(".")[0]
    if filename.endswith(".whl"):
        parts = stem.split("-")
        return "bdist_wheel", parts[-3] if len(parts) >= 5 else "py3"
    if filename.endswith(".egg"):
        found = re.search(r"-py(\d\.\d+)", stem)
        return "bdist_egg", found[1] if found else "any"
    if filename.endswith(".exe"):
        found = re.search(r"-py(\d\.\d+)", stem)
        return "bdist_wininst", found[1] if found else "any"
    for ending, kind in ((".msi", "bdist_msi"), (".rpm", "bdist_rpm"), (".dmg", "bdist_dmg")):
        if filename.endswith(ending):
            return kind, "any"
    return ("sdist", "source") if filename.endswith(_SDISTS) else ("bdist_dumb", "any")
