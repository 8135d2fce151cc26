"""The model becomes index pages, in JSON (PEP 691 to 792) and in the public index's frozen HTML (PEP 833).

Some installers check only the first hash of a file, some refuse a whole page for one ``null``, or for a digest whose
name they do not know; so a page offers one hash of a file, the best, and leaves out what it cannot say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from heliostat.model import CoreMetadata, DistFile, ProjectPage

API_VERSION = "1.4"
#: PEP 700: from 1.1 on a page must have ``versions``, and each file its ``size``.
BARE_API_VERSION = "1.0"
#: Best first: all that installers check.
_JSON_HASHES = ("sha256", "sha512", "sha384", "blake2b", "sha224", "sha1", "md5")
#: Best first: uv refuses a page with another one in a link.
_HTML_HASHES = ("sha256", "sha512", "sha384", "blake2b", "md5")
#: Entries of the root list to one chunk: some 100 KB.
_BATCH = 2048

_SPECIAL = re.compile("[&<>\"']")

T = TypeVar("T")

_Maybe = msgspec.UnsetType | str
_Metadata = msgspec.UnsetType | bool | dict[str, str]


class _Meta(msgspec.Struct, rename={"serial": "_last-serial", "api_version": "api-version"}):
    serial: int | msgspec.UnsetType
    api_version: str


class _File(msgspec.Struct, rename="kebab"):
    """The keys in sorted order, as the public index writes them; what is unset is left out."""

    core_metadata: _Metadata
    data_dist_info_metadata: _Metadata
    filename: str
    gpg_sig: bool | msgspec.UnsetType
    hashes: dict[str, str]
    provenance: str | None
    requires_python: str | None
    size: int | msgspec.UnsetType
    upload_time: _Maybe
    url: str
    yanked: bool | str


class _Status(msgspec.Struct):
    reason: _Maybe
    status: str


class _Page(msgspec.Struct, rename="kebab"):
    files: list[_File]
    meta: _Meta
    name: str
    project_status: _Status
    versions: tuple[str, ...] | msgspec.UnsetType


class _Entry(msgspec.Struct, rename={"serial": "_last-serial"}, gc=False):
    serial: int | msgspec.UnsetType
    name: str


_ENCODER = msgspec.json.Encoder()


def project_json(page: ProjectPage) -> bytes:
    """The page in JSON: compact, keys sorted, newline at the end.

    A page whose versions or sizes are not all known states version 1.0, which does not promise them (nothing is
    invented); its further keys are then extensions that readers ignore.  A quarantined project offers no files.
    """
    files = _offered(page)
    full = page.versions is not None and all(file.size is not None for file in files)
    return (
        _ENCODER.encode(
            _Page(
                files=[_json_file(file) for file in files],
                meta=_Meta(_known(page.serial), API_VERSION if full else BARE_API_VERSION),
                name=page.name,
                project_status=_Status(reason=page.status_reason or msgspec.UNSET, status=page.status),
                versions=_known(page.versions),
            )
        )
        + b"\n"
    )


def project_html(page: ProjectPage) -> bytes:
    """The page in HTML, byte for byte as the public index would write it with these URLs (and no newline at the end).

    Without files it says so in a sentence, where the public index shows nothing; a quarantined project offers none.
    """
    name, files = escape(page.name), _offered(page)
    reason = ""
    if page.status_reason:
        reason = f'<meta name="pypi:project-status-reason" content="{escape(page.status_reason)}">'
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n  <head>\n'
        f'    <meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f'<meta name="pypi:project-status" content="{escape(page.status)}">{reason}'
        f"    <title>Links for {name}</title>\n  </head>\n  <body>\n    <h1>Links for {name}</h1>\n"
    )
    parts = [head, *(_html_file(file) for file in files)]
    if not files:
        parts.append(_nothing(page))
    parts.append("</body>\n</html>\n")
    if page.serial is not None:
        parts.append(f"<!--SERIAL {page.serial}-->")
    return "".join(parts).encode()


def root_json(entries: Iterable[tuple[str, str, int | None]], serial: int | None) -> Iterator[bytes]:
    """The root list in JSON, in chunks; entries are (name as displayed, normal name, serial).

    ``serial`` is the point up to which the list is complete.
    """
    lead = root_json_head(serial)
    for batch in _batches(entries):
        encoded = _ENCODER.encode([_Entry(_known(number), display) for display, _, number in batch])
        yield lead + encoded[1:-1]
        lead = b","
    yield (b"" if lead == b"," else lead) + b"]}\n"


def root_json_head(serial: int | None) -> bytes:
    """What stands in front of the first entry."""
    return b'{"meta":' + _ENCODER.encode(_Meta(_known(serial), API_VERSION)) + b',"projects":['


def root_json_entry(display: str, serial: int | None) -> bytes:
    """One entry of :func:`root_json`."""
    return _ENCODER.encode(_Entry(_known(serial), display))


def root_html(entries: Iterable[tuple[str, str, int | None]]) -> Iterator[bytes]:
    """The root list in HTML, in chunks; its links are relative to the page, unlike the public index's."""
    yield root_html_head()
    for batch in _batches(entries):
        yield "".join([f'<a href="{name}/">{escape(display)}</a>\n' for display, name, _ in batch]).encode()
    yield b"</body>\n</html>"


