"""What a static web root answers to a request target: a file, a redirect, or nothing.  Pure.

The same rules stand in ``configs/nginx.conf``; the same tests run against both.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from heliostat.errors import Refused
from heliostat.names import normalise
from heliostat.service.negotiation import Form, negotiate

_NAME = "[a-z0-9]+(?:-[a-z0-9]+)*"
_SPELLED = re.compile(r"/simple/([A-Za-z0-9._-]+)/?|/pypi/([A-Za-z0-9._-]+)/json/?")
_INDEX_DIRECTORY = re.compile(rf"/simple/(?:{_NAME}/)?")
_INDEX_PAGE = re.compile(rf"/simple/(?:{_NAME}/)?(index\.(?:html|v1_html|v1_json))")
_PROJECT_DOCUMENT = re.compile(rf"/pypi/{_NAME}/json|/json/{_NAME}")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
#: For what else may lie in the web root; the rest is bytes.
_OTHER_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "application/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Found:
    """A file below the web root, by its path with a leading slash, and how to label it."""

    path: str
    content_type: str
    cache_control: str
    vary: str | None = None


@dataclass(frozen=True)
class Redirect:
    """Permanently elsewhere; ``location`` is a path with its query, plain ASCII."""

    location: str


def clean_path(raw: str) -> str | None:
    """A request's path decoded once, slashes merged, dot segments resolved; None if it is malformed or climbs out.

    ``raw`` is as it was sent and starts with a slash.  Bytes that are not UTF-8 come out as ``os.fsdecode`` has them.
    """
    if not raw.startswith("/") or _BAD_ESCAPE.search(raw):
        return None
    decoded = unquote_to_bytes(raw)
    if b"\0" in decoded:
        return None
    segments = os.fsdecode(decoded).split("/")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            if not kept:
                return None
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    directory = segments[-1] in ("", ".", "..") and kept
    return "/" + "/".join(kept) + ("/" if directory else "")


def route(path: str, *, query: str = "", accept: str | None = None) -> Found | Redirect | None:
    """What to answer for a clean path; None is 404.  Whether a file found is there, the caller sees."""
    if path == "/simple" or path.startswith(("/simple/", "/pypi/")):
        return _index(path, query, accept) or _respelled(path, query)
    if _PROJECT_DOCUMENT.fullmatch(path):
        return Found(path, "application/json", "max-age=900, public")
    if path.startswith("/packages/"):
        return Found(path, _BYTES, "max-age=365000000, immutable, public")
    if path.startswith("/integrity/"):
        return Found(path, "application/vnd.pypi.integrity.v1+json", "max-age=600, public")
    if path.startswith("/changes/"):
        return Found(path, "text/plain; charset=utf-8", "max-age=10, public")
    if path == "/last-modified":
        return Found(path, "text/plain; charset=utf-8", "max-age=10, public")
    if path.endswith("/"):
        path += "index.html"
    return Found(path, _OTHER_TYPES.get(os.path.splitext(path)[1], _BYTES), "max-age=600, public")


def _index(path: str, query: str, accept: str | None) -> Found | None:
    """Index pages, negotiated or by file name, and JSON documents."""
    if _INDEX_DIRECTORY.fullmatch(path):
        return _page(path, negotiate(accept, query))
    if page := _INDEX_PAGE.fullmatch(path):
        form = next(form for form in Form if form.filename == page[1])
        return _page(path.removesuffix(page[1]), form)
    if _PROJECT_DOCUMENT.fullmatch(path):
        return Found(path, "application/json", "max-age=900, public")
    return None


def _page(directory: str, form: Form) -> Found:
    charset = "; charset=utf-8" if form is Form.HTML else ""
    return Found(directory + form.filename, form.media_type + charset, "max-age=600, public", vary="Accept")


def _respelled(path: str, query: str) -> Redirect | None:
    """The normal form of an address that is spelled otherwise; None if it is nobody's."""
    tail = "?" + query if query else ""
    if path == "/simple":
        return Redirect("/simple/" + tail)
    spelled = _SPELLED.fullmatch(path)
    if spelled is None:
        return None
    try:
        normal = f"/simple/{normalise(spelled[1])}/" if spelled[1] else f"/pypi/{normalise(spelled[2])}/json"
    except Refused:
        return None
    return Redirect(normal + tail)
