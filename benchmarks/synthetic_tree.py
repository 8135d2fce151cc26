"""A mirror's web root of any size, written straight to disk: what ``heliostat verify --web-root`` finds all right.

Everything in it is as heliostat writes it: pages in both forms, documents, links, root pages, content-addressed files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator

from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.names import package_path
from heliostat.pages.links import file_link
from heliostat.pages.render import project_html, project_json, root_html, root_json

_TIME = "2026-01-02T03:04:05.000000Z"
_BLOCK = 1 << 20


def make(web: str, *, files: int, size: int, files_each: int = 10) -> None:
    """``files`` files of ``size`` bytes, ``files_each`` to a project, below ``web``, which must not exist."""
    for folder in ("simple", "json", "pypi", "packages"):
        os.makedirs(f"{web}/{folder}")
    block = os.urandom(min(size, _BLOCK))
    projects = -(-files // files_each)
    width = len(str(projects))
    for number in range(projects):
        name = f"project-{number:0{width}}"
        _project(web, name, number + 1, min(files_each, files - number * files_each), size, block)
    names = [f"project-{number:0{width}}" for number in range(projects)]
    entries = [(name, name, number + 1) for number, name in enumerate(names)]
    _write(f"{web}/simple/index.v1_json", root_json(entries, projects))
    _write(f"{web}/simple/index.html", root_html(entries))
    os.link(f"{web}/simple/index.html", f"{web}/simple/index.v1_html")


def _project(web: str, name: str, serial: int, count: int, size: int, block: bytes) -> None:
    listed, described = [], {}
    for number in range(count):
        version = f"1.{number}"
        filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        sha256 = _content(web, filename, size, block)
        path = package_path(sha256, filename)
        listed.append(
            DistFile(
                filename=filename, url=file_link(path), hashes={"sha256": sha256}, size=size, upload_time=_TIME,
                requires_python=">=3.9", core_metadata=False,
            )
        )  # fmt: skip
        described[version] = [
            {
                "filename": filename, "url": f"https://files.example/{path.removeprefix('web/')}", "size": size,
                "digests": {"sha256": sha256}, "upload_time_iso_8601": _TIME, "yanked": False,
                "requires_python": ">=3.9",
            }
        ]  # fmt: skip
    page = ProjectPage(name=ProjectName(name), files=tuple(listed), versions=tuple(described), serial=serial)
    document = {"info": {"name": name, "version": "1.0"}, "last_serial": serial, "releases": described, "urls": []}
    _write(f"{web}/json/{name}", [json.dumps(document).encode()])
    os.mkdir(f"{web}/pypi/{name}")
    os.symlink(f"../../json/{name}", f"{web}/pypi/{name}/json")
    folder = f"{web}/simple/{name}"
    os.mkdir(folder)
    _write(f"{folder}/index.html", [project_html(page)])
    os.link(f"{folder}/index.html", f"{folder}/index.v1_html")
    _write(f"{folder}/index.v1_json", [project_json(page)])


def _content(web: str, filename: str, size: int, block: bytes) -> str:
    """A file whose bytes begin with its name; its SHA-256."""
    state = hashlib.sha256()
    for piece in _pieces(filename.encode(), size, block):
        state.update(piece)
    path = package_path(state.hexdigest(), filename).removeprefix("web/")
    os.makedirs(os.path.dirname(f"{web}/{path}"))
    _write(f"{web}/{path}", _pieces(filename.encode(), size, block))
    return state.hexdigest()


def _pieces(lead: bytes, size: int, block: bytes) -> Iterator[bytes]:
    yield lead[:size]
    left = size - len(lead)
    while left > 0:
        yield block[:left]
        left -= len(block)


def _write(path: str, pieces: object) -> None:
    with open(path, "wb") as file:
        file.writelines(pieces)  # type: ignore[arg-type]
