"""A project's Simple index page in JSON (PEP 691 to 792) becomes the model, whatever mirror wrote it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from heliostat.errors import Invalid
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.pages import fields


class _File(msgspec.Struct, rename="kebab"):
    filename: str
    url: str
    hashes: fields.RawHashes | None = None
    size: fields.Size | None = None
    upload_time: str | None = None
    requires_python: str | None = None
    yanked: bool | str | None = None
    core_metadata: fields.RawMetadata = None
    #: The public index's spelling, and the one from before PEP 714.
    data_dist_info_metadata: fields.RawMetadata = None
    dist_info_metadata: fields.RawMetadata = None
    provenance: str | None = None
    gpg_sig: bool | None = None


class _Status(msgspec.Struct):
    status: str | None = None
    #: PEP 792 calls the key so in one place.
    state: str | None = None
    reason: str | None = None


class _Meta(msgspec.Struct, rename="kebab"):
    api_version: str | None = None
    last_serial: fields.SerialOrText = msgspec.field(default=None, name="_last-serial")
    #: Where the specification's example puts what its text puts beside ``meta``.
    project_status: _Status | str | None = None
    project_status_reason: str | None = None


class _Page(msgspec.Struct, rename="kebab"):
    name: str
    files: Annotated[list[_File], msgspec.Meta(max_length=fields.MAX_FILES)]
    meta: _Meta | None = None
    versions: Annotated[list[str], msgspec.Meta(max_length=fields.MAX_FILES)] | None = None
    project_status: _Status | str | None = None


_DECODER = msgspec.json.Decoder(_Page)


def parse_project(body: bytes, *, url: str, name: ProjectName) -> ProjectPage:
    """The page of project ``name`` that was served at ``url``; relative links become absolute.

    Unknown keys and newer minor versions are ignored.  Raises Invalid for anything that is not such a page:
    wrong types, another project's name, a greater major version, two files of one name.
    """
    page = fields.decode(_DECODER, body, url)
    meta = page.meta or _Meta()
    fields.check_version(meta.api_version, url)
    fields.same_project(page.name, name, url)
    fields.unique_names([file.filename for file in page.files], url)
    status, reason = _status(page.project_status)
    if status is None:
        status, meta_reason = _status(meta.project_status)
        reason = reason or meta_reason or meta.project_status_reason
    return ProjectPage(
        name=name,
        files=tuple(_file(file, f"files[{index}]", url) for index, file in enumerate(page.files)),
        versions=None if page.versions is None else tuple(dict.fromkeys(page.versions)),
        status=fields.status(status, url),
        status_reason=reason or None,
        serial=fields.serial(meta.last_serial, "meta._last-serial", url),
    )


def _status(given: _Status | str | None) -> tuple[str | None, str | None]:
    if isinstance(given, _Status):
        return given.status or given.state, given.reason
    return given, None


def _file(file: _File, where: str, url: str) -> DistFile:
    if not file.filename:
        raise Invalid(url, f"{where}.filename: empty")
    target, fragment = fields.absolute(file.url, url, f"{where}.url", url)
    hashes = fields.hashes(file.hashes, f"{where}.hashes", url, fields.PAGE_ALGORITHMS)
    if fragment and not hashes:
        hashes = fields.fragment_hashes(fragment, f"{where}.url", url)
    metadata = (file.core_metadata, file.data_dist_info_metadata, file.dist_info_metadata)
    return DistFile(
        filename=file.filename,
        url=target,
        hashes=hashes,
        size=file.size,
        upload_time=fields.upload_time(file.upload_time, f"{where}.upload-time", url),
        requires_python=file.requires_python or None,
        yanked=fields.yanked(file.yanked),
        core_metadata=fields.core_metadata(metadata, f"{where}.core-metadata", url),
        provenance=file.provenance or None,
        gpg_sig=file.gpg_sig,
    )
