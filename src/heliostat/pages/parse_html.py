"""A project's Simple index page in HTML (PEP 503 to 792) becomes the model, whatever server wrote it."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from heliostat.errors import Invalid, Refused
from heliostat.model import CoreMetadata, DistFile, ProjectName, ProjectPage, Yanked
from heliostat.names import url_filename
from heliostat.pages import fields
from heliostat.pages.html_tokens import Comment, Tag, Truncated, tokens

_SERIAL = re.compile(r"SERIAL ([0-9]{1,18})")
#: A link without a digest is a file only if it looks like one: servers put navigation on their pages.
_DISTRIBUTION = re.compile(
    r".*\.(?:whl|egg|zip|tgz|tbz|txz|tlz|tar|tar\.(?:gz|bz2|xz|lz|lzma|z)|exe|msi|rpm|dmg|deb)",
    re.IGNORECASE | re.DOTALL,
)


class _Found:
    """What one reading of the page finds; links are resolved after it, because ``<base>`` may follow them."""

    def __init__(self) -> None:
        self.links: list[Tag] = []
        self.base: str | None = None
        self.meta: dict[str, str] = {}
        self.serial: int | None = None
        #: The page names itself as an index page of a project does.
        self.titled = False

    def take(self, token: Tag | Comment) -> None:
        if isinstance(token, Comment):
            if found := _SERIAL.fullmatch(token.text.strip()):
                self.serial = int(found[1])
        elif token.name == "a":
            if (token.attributes.get("href") or "").strip():
                self.links.append(token)
        elif token.name == "base" and self.base is None:
            self.base = token.attributes.get("href")
        elif token.name == "meta":
            name, content = token.attributes.get("name"), token.attributes.get("content")
            if name and content is not None:
                self.meta.setdefault(name.strip().lower(), content)
        elif token.name in ("title", "h1"):
            self.titled |= "links for" in token.text.lower()


def parse_project(body: bytes, *, url: str, name: ProjectName) -> ProjectPage:
    """The page of project ``name`` that was served at ``url``; relative links become absolute, ``<base>`` obeyed.

    HTML says neither sizes nor versions (nor ``core_metadata=False``).  Raises Invalid for a page that was cut off,
    has a greater major version, lists a file name twice, or has no files and does not look like an index page.
    """
    fields.check_utf8(body, url)
    found = _Found()
    try:
        for token in tokens(body.decode("utf-8")):
            found.take(token)
    except Truncated as exc:
        raise Invalid(url, f"not acceptable HTML: the page ends inside {exc}") from None
    fields.check_version(found.meta.get("pypi:repository-version"), url)
    files = _files(found, url)
    if not files and (found.links or not (found.titled or found.serial is not None)):
        raise Invalid(url, "not an index page of a project: no link to a file")
    fields.unique_names([file.filename for file in files], url)
    return ProjectPage(
        name=name,
        files=files,
        status=fields.status(found.meta.get("pypi:project-status"), url),
        status_reason=found.meta.get("pypi:project-status-reason") or None,
        serial=found.serial,
    )


def _files(found: _Found, url: str) -> tuple[DistFile, ...]:
    if len(found.links) > fields.MAX_FILES:
        raise Invalid(url, f"{len(found.links)} links, where {fields.MAX_FILES} are the most accepted")
    try:
        base = urljoin(url, found.base or "")
    except ValueError as exc:
        raise Invalid(url, f"base: not a URL ({exc})") from None
    files = (_file(link, f"link {index}", base, url) for index, link in enumerate(found.links))
    return tuple(file for file in files if file is not None)


def _file(link: Tag, where: str, base: str, url: str) -> DistFile | None:
    attributes = link.attributes
    href = (attributes.get("href") or "").strip()
    if href.startswith("#"):
        return None
    target, fragment = fields.absolute(href, base, where, url)
    hashes = fields.fragment_hashes(fragment, where, url) if fragment else {}
    try:
        filename = url_filename(target)
    except Refused as exc:
        if hashes:
            raise Invalid(url, f"{where}: {exc}") from None
        return None
    if hashes:
        filename = filename or link.text.strip()
    elif not _DISTRIBUTION.fullmatch(filename):
        return None
    if not filename:
        raise Invalid(url, f"{where}: no file name")
    metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))
    has_metadata = "data-core-metadata" in attributes or "data-dist-info-metadata" in attributes
    return DistFile(
        filename=filename,
        url=target,
        hashes=hashes,
        size=_size(attributes.get("data-size")),
        upload_time=fields.upload_time(attributes.get("data-upload-time"), f"{where}: data-upload-time", url),
        requires_python=attributes.get("data-requires-python") or None,
        yanked=_yanked(attributes),
        core_metadata=_core_metadata(metadata, where, url) if has_metadata else None,
        provenance=attributes.get("data-provenance") or None,
        gpg_sig=(attributes["data-gpg-sig"] or "true").lower() != "false" if "data-gpg-sig" in attributes else None,
    )


def _yanked(attributes: dict[str, str | None]) -> Yanked:
    """PEP 592: the attribute's presence is what counts."""
    return (attributes["data-yanked"] or True) if "data-yanked" in attributes else False


def _core_metadata(given: str | None, where: str, url: str) -> CoreMetadata:
    """PEP 714: ``true``, or ``algorithm=hex``; a value of another form says only that there is a sidecar."""
    if given is not None and given.lower() == "false":
        return False
    return fields.fragment_hashes(given or "", f"{where}: data-core-metadata", url) or True


def _size(given: str | None) -> int | None:
    """``data-size``, which no specification knows but uv reads."""
    if given is None or not re.fullmatch(r"[0-9]{1,15}", given):
        return None
    return min(int(given), fields.MAX_SIZE)