def root_html_head() -> bytes:
    """What stands in front of the first entry."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n  <head>\n'
        f'    <meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f"    <title>Simple index</title>\n  </head>\n  <body>\n"
    ).encode()


def root_html_entry(display: str, name: str) -> bytes:
    """One entry of :func:`root_html`, without the end of its line."""
    return f'<a href="{name}/">{escape(display)}</a>'.encode()


def escape(text: str) -> str:
    """``text`` for HTML, in attributes and between tags, as Jinja escapes it."""
    if not _SPECIAL.search(text):
        return text
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;").replace("'", "&#39;")
    )


def _offered(page: ProjectPage) -> tuple[DistFile, ...]:
    """PEP 792: an index must not offer files of a quarantined project."""
    return () if page.quarantined else page.files


def _known(value: T | None) -> T | msgspec.UnsetType:
    return msgspec.UNSET if value is None else value


def _best(hashes: Mapping[str, str], choice: tuple[str, ...]) -> dict[str, str]:
    for algorithm in choice:
        if algorithm in hashes:
            return {algorithm: hashes[algorithm]}
    return {}


def _json_file(file: DistFile) -> _File:
    metadata = _json_metadata(file.core_metadata)
    return _File(
        core_metadata=metadata,
        data_dist_info_metadata=metadata,
        filename=file.filename,
        gpg_sig=_known(file.gpg_sig),
        hashes=_best(file.hashes, _JSON_HASHES),
        provenance=file.provenance,
        requires_python=file.requires_python,
        size=_known(file.size),
        upload_time=file.upload_time or msgspec.UNSET,
        url=file.url,
        yanked=file.yanked or False,
    )


def _json_metadata(metadata: CoreMetadata) -> _Metadata:
    """PEP 714; never under its first name, whose object some old installers cannot read."""
    if isinstance(metadata, dict):
        return _best(metadata, _JSON_HASHES) or True
    return _known(metadata)


def _html_file(file: DistFile) -> str:
    """One line; the order of attributes and the spaces between them are the public index's."""
    digest = _fragment(file.hashes)
    attributes = ""
    if file.requires_python:
        attributes += f'data-requires-python="{escape(file.requires_python)}" '
    if file.yanked:
        # An attribute without a value would not count for everybody.
        attributes += f'data-yanked="{escape(file.yanked) if isinstance(file.yanked, str) else ""}" '
    if file.core_metadata is True or isinstance(file.core_metadata, dict):
        value = (_fragment(file.core_metadata) if isinstance(file.core_metadata, dict) else "") or "true"
        attributes += f'data-dist-info-metadata="{value}" data-core-metadata="{value}"'
    if file.provenance:
        attributes += f' data-provenance="{escape(file.provenance)}"'
    if file.gpg_sig is not None:
        attributes += f' data-gpg-sig="{"true" if file.gpg_sig else "false"}"'
    href = escape(f"{file.url}#{digest}" if digest else file.url)
    return f'<a href="{href}" {attributes}>{escape(file.filename)}</a><br />\n'


def _fragment(hashes: Mapping[str, str]) -> str:
    return "".join(f"{algorithm}={digits}" for algorithm, digits in _best(hashes, _HTML_HASHES).items())


def _nothing(page: ProjectPage) -> str:
    if not page.quarantined:
        return "<p>This project has no files.</p>\n"
    reason = f": {escape(page.status_reason)}" if page.status_reason else ""
    return f"<p>This project is quarantined{reason}. Its files are not offered.</p>\n"


def _batches(entries: Iterable[tuple[str, str, int | None]]) -> Iterator[list[tuple[str, str, int | None]]]:
    batch: list[tuple[str, str, int | None]] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
