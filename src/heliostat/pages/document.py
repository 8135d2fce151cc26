"""A project's JSON document (``/pypi/NAME/json``) becomes the model: only what the mirror needs of it.

Recordings of many years are read: before 2016 without digests, before 2019 without time zones, and other servers
leave out what they like.
"""

from __future__ import annotations

import msgspec

from heliostat.errors import Invalid
from heliostat.model import Document, DocumentFile, ProjectName
from heliostat.pages import fields


class _File(msgspec.Struct):
    filename: str
    url: str
    digests: fields.RawHashes | None = None
    md5_digest: str | None = None
    size: fields.Size | None = None
    upload_time_iso_8601: str | None = None
    upload_time: str | None = None
    requires_python: str | None = None
    yanked: bool | str | None = None
    yanked_reason: str | None = None
    core_metadata: fields.RawMetadata = msgspec.field(default=None, name="core-metadata")
    data_dist_info_metadata: fields.RawMetadata = msgspec.field(default=None, name="data-dist-info-metadata")


class _Info(msgspec.Struct):
    name: str | None = None
    version: str | None = None


class _Document(msgspec.Struct):
    info: _Info | None = None
    last_serial: fields.SerialOrText = None
    releases: dict[str, list[_File] | None] | None = None
    urls: list[_File] | None = None


_DECODER = msgspec.json.Decoder(_Document)


def parse_document(body: bytes, *, url: str, name: ProjectName | None = None) -> Document:
    """The document that was served at ``url``; without ``releases``, its ``urls`` are the files.

    A file listed under several releases is kept as often as it is listed.  Raises Invalid, also when
    the document is another project's than ``name``.
    """
    document = fields.decode(_DECODER, body, url)
    if document.releases is None and document.urls is None:
        raise Invalid(url, "wrong content: neither `releases` nor `urls`")
    info = document.info or _Info()
    if name is not None and info.name:
        fields.not_another_project(info.name, name, url)
    count = sum(len(release or ()) for release in (document.releases or {"": document.urls}).values())
    if count > fields.MAX_FILES:
        raise Invalid(url, f"wrong content: {count} files, where {fields.MAX_FILES} are the most accepted")
    files: list[DocumentFile] = []
    if document.releases is None:
        files += (_file(file, f"urls[{index}]", info.version, url) for index, file in enumerate(document.urls or ()))
    for version, release in (document.releases or {}).items():
        where = f"releases[{version[:40]!a}]"
        files += (_file(file, f"{where}[{index}]", version, url) for index, file in enumerate(release or ()))
    return Document(
        display_name=info.name or None,
        serial=fields.serial(document.last_serial, "last_serial", url),
        files=tuple(files),
        versions=tuple(document.releases or ()),
    )


def _file(file: _File, where: str, version: str | None, url: str) -> DocumentFile:
    if not file.filename:
        raise Invalid(url, f"{where}.filename: empty")
    target, _ = fields.absolute(file.url, url, f"{where}.url", url)
    digests = dict(file.digests or ())
    if file.md5_digest:
        digests.setdefault("md5", file.md5_digest)
    return DocumentFile(
        filename=file.filename,
        url=target,
        hashes=fields.hashes(digests, f"{where}.digests", url, fields.DOCUMENT_ALGORITHMS),
        size=file.size,
        upload_time=fields.upload_time(file.upload_time_iso_8601 or file.upload_time, f"{where}.upload_time", url),
        requires_python=file.requires_python or None,
        yanked=fields.yanked(file.yanked and (file.yanked_reason or file.yanked)),
        core_metadata=fields.core_metadata(
            (file.core_metadata, file.data_dist_info_metadata), f"{where}.core-metadata", url
        ),
        version=version,
    )
