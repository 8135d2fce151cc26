"""What the fake index answers: pages, documents and XML, in the public index's forms.

Written from the same specifications as :mod:`heliostat.pages`, and sharing nothing with it, so that neither hides a
mistake of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape as xml_escape

import msgspec

from heliostat.fakeindex.project import Project, Release, UploadedFile
from heliostat.model import DistFile, Event, ProjectName, ProjectPage

API_VERSION = "1.4"
#: Characters that XML does not allow.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PUNCTUATION = re.compile(r"[^0-9A-Za-z]")


#: Keys of ``info`` that are null unless the release says something.
_INFO_KEYS = (
    "author", "author_email", "bugtrack_url", "description_content_type", "docs_url", "download_url", "dynamic",
    "home_page", "keywords", "license", "license_expression", "license_files", "maintainer", "maintainer_email",
    "platform", "project_urls", "provides_extra", "requires_dist", "requires_python", "summary",
)  # fmt: skip
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


@dataclass(frozen=True, slots=True)
class Bases:
    """URLs without a final slash: of the index, and of the host of its files."""

    index: str
    files: str
    #: File links on pages are relative to the page (``../../packages/...``), as on a static mirror.
    relative: bool = False


def html_escape(text: str) -> str:
    """For HTML, in attributes and between tags, as Jinja escapes it."""
    return text.translate(_HTML)


def dumps(value: Any) -> bytes:
    """Compact, sorted keys, UTF-8, a newline at the end."""
    return msgspec.json.encode(value, order="sorted") + b"\n"


# -- the Simple API --------------------------------------------------------------------------------------------


def page(project: Project, bases: Bases) -> ProjectPage:
    """The project's page as a value."""
    offered = project.offered()
    return ProjectPage(
        name=ProjectName(project.name),
        files=tuple(_page_file(project, release, file, bases) for release, file in offered),
        versions=tuple(dict.fromkeys(release.version for release, _ in offered)),
        status=project.status,
        status_reason=project.status_reason,
        serial=project.last_serial,
    )


def page_json(project: Project, bases: Bases, *, serial_as_text: bool = False) -> bytes:
    return page_json_of(page(project, bases), serial_as_text=serial_as_text)


def page_json_of(said: ProjectPage, *, serial_as_text: bool = False) -> bytes:
    """A page from its value; ``versions``, sizes and serial must be known."""
    status = {"status": said.status} | ({"reason": said.status_reason} if said.status_reason else {})
    serial = str(said.serial) if serial_as_text else said.serial
    return dumps(
        {
            "files": [_json_file(file) for file in said.files],
            "meta": {"_last-serial": serial, "api-version": API_VERSION},
            "name": said.name,
            "project-status": status,
            "versions": said.versions,
        }
    )


def page_html(project: Project, bases: Bases) -> bytes:
    return page_html_of(page(project, bases))


def page_html_of(said: ProjectPage) -> bytes:
    """A page from its value."""
    name = html_escape(said.name)
    reason = ""
    if said.status_reason:
        reason = f'<meta name="pypi:project-status-reason" content="{html_escape(said.status_reason)}">'
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n  <head>\n'
        f'    <meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f'<meta name="pypi:project-status" content="{said.status}">{reason}    <title>Links for {name}</title>\n'
        f"  </head>\n  <body>\n    <h1>Links for {name}</h1>\n"
    )
    anchors = "".join(_anchor(file) for file in said.files)
    return f"{head}{anchors}</body>\n</html>\n<!--SERIAL {said.serial}-->".encode()


def root_json_head(serial: int, *, serial_as_text: bool = False) -> bytes:
    text = f'"{serial}"' if serial_as_text else str(serial)
    return b'{"meta":{"_last-serial":%b,"api-version":"%b"},"projects":[' % (text.encode(), API_VERSION.encode())


def root_json_entries(entries: Iterable[tuple[str, int]]) -> bytes:
    """(name as displayed, serial) of each project, without the brackets around."""
    return ",".join(f'{{"_last-serial":{serial},"name":{_json_text(display)}}}' for display, serial in entries).encode()


