"""What is rendered is what is read, in both formats, for everything that a format can carry."""

import contextlib
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.errors import Invalid, Refused
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.names import package_path, safe_filename
from heliostat.pages.document import parse_document
from heliostat.pages.links import file_link, local_page_url, package_of
from heliostat.pages.parse_html import parse_project as parse_html
from heliostat.pages.parse_json import parse_project as parse_json
from heliostat.pages.render import project_html, project_json
from support.pages_cases import LOOKALIKE_HTML, LOOKALIKE_JSON, URL

NAME = ProjectName("example")
BASE = local_page_url(NAME)


def usable(filename: str) -> bool:
    try:
        return bool(safe_filename(filename))
    except Refused:
        return False


TEXT = st.text(min_size=1, max_size=20) | st.sampled_from(
    ['"><script>', "&amp;", "&#34;", "it's", "]]>", "-->", "\r\n", "\x00"]
)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
FILENAMES = (
    st.text(min_size=1, max_size=30) | st.sampled_from(["a&b;.whl", "a#b?c%d+e.zip", ";", "javascript:x.whl"])
).filter(usable)
TIMES = st.datetimes().map(lambda moment: moment.isoformat() + "Z")


def absolute(package: str) -> str:
    return "file:///" + file_link(package).removeprefix("../../")


@st.composite
def dist_files(draw: st.DrawFn, *, html: bool) -> DistFile:
    filename, digits = draw(FILENAMES), draw(HEX)
    metadata = st.none() | st.sampled_from([True]) | st.builds(lambda sha: {"sha256": sha}, HEX)
    return DistFile(
        filename=filename,
        url=absolute(package_path(digits, filename)),
        hashes={"sha256": digits},
        size=None if html else draw(st.none() | st.integers(0, 2**50)),
        upload_time=None if html else draw(st.none() | TIMES),
        requires_python=draw(st.none() | TEXT),
        yanked=draw(st.booleans() | TEXT),
        core_metadata=draw(metadata if html else metadata | st.booleans()),
        provenance=draw(st.none() | TEXT),
        gpg_sig=draw(st.none() | st.booleans()),
    )


@st.composite
def project_pages(draw: st.DrawFn, *, html: bool) -> ProjectPage:
    status = draw(st.sampled_from(["active", "archived", "quarantined", "deprecated", "later-one"]))
    files = (
        ()
        if status == "quarantined"
        else draw(st.lists(dist_files(html=html), max_size=4, unique_by=lambda file: file.filename))
    )
    return ProjectPage(
        name=NAME,
        files=tuple(files),
        versions=None if html else draw(st.none() | st.lists(st.text(max_size=5), unique=True, max_size=4).map(tuple)),
        status=status,
        status_reason=draw(st.none() | TEXT),
        serial=draw(st.none() | st.integers(0, 10**18 - 1)),
    )


def relative(page: ProjectPage) -> ProjectPage:
    files = tuple(
        msgspec.structs.replace(file, url="../../" + file.url.removeprefix("file:///")) for file in page.files
    )
    return msgspec.structs.replace(page, files=files)


@given(project_pages(html=False))
@settings(deadline=None, max_examples=200)
def test_json_comes_back(page: ProjectPage) -> None:
    body = project_json(relative(page))
    found = parse_json(body, url=BASE, name=NAME)
    assert found == page
    assert project_json(relative(found)) == body
    for file in found.files:
        assert package_of(file.url) == package_path(file.hashes["sha256"], file.filename)


@given(project_pages(html=True))
@settings(deadline=None, max_examples=200)
def test_html_comes_back(page: ProjectPage) -> None:
    body = project_html(relative(page))
    found = parse_html(body, url=BASE, name=NAME)
    assert found == page
    assert project_html(relative(found)) == body


@given(project_pages(html=False))
@settings(deadline=None, max_examples=100)
def test_both_formats_say_the_same(page: ProjectPage) -> None:
    """HTML less what it cannot say: sizes, times, versions, and that there is no sidecar."""
    from_json = parse_json(project_json(relative(page)), url=BASE, name=NAME)
    from_html = parse_html(project_html(relative(page)), url=BASE, name=NAME)
    bare = [
        msgspec.structs.replace(file, size=None, upload_time=None, core_metadata=file.core_metadata or None)
        for file in from_json.files
    ]
    assert from_html == msgspec.structs.replace(from_json, files=tuple(bare), versions=None)


@given(project_pages(html=False))
@settings(deadline=None, max_examples=100)
def test_the_keys_that_break_installers_never_appear(page: ProjectPage) -> None:
    raw = json.loads(project_json(page))
    for file in raw["files"]:
        assert file.keys() >= {"filename", "url", "hashes", "yanked"}
        assert "dist-info-metadata" not in file
        assert None not in (file.get("size", 0), file.get("upload-time", ""), file["yanked"])
        assert file["yanked"] != ""
        assert file.get("upload-time") != ""
        assert list(file["hashes"]) in ([], ["sha256"])


KEYS = [
    "name",
    "files",
    "meta",
    "url",
    "filename",
    "hashes",
    "sha256",
    "_last-serial",
    "size",
    "yanked",
    "releases",
    "urls",
    "digests",
    "info",
    "core-metadata",
    "api-version",
    "project-status",
    "upload-time",
    "versions",
]
SCRAPS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["example", "1.0", "a" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


def read_everything(body: bytes) -> None:
    for read in (
        lambda: parse_json(body, url=URL, name=NAME),
        lambda: parse_html(body, url=URL, name=NAME),
        lambda: parse_document(body, url=URL),
    ):
        with contextlib.suppress(Invalid):
            read()


@given(SCRAPS)
@settings(deadline=None, max_examples=300)
def test_any_json_is_read_or_invalid(value: Any) -> None:
    read_everything(json.dumps(value).encode())
    read_everything(json.dumps({"name": "example", "files": [value], "releases": {"1": [value]}}).encode())
    if isinstance(value, dict):
        file = {"filename": "f", "url": "u", **value}
        read_everything(json.dumps({"files": [file], **value, "name": "example", "releases": {"1": [file]}}).encode())


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_or_invalid(body: bytes) -> None:
    read_everything(body)


@given(st.sampled_from([*LOOKALIKE_JSON.values(), *LOOKALIKE_HTML.values()]), st.data())
@settings(deadline=None, max_examples=300)
def test_any_damage_is_read_or_invalid(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        damaged[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    read_everything(bytes(damaged))
