"""Trees as other mirrors leave them, written from what an index holds, and the recorded ones where they are at hand."""

from __future__ import annotations

import html
import json
import os
import pickle
import sqlite3
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from heliostat.fakeindex import Expected, Index, UploadedFile

_FIXTURES = os.environ.get("HELIOSTAT_FIXTURES")


def recorded(tool: str) -> Path | None:
    """The archive of a tree that ``tool`` made, beside the recordings."""
    found = Path(_FIXTURES).parent / "trees" / f"{tool}.tar.gz" if _FIXTURES else None
    return found if found is not None and found.exists() else None


def unpack(archive: Path, directory: Path) -> None:
    """The tree itself into ``directory``; in the archive it lies in a folder of its own."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            _, _, member.name = member.name.removeprefix("./").partition("/")
            if member.name:
                tar.extract(member, directory, filter="tar")


def index_of(web: Path) -> Index:
    """The index that a tree with documents was made from."""
    index = Index()
    documents = [json.loads(path.read_bytes()) for path in sorted((web / "json").iterdir())]
    for document in sorted(documents, key=lambda one: int(one["last_serial"])):
        for version, files in document["releases"].items():
            for file in files:
                path = web / file["url"][file["url"].index("/packages/") + 1 :]
                sidecar = path.with_name(path.name + ".metadata")
                index.publish(
                    document["info"]["name"],
                    version,
                    UploadedFile(
                        file["filename"],
                        path.read_bytes(),
                        sidecar=sidecar.read_bytes() if sidecar.exists() else None,
                        upload_time=file["upload_time_iso_8601"],
                        requires_python=file["requires_python"],
                    ),
                    requires_python=file["requires_python"],
                )
    return index


# -- bandersnatch ----------------------------------------------------------------------------------------------------


def bandersnatch(
    index: Index,
    directory: Path,
    *,
    documents: bool = True,
    json_pages: bool = True,
    hashed: bool = False,
    raw_names: bool = False,
    versions: bool = False,
    unfinished: bool = False,
    algorithm: str = "sha256",
    root_uri: str = "../..",
) -> None:
    """``raw_names``: folders as projects are displayed, as before PEP 503, beside those in normal form or alone.

    ``versions``: old pages are kept, and the current ones links to them.  ``unfinished``: a run was interrupted.
    """
    web = directory / "web"
    for folder in ("simple", "packages", "pypi", "json", "local-stats/days"):
        (web / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(index.projects()):
        display = index[name].display
        folder = display if raw_names and number % 2 else name
        pages = web / "simple" / (name[0] if hashed else "") / folder
        pages.mkdir(parents=True)
        files = index.expected_files(name)
        _packages(web, files)
        link = lambda one: root_uri + one.file.path  # noqa: E731 - one expression, used twice
        forms = {"index.html": _html(index, name, files, link, algorithm), "index.v1_html": None}
        forms["index.v1_html"] = forms["index.html"]
        if json_pages:
            forms["index.v1_json"] = _json(index, name, files, link, algorithm)
        _write_pages(pages, forms, versions=versions)
        if raw_names and folder != display:  # for old clients both were kept
            beside = pages.with_name(display)
            beside.mkdir()
            (beside / "index.html").write_text(forms["index.html"] or "")
        if documents:
            body = json.dumps(json.loads(index.document_bytes(name) or b""), indent=4, sort_keys=True)
            (web / "json" / (display if raw_names else name)).write_text(body)
            (web / "pypi" / (display if raw_names else name)).mkdir()
            if number % 2:
                (web / "pypi" / (display if raw_names else name) / "json").write_text(body)
            else:
                (web / "pypi" / (display if raw_names else name) / "json").symlink_to(f"../../json/{name}")
    _root(index, web)
    (directory / ".lock").touch()
    (directory / "generation").write_text("5")
    (directory / "generation").chmod(0o600)
    (directory / "status").write_text(str(index.serial))
    (web / "last-modified").write_text("20260101T00:00:00\n")
    (web / "last-modified").chmod(0o600)
    if unfinished:
        name = next(iter(index.projects()))
        (directory / "todo").write_text(f"{index.serial}\n{name} 7\n")
        (web / "simple" / (name[0] if hashed else "") / name / ".index.html.x1y2z3_9").write_text("<html>")
        (web / "json" / f".{name}.abcdefgh").write_text("{")
        (web / "simple" / ".index.html.abcd_123").write_text("<html>")
        file = index.expected_files(name)[0].file
        (web / f"{file.path[1:]}.zyxwvuts").write_bytes(b"half of it")


def _write_pages(pages: Path, forms: dict[str, str | None], *, versions: bool) -> None:
    for page, text in forms.items():
        if text is None:
            continue
        if not versions:
            (pages / page).write_text(text)
            continue
        (pages / "versions").mkdir(exist_ok=True)
        kept = pages / "versions" / f"index_7_2026-01-01T000000Z.{page.partition('.')[2]}"
        kept.write_text(text)
        kept.with_name(kept.name.replace("_7_", "_6_")).write_text("an older one")
        (pages / page).symlink_to(kept)


def _packages(web: Path, files: Iterable[Expected], place: Callable[[Expected], str] | None = None) -> None:
    for one in files:
        path = web / (place(one) if place else one.file.path[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.file.content.read(0, one.file.content.size))
        if one.file.sidecar is not None and place is None:
            path.with_name(path.name + ".metadata").write_bytes(one.file.sidecar)


def _digest(one: Expected, algorithm: str) -> str:
    return str(getattr(one.file.content.digests, algorithm))


def _html(
    index: Index, name: str, files: list[Expected], link: Callable[[Expected], str], algorithm: str = "sha256"
) -> str:
    lines = []
    for one in files:
        more = f' data-requires-python="{html.escape(one.file.requires_python)}"' if one.file.requires_python else ""
        if one.file.sidecar is not None:
            more += ' data-dist-info-metadata="true" data-core-metadata="true"'
        href = f"{link(one)}#{algorithm}={_digest(one, algorithm)}"
        lines.append(f'    <a href="{href}"{more}>{html.escape(one.file.filename)}</a><br/>\n')
    return (
        '<!DOCTYPE html>\n<html>\n  <head>\n    <meta name="pypi:repository-version" content="1.0">\n'
        f"    <title>Links for {name}</title>\n  </head>\n  <body>\n    <h1>Links for {name}</h1>\n{''.join(lines)}"
        f"  </body>\n</html>\n<!--SERIAL {index[name].last_serial}-->"
    )


def _json(
    index: Index, name: str, files: list[Expected], link: Callable[[Expected], str], algorithm: str = "sha256"
) -> str:
    entries: list[dict[str, Any]] = []
    for one in files:
        entry = {
            "filename": one.file.filename, "hashes": {algorithm: _digest(one, algorithm)},
            "requires-python": one.file.requires_python or "", "size": one.file.content.size, "url": link(one),
            "yanked": False,
        }  # fmt: skip
        if one.file.sidecar is not None:
            entry["core-metadata"] = entry["data-dist-info-metadata"] = True
        entries.append(entry)
    meta = {"api-version": "1.1", "_last-serial": str(index[name].last_serial)}
    return json.dumps({"files": entries, "meta": meta, "name": name, "versions": sorted(index[name].releases)})


def _root(index: Index, web: Path) -> None:
    links = "".join(f'    <a href="{name}/">{name}</a><br/>\n' for name in index.projects())
    text = f"<!DOCTYPE html>\n<html>\n  <head>\n    <title>Simple Index</title>\n  </head>\n  <body>\n{links}  </body>\n</html>"
    for page in ("index.html", "index.v1_html"):
        (web / "simple" / page).write_text(text)
    root = {"meta": {"_last-serial": index.serial, "api-version": "1.1"}}
    (web / "simple/index.v1_json").write_text(
        json.dumps(root | {"projects": [{"name": one} for one in index.projects()]})
    )


# -- shadowmire ------------------------------------------------------------------------------------------------------


def shadowmire(index: Index, directory: Path) -> None:
    """Its web root is the top; the HTML page is a link."""
    directory.mkdir(exist_ok=True)
    for folder in ("simple", "packages", "json"):
        (directory / folder).mkdir()
    serials = {}
    for name in index.projects():
        pages = directory / "simple" / name
        pages.mkdir()
        files = index.expected_files(name)
        _packages(directory, files)
        link = lambda one: f"../..{one.file.path}"  # noqa: E731 - one expression, used twice
        (pages / "index.v1_html").write_text(_html(index, name, files, link))
        (pages / "index.html").symlink_to("index.v1_html")
        (pages / "index.v1_json").write_text(_json(index, name, files, link))
        (directory / "json" / name).write_bytes(index.document_bytes(name) or b"")
        serials[name] = index[name].last_serial
    _root(index, directory)
    with sqlite3.connect(directory / "local.db") as connection:
        connection.execute("CREATE TABLE local(key TEXT PRIMARY KEY, value INT NOT NULL, file_serial INT)")
        connection.executemany("INSERT INTO local VALUES (?, ?, ?)", [(n, s, s) for n, s in serials.items()])
    connection.close()
    (directory / "local.db.serial").write_text(str(index.serial))
    for name in ("local.json", "remote.json", "remote_excluded.json"):
        (directory / name).write_text(json.dumps(serials))
    (directory / "plan.json").write_text("{}")


# -- pep381client ----------------------------------------------------------------------------------------------------


def pep381client(index: Index, directory: Path) -> None:
    """Its documented layout: files by Python version, first letter and project; pages with MD5 digests, signed."""
    web = directory / "web"
    for folder in ("simple", "packages", "serversig", "local-stats/days"):
        (web / folder).mkdir(parents=True)
    for name in index.projects():
        display = index[name].display
        files = index.expected_files(name)

        def place(one: Expected, display: str = display) -> str:
            return f"packages/{one.file.python_version}/{display[0]}/{display}/{one.file.filename}"

        _packages(web, files, place)
        (web / "simple" / display).mkdir()
        text = _html(index, display, files, lambda one: "../../" + quote(place(one)), "md5")
        text = text.replace(' data-dist-info-metadata="true" data-core-metadata="true"', "")
        (web / "simple" / display / "index.html").write_text(text.partition("<!--")[0])
        (web / "serversig" / display).write_bytes(b"\1\2\3")
    (web / "simple/index.html").write_text("<html><head><title>Simple Index</title></head><body></body></html>")
    (web / "last-modified").write_text("20120101T00:00:00\n")
    (directory / "status").write_bytes(pickle.dumps({"homedir": str(directory), "last_completed": 1}))