ROOT_JSON_TAIL = b"]}\n"
ROOT_HTML_HEAD = (
    f'<!DOCTYPE html>\n<html lang="en">\n  <head>\n    <meta name="pypi:repository-version" content="{API_VERSION}">\n'
    "    <title>Simple index</title>\n  </head>\n  <body>\n"
).encode()
ROOT_HTML_TAIL = b"</body>\n</html>"


def root_html_entries(entries: Iterable[tuple[str, str]]) -> bytes:
    """(normalised name, name as displayed) of each project."""
    return "".join(f'<a href="/simple/{name}/">{html_escape(display)}</a>\n' for name, display in entries).encode()


def _page_file(project: Project, release: Release, file: UploadedFile, bases: Bases) -> DistFile:
    return DistFile(
        filename=file.filename,
        url=file.url or (f"../..{file.path}" if bases.relative else bases.files + file.path),
        hashes=file.page_hashes,
        size=file.size,
        upload_time=file.upload_time,
        requires_python=file.requires_python,
        yanked=(release.yanked_reason or True) if release.yanked else False,
        core_metadata=_metadata(file),
        provenance=provenance_url(project, release, file, bases) if file.provenance is not None else None,
        gpg_sig=file.gpg_sig,
    )


def provenance_url(project: Project, release: Release, file: UploadedFile, bases: Bases) -> str:
    version, filename = quote(release.version, safe="+!"), quote(file.filename, safe="~!$&'()*+,;=:@")
    return f"{bases.index}/integrity/{project.name}/{version}/{filename}/provenance"


def _json_file(file: DistFile) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "core-metadata": file.core_metadata,
        "data-dist-info-metadata": file.core_metadata,
        "filename": file.filename,
        "hashes": file.hashes,
        "provenance": file.provenance,
        "requires-python": file.requires_python,
        "size": file.size,
        "upload-time": file.upload_time,
        "url": file.url,
        "yanked": file.yanked,
    }
    if file.gpg_sig is not None:
        entry["gpg-sig"] = file.gpg_sig
    return entry


def _anchor(file: DistFile) -> str:
    fragment = "".join(f"#{algorithm}={digits}" for algorithm, digits in file.hashes.items())
    text = f'<a href="{html_escape(file.url)}{fragment}" '
    if file.requires_python:
        text += f'data-requires-python="{html_escape(file.requires_python)}" '
    if file.yanked:
        text += f'data-yanked="{html_escape("" if file.yanked is True else file.yanked)}" '
    if isinstance(file.core_metadata, dict):
        digest = f"sha256={file.core_metadata['sha256']}"
        text += f'data-dist-info-metadata="{digest}" data-core-metadata="{digest}"'
    if file.provenance:
        text += f' data-provenance="{html_escape(file.provenance)}"'
    if file.gpg_sig is not None:
        text += f' data-gpg-sig="{str(file.gpg_sig).lower()}"'
    return f"{text}>{html_escape(file.filename)}</a><br />\n"


def _metadata(file: UploadedFile) -> bool | dict[str, str]:
    return False if file.sidecar is None else {"sha256": file.sidecar_sha256}


def _json_text(text: str) -> str:
    return f'"{text}"' if text.isalnum() and text.isascii() else msgspec.json.encode(text).decode()


# -- the JSON document -----------------------------------------------------------------------------------------


def document(project: Project, bases: Bases, version: str | None = None) -> bytes | None:
    """``/pypi/NAME/json``, or one version's without ``releases``; None where the answer is 404."""
    visible = {release.version: release for release in project.visible()}
    latest = project.latest() if version is None else visible.get(version)
    if latest is None:
        return None
    rendered = {number: _document_files(release, bases) for number, release in visible.items()}
    body: dict[str, Any] = {
        "info": _info(project, latest, bases),
        "last_serial": project.last_serial,
        "ownership": _ownership(project),
        "urls": rendered[latest.version],
        "vulnerabilities": project.vulnerabilities.get(latest.version, []),
    }
    if version is None:
        body["releases"] = rendered
    return dumps(body)


