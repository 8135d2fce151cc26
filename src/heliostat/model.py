"""Frozen values that all parts share: what an index says about a project and its distribution files."""

from __future__ import annotations

from typing import NewType

import msgspec

#: A project name in normal form (PEP 503): ``^[a-z0-9]+(-[a-z0-9]+)*$``, made only by :mod:`heliostat.names`.
ProjectName = NewType("ProjectName", str)

#: Yanked (PEP 592): ``False``, ``True`` (no reason given), or the reason, never an empty string.
Yanked = bool | str

#: PEP 714: ``None`` unknown, ``False`` none, ``True`` there is one, or its hashes.
CoreMetadata = None | bool | dict[str, str]


class DistFile(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution file as an index page lists it (PEP 691, 700, 714, 740)."""

    filename: str
    #: As the page gives it, made absolute when it was read from an upstream; relative in our own pages.
    url: str
    #: Lower-case algorithm to lower-case hex digits; ``sha256`` first when present; may be empty.
    hashes: dict[str, str]
    size: int | None = None
    #: ``yyyy-mm-ddThh:mm:ss[.ffffff]Z`` exactly as upstream wrote it; ``None`` when it gave none.
    upload_time: str | None = None
    requires_python: str | None = None
    yanked: Yanked = False
    core_metadata: CoreMetadata = None
    provenance: str | None = None
    gpg_sig: bool | None = None


class ProjectPage(msgspec.Struct, frozen=True, kw_only=True):
    """A project's Simple index page (PEP 691), whatever dialect it was written in."""

    name: ProjectName
    files: tuple[DistFile, ...] = ()
    #: PEP 700; ``None`` when the index does not say.
    versions: tuple[str, ...] | None = None
    #: PEP 792: ``active``, ``archived``, ``quarantined``, ``deprecated``, or a later one.
    status: str = "active"
    status_reason: str | None = None
    #: ``meta._last-serial``; ``None`` when the index does not say.
    serial: int | None = None

    @property
    def quarantined(self) -> bool:
        return self.status == "quarantined"


class DocumentFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the mirror needs of one file entry in a project's JSON document."""

    filename: str
    url: str
    #: As in :class:`DistFile`, but may also hold ``blake2b_256`` (a name that only the document uses).
    hashes: dict[str, str]
    size: int | None = None
    upload_time: str | None = None
    requires_python: str | None = None
    yanked: Yanked = False
    core_metadata: CoreMetadata = None
    #: The release it is listed under; ``None`` where the document does not say.
    version: str | None = None

    def as_on_page(self) -> DistFile:
        """The file as an index page would list it, without the hash that only the document has."""
        return DistFile(
            filename=self.filename,
            url=self.url,
            hashes={name: digest for name, digest in self.hashes.items() if name != "blake2b_256"},
            size=self.size,
            upload_time=self.upload_time,
            requires_python=self.requires_python,
            yanked=self.yanked,
            core_metadata=self.core_metadata,
        )


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What the mirror needs of a project's JSON document (``/pypi/NAME/json``)."""

    display_name: str | None
    serial: int | None
    files: tuple[DocumentFile, ...] = ()
    #: All keys of ``releases``, also those without files.
    versions: tuple[str, ...] = ()


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One entry of a root list: the name as displayed, and its serial where the index gives one."""

    display: str
    serial: int | None = None


class Event(msgspec.Struct, frozen=True):
    """One row of the change feed; ``display`` is empty in rows that concern no project."""

    display: str
    version: str | None
    #: Seconds since the epoch, UTC.
    time: int
    action: str
    serial: int
