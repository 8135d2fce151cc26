"""What can happen to a mirror's tree behind its back, and what of it a verify finds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from support.mirrors import Followed

HTML, V1_HTML, JSON = "index.html", "index.v1_html", "index.v1_json"


class Damage(NamedTuple):
    """What is done to a mirror, and what of it is found: kinds by path below ``web/``."""

    do: Callable[[Followed], object]
    found: set[tuple[str, str]]
    #: Only the ledger tells.
    ledger: bool = False
    #: Found on a bare web root besides.
    bare: set[tuple[str, str]] | None = None


def wheel(one: Followed) -> Path:
    return one.files("beta")["beta-1.0-py3-none-any.whl"]


def flip(path: Path) -> None:
    """Other bytes, the same size, the same time."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    page = json.loads(path.read_bytes())
    change(page)
    path.write_text(json.dumps(page))


def html(one: Followed, name: str = "beta") -> Path:
    return one.web / "simple" / name / HTML


def replaced(path: Path, old: bytes, new: bytes) -> None:
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new))


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def forget_serial(one: Followed) -> None:
    with sqlite3.connect(one.directory / "heliostat.db") as connection:
        connection.execute("UPDATE projects SET page_serial = 1 WHERE name = 'beta'")
    connection.close()


WHEEL, SIDECAR, PROOF = "{wheel}", "{wheel}.metadata", "integrity/beta/1.0/beta-1.0-py3-none-any.whl/provenance"
PAGE = "simple/beta/"

