"""Relative links from a project's page to its files, and back.

A page is at ``simple/NAME/``, a file at ``packages/aa/bb/REST/FILENAME``, both below the web root; so a link works
wherever the tree is served, also below a prefix.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from heliostat.errors import Refused
from heliostat.model import ProjectName
from heliostat.names import package_path, quote_filename

#: Where our own pages are said to be when they are parsed, so that their links become absolute and come back.
LOCAL = "file:///"

_UP = "../../"
_LINK = re.compile(
    r"(?:\.\./\.\./|file:///)packages/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{60})/([^/?#]+)(?:#.*)?", re.DOTALL
)
_WEB = "web/"


def local_page_url(name: ProjectName) -> str:
    """The ``url`` to parse a page of our own with, so that :func:`package_of` understands its files' URLs."""
    return f"{LOCAL}simple/{name}/"


def local_document_url(name: ProjectName) -> str:
    """The same for a document of our own: relative links in it count from where upstream had it."""
    return f"{LOCAL}pypi/{name}/json"


def file_link(package: str) -> str:
    """The link to a file whose path is ``package`` (``web/packages/...``), to stand on any project's page.

    A ``;`` is quoted although it need not be: joining drops one that ends a URL.
    """
    directory, _, filename = package.removeprefix(_WEB).rpartition("/")
    if not package.startswith(_WEB + "packages/"):
        raise Refused("path", package, "not below web/packages/")
    return f"{_UP}{directory}/{quote_filename(filename).replace(';', '%3B')}"


def package_of(link: str) -> str | None:
    """The path (``web/packages/...``) that a link of ours leads to, relative or resolved against ``LOCAL``.

    None for every other link, and for one whose file name is refused.
    """
    found = _LINK.fullmatch(link)
    if not found:
        return None
    try:
        return package_path(found[1] + found[2] + found[3], unquote(found[4], errors="strict"))
    except (Refused, UnicodeDecodeError):
        return None