def _document_files(release: Release, bases: Bases) -> list[dict[str, Any]]:
    files = sorted(release.files, key=lambda file: (_collation(file.filename), file.filename))
    return [_document_file(release, file, bases) for file in files]


def _collation(text: str) -> tuple[str, str]:
    """Roughly the database's order: letters and digits first, case and punctuation only between equals."""
    return _PUNCTUATION.sub("", text).lower(), text.lower()


def _document_file(release: Release, file: UploadedFile, bases: Bases) -> dict[str, Any]:
    digests = file.document_hashes
    return {
        "comment_text": file.comment_text,
        "core-metadata": _metadata(file),
        "digests": digests,
        "downloads": -1,
        "filename": file.filename,
        "has_sig": False,
        "md5_digest": digests.get("md5", ""),
        "packagetype": file.packagetype,
        "python_version": file.python_version,
        "requires_python": file.requires_python,
        "size": file.size,
        "upload_time": file.upload_time.rstrip("Z").partition(".")[0],
        "upload_time_iso_8601": file.upload_time,
        "url": file.url or bases.files + file.path,
        "yanked": release.yanked,
        "yanked_reason": release.yanked_reason,
    }


def _ownership(project: Project) -> dict[str, Any]:
    roles = sorted(project.roles, key=lambda role: (role[0] != "Owner", role[1]))
    return {
        "organization": project.organization,
        "roles": [{"role": role, "user": user} for role, user in roles],
    }


def _info(project: Project, release: Release, bases: Bases) -> dict[str, Any]:
    url = f"{bases.index}/project/{quote(project.display)}/"
    info: dict[str, Any] = dict.fromkeys(_INFO_KEYS)
    info |= {
        "classifiers": [],
        "description": "",
        "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
        "name": project.display,
        "package_url": url,
        "project_url": url,
        "release_url": f"{url}{quote(release.version)}/",
        "requires_python": next((file.requires_python for file in release.files), None),
        "version": release.version,
        "yanked": release.yanked,
        "yanked_reason": release.yanked_reason,
    }
    return info | release.info


# -- XML-RPC ---------------------------------------------------------------------------------------------------

_XML_HEAD = "<?xml version='1.0'?>\n<methodResponse>\n"


def xml_answer(value: str) -> bytes:
    return f"{_XML_HEAD}<params>\n<param>\n<value>{value}</value>\n</param>\n</params>\n</methodResponse>\n".encode()


def xml_fault(code: int, text: str) -> bytes:
    return (
        f"{_XML_HEAD}<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n<value><int>{code}</int></value>\n"
        f"</member>\n<member>\n<name>faultString</name>\n<value><string>{xml_escape(text)}</string></value>\n</member>\n"
        "</struct></value>\n</fault>\n</methodResponse>\n"
    ).encode()


def xml_int(number: int) -> str:
    return f"<int>{number}</int>"


def xml_rows(rows: Iterable[Event]) -> str:
    """``changelog_since_serial``'s array; the action is escaped twice, as the public index does."""
    return f"<array><data>\n{''.join(map(_xml_row, rows))}</data></array>"


def xml_serials(entries: Iterator[tuple[str, int]]) -> str:
    """``list_packages_with_serial``'s struct."""
    members = (
        f"<member>\n<name>{xml_escape(display)}</name>\n<value><int>{serial}</int></value>\n</member>\n"
        for display, serial in entries
    )
    return f"<struct>\n{''.join(members)}</struct>"


def _xml_row(row: Event) -> str:
    name = f"<string>{xml_escape(row.display)}</string>" if row.display else "<nil/>"
    version = "<nil/>" if row.version is None else f"<string>{xml_escape(row.version)}</string>"
    action = _NOT_XML.sub("", row.action).encode("ascii", "xmlcharrefreplace").decode("ascii")
    return (
        f"<value><array><data>\n<value>{name}</value>\n<value>{version}</value><value><int>{row.time}</int></value>\n"
        f"<value><string>{xml_escape(action)}</string></value>\n<value><int>{row.serial}</int></value>\n"
        "</data></array></value>\n"
    )