DAMAGES = {
    "a file is gone": Damage(lambda one: wheel(one).unlink(), {("missing", WHEEL)}),
    "a file is cut": Damage(lambda one: os.truncate(wheel(one), 100), {("size", WHEEL)}),
    "a file is longer": Damage(lambda one: wheel(one).write_bytes(wheel(one).read_bytes() + b"x"), {("size", WHEEL)}),
    "a bit is flipped": Damage(lambda one: flip(wheel(one)), {("digest", WHEEL)}),
    "a file is empty": Damage(lambda one: wheel(one).write_bytes(b""), {("size", WHEEL)}),
    "a sidecar is gone": Damage(lambda one: Path(f"{wheel(one)}.metadata").unlink(), {("missing", SIDECAR)}),
    "a sidecar's bit is flipped": Damage(lambda one: flip(Path(f"{wheel(one)}.metadata")), {("digest", SIDECAR)}),
    "a file's directory is gone": Damage(
        lambda one: shutil.rmtree(wheel(one).parent), {("missing", WHEEL), ("missing", SIDECAR)}
    ),
    "a provenance object is gone": Damage(lambda one: (one.web / PROOF).unlink(), {("missing", PROOF)}),
    "a provenance object is another's": Damage(
        lambda one: (one.web / PROOF).write_text('{"attestation_bundles": 1}'), {("provenance", PROOF)}
    ),
    "a file is a pipe": Damage(lambda one: instead(wheel(one), os.mkfifo), {("obstacle", WHEEL)}),
    "a file is a link": Damage(
        lambda one: instead(wheel(one), lambda path: path.symlink_to("/etc/passwd")), {("obstacle", WHEEL)}
    ),
    "a file is a directory": Damage(lambda one: instead(wheel(one), Path.mkdir), {("obstacle", WHEEL)}),
    "a file cannot be read": Damage(lambda one: wheel(one).chmod(0o000), {("unreadable", WHEEL)}),
    "a directory cannot be read": Damage(
        lambda one: wheel(one).parent.chmod(0o700), {("unreadable", "{folder}/")}
    ),
    "a page's directory cannot be read": Damage(
        lambda one: (one.web / PAGE).chmod(0o700), {("unreadable", PAGE)}
    ),
    "a link's directory cannot be read": Damage(
        lambda one: (one.web / "pypi/beta").chmod(0o711), {("unreadable", "pypi/beta/")}
    ),
    "a directory of all projects cannot be read": Damage(
        lambda one: (one.web / "json").chmod(0o750), {("unreadable", "json/")}
    ),
    "a JSON page is gone": Damage(lambda one: (one.web / PAGE / JSON).unlink(), {("page", PAGE + JSON)}),
    "a JSON page is cut": Damage(lambda one: os.truncate(one.web / PAGE / JSON, 300), {("page", PAGE + JSON)}),
    "a JSON page is empty": Damage(lambda one: os.truncate(one.web / PAGE / JSON, 0), {("page", PAGE + JSON)}),
    "a JSON page cannot be read": Damage(
        lambda one: (one.web / PAGE / JSON).chmod(0o200), {("unreadable", PAGE + JSON)}
    ),
    "a JSON page is of another project": Damage(
        lambda one: shutil.copyfile(one.web / "simple/alpha" / JSON, one.web / PAGE / JSON), {("page", PAGE + JSON)}
    ),
    "a JSON page lost a file": Damage(
        lambda one: change_json(one.web / PAGE / JSON, lambda page: page["files"].pop()),
        {("html", PAGE + HTML), ("disagreement", "json/beta"), ("ledger", PAGE + JSON)},
    ),
    "a JSON page gives another digest": Damage(
        lambda one: change_json(
            one.web / PAGE / JSON, lambda page: page["files"][0]["hashes"].update({"sha256": "0" * 64})
        ),
        {("html", PAGE + HTML), ("disagreement", "json/beta")},
    ),
    "a JSON page yanks": Damage(
        lambda one: change_json(one.web / PAGE / JSON, lambda page: page["files"][0].update(yanked="because")),
        {("html", PAGE + HTML), ("disagreement", "json/beta")},
    ),
    "a JSON page has another serial": Damage(
        lambda one: change_json(one.web / PAGE / JSON, lambda page: page["meta"].update({"_last-serial": 3})),
        {("html", PAGE + HTML), ("ledger", PAGE + JSON), ("root", "simple/" + JSON)},
        bare={("html", PAGE + HTML)},
    ),
    "a JSON page has other versions": Damage(
        lambda one: change_json(one.web / PAGE / JSON, lambda page: page.update(versions=["1.0", "9.9"])),
        {("disagreement", "json/beta")},
    ),
    "an HTML page is gone": Damage(
        lambda one: remove(html(one), html(one).with_name(V1_HTML)),
        {("html", PAGE + HTML), ("html", PAGE + V1_HTML)},
    ),
    "a script in an HTML page": Damage(
        lambda one: replaced(html(one), b"</body>", b"<script>steal()</script></body>"), {("html", PAGE + HTML)}
    ),
    "another title of an HTML page": Damage(
        lambda one: replaced(html(one), b"<title>Links for beta", b"<title>Buy here beta"), {("html", PAGE + HTML)}
    ),
    "links of a page lead above the web root": Damage(
        lambda one: replaced(html(one).with_name(JSON), b'"../../packages/', b'"../../../../../packages/'),
        {("page", PAGE + JSON)},
    ),
    "links of an HTML page lead above the web root": Damage(
        lambda one: replaced(html(one), b'"../../packages/', b'"../../../../../packages/'), {("html", PAGE + HTML)}
    ),
    "an HTML page is cut": Damage(lambda one: os.truncate(html(one), html(one).stat().st_size - 200), {("html", PAGE + HTML)}),
    "an HTML page gives another digest": Damage(
        lambda one: replaced(html(one), b"#sha256=", b"#sha256=" + b"0" * 8), {("html", PAGE + HTML)}
    ),
    "an HTML page has another serial": Damage(
        lambda one: replaced(html(one), b"<!--SERIAL ", b"<!--SERIAL 9"), {("html", PAGE + HTML)}
    ),
    "the names of the HTML page are two files": Damage(
        lambda one: instead(html(one), lambda path: shutil.copyfile(path.with_name(V1_HTML), path)),
        {("html", PAGE + V1_HTML)},
    ),
    "one name of the HTML page is gone": Damage(
        lambda one: html(one).with_name(V1_HTML).unlink(), {("html", PAGE + V1_HTML)}
    ),
    "all pages are gone": Damage(
        lambda one: shutil.rmtree(one.web / PAGE),
        {("page", PAGE + JSON)},
        bare={("page", PAGE + JSON), ("unreferenced", "json/beta"), ("unreferenced", "pypi/beta/json")},
    ),
    "a document is gone": Damage(lambda one: (one.web / "json/beta").unlink(), {("document", "json/beta")}),
    "a document is cut": Damage(lambda one: os.truncate(one.web / "json/beta", 500), {("document", "json/beta")}),
    "a document is no JSON": Damage(
        lambda one: (one.web / "json/beta").write_bytes(b"<html>"), {("document", "json/beta")}
    ),
    "a document cannot be read": Damage(
        lambda one: (one.web / "json/beta").chmod(0o000), {("unreadable", "json/beta")}
    ),
    "a document gives another size": Damage(
        lambda one: change_json(
            one.web / "json/beta", lambda doc: [file.update(size=1) for file in doc["releases"]["1.0"]]
        ),
        {("disagreement", "json/beta"), ("document", "json/beta")},
        bare={("disagreement", "json/beta")},
    ),
    "a document is another project's": Damage(
        lambda one: shutil.copyfile(one.web / "json/alpha", one.web / "json/beta"), {("document", "json/beta")}
    ),
    "a document is an old one": Damage(
        lambda one: change_json(
            one.web / "json/beta", lambda doc: (doc.update(last_serial=doc["last_serial"] - 1), doc["releases"].update({"1.0": []}))
        ),
        {("disagreement", "json/beta"), ("document", "json/beta")},
        bare={("disagreement", "json/beta")},
    ),
    "a document says something else of the project": Damage(
        lambda one: change_json(one.web / "json/beta", lambda doc: doc["info"].update(summary="something else")),
        {("document", "json/beta")}, ledger=True,
    ),
    "a link is gone": Damage(lambda one: (one.web / "pypi/beta/json").unlink(), {("link", "pypi/beta/json")}),
    "a link's directory is gone": Damage(lambda one: shutil.rmtree(one.web / "pypi/beta"), {("link", "pypi/beta/json")}),
    "a link leads elsewhere": Damage(
        lambda one: instead(one.web / "pypi/beta/json", lambda path: path.symlink_to("../../json/alpha")),
        {("link", "pypi/beta/json")},
    ),
    "a link is a file": Damage(
        lambda one: instead(one.web / "pypi/beta/json", lambda path: path.write_bytes(b"{}")),
        {("link", "pypi/beta/json")},
    ),
    "the root list lacks a project": Damage(
        lambda one: change_json(
            one.web / "simple" / JSON,
            lambda root: root.update(projects=[entry for entry in root["projects"] if entry["name"] != "beta"]),
        ),
        {("root", "simple/" + JSON)},
    ),
    "the root list gives another serial": Damage(
        lambda one: change_json(
            one.web / "simple" / JSON, lambda root: [entry.update({"_last-serial": 5}) for entry in root["projects"]]
        ),
        {("root", "simple/" + JSON)},
    ),
    "the root list is cut": Damage(lambda one: os.truncate(one.web / "simple" / JSON, 200), {("root", "simple/" + JSON)}),
    "the root list is gone": Damage(lambda one: (one.web / "simple" / JSON).unlink(), {("root", "simple/" + JSON)}),
    "the root page lacks a project": Damage(
        lambda one: replaced(one.web / "simple" / HTML, b'<a href="beta/">beta</a>\n', b""), {("root", "simple/" + HTML)}
    ),
    "the root page is cut": Damage(lambda one: os.truncate(one.web / "simple" / HTML, 150), {("root", "simple/" + HTML)}),
    "a script in the root page": Damage(
        lambda one: replaced(one.web / "simple" / HTML, b"<body>\n", b"<body>\n<script>steal()</script>\n"),
        {("root", "simple/" + HTML)},
        ledger=True,
    ),
    "a script among the entries of the root page": Damage(
        lambda one: replaced(one.web / "simple" / HTML, b">beta</a>", b">beta<script>steal()</script></a>"),
        {("root", "simple/" + HTML)},
    ),
    "a script behind the root page": Damage(
        lambda one: replaced(one.web / "simple" / HTML, b"</body>\n", b"</body>\n<script>steal()</script>\n"),
        {("root", "simple/" + HTML)},
    ),
    "the root page shows another name": Damage(
        lambda one: replaced(one.web / "simple" / HTML, b">beta</a>", b">better</a>"), {("root", "simple/" + HTML)}
    ),
    "last-modified is gone": Damage(
        lambda one: (one.web / "last-modified").unlink(), {("root", "last-modified")}, ledger=True
    ),
    "last-modified is no time": Damage(
        lambda one: (one.web / "last-modified").write_bytes(b"yesterday\n"), {("root", "last-modified")}, ledger=True
    ),
    "the names of the root page are two files": Damage(
        lambda one: instead(one.web / "simple" / HTML, lambda path: shutil.copyfile(path.with_name(V1_HTML), path)),
        {("root", "simple/" + V1_HTML)},
    ),
    "the ledger says another serial": Damage(forget_serial, {("ledger", PAGE + JSON)}, ledger=True),
}  # fmt: skip


def in_place(path: str, wheel: str) -> str:
    return path.replace("{wheel}", wheel).replace("{folder}", os.path.dirname(wheel))
