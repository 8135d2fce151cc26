"""Recorded pages (and look-alikes): what installers see on ours is what they see on upstream's.

What they see is read here by two small readers of the raw formats that share nothing with the parsers.
"""

import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
import pytest

from heliostat.errors import Invalid
from heliostat.model import ProjectName, ProjectPage
from heliostat.names import package_path
from heliostat.pages.links import file_link
from heliostat.pages.parse_html import parse_project as parse_html
from heliostat.pages.parse_json import parse_project as parse_json
from heliostat.pages.render import project_html, project_json
from support.pages_cases import LOOKALIKE_HTML, LOOKALIKE_JSON, NOT_PAGES, SHA, URL, case_id, recorded

#: Recorded files that are not acceptable pages of a project, and the reason that we must give.
REFUSED = {
    "pypi_simple_response_devpi.html": "no link to a file",
    "pytest-with-extra-packages.html": "is files[2] already",
    "session01/simple.html": "no link to a file",
    "simple01.html": "no link to a file",
    "simple_base.html": "no link to a file",
    "simple_devpi.html": "no link to a file",
    "simple_repo_version.html": "no link to a file",
    "frozen-root.html": "no link to a file",
}

JSON_PAGES = LOOKALIKE_JSON | {case_id(path): path.read_bytes() for path in recorded("simple-json", ".json")}
HTML_PAGES = (
    LOOKALIKE_HTML
    | {f"no page: {case}": body for case, body in NOT_PAGES.items()}
    | {case_id(path): path.read_bytes() for path in recorded("simple-html", ".html")}
)


def first_hash(hashes: dict[str, str]) -> dict[str, str]:
    """What an installer checks: the sha256 if there is one."""
    return {"sha256": hashes["sha256"]} if "sha256" in hashes else hashes


def seen_in_json(body: bytes) -> list[dict[str, Any]]:
    """A file as pip and uv take it from JSON."""
    raw = json.loads(body)
    if (raw.get("project-status") or {}).get("status") == "quarantined":
        return []
    return [
        {
            "filename": file["filename"],
            "url": urljoin(URL, file["url"]),
            "hash": first_hash(file.get("hashes") or {}),
            "requires-python": file.get("requires-python") or None,
            "yanked": file.get("yanked") or False,
            "metadata": first_hash(metadata) if isinstance(metadata := _metadata(file), dict) else bool(metadata),
            "size": file.get("size"),
            "upload-time": file.get("upload-time") or None,
        }
        for file in raw["files"]
    ]


def _metadata(file: dict[str, Any]) -> Any:
    keys = ("core-metadata", "data-dist-info-metadata", "dist-info-metadata")
    return next((file[key] for key in keys if file.get(key) is not None), None)


class Seen(HTMLParser):
    """A file as pip takes it from HTML, through the standard library's parser as pip does."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.base = URL
        self.links: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.feed(body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "base":
            self.base = urljoin(URL, dict(attrs)["href"] or "")
        if tag == "a" and dict(attrs).get("href"):
            self.links.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def files(self) -> list[dict[str, Any]]:
        found = []
        for link in self.links:
            url, _, fragment = urljoin(self.base, link["href"]).partition("#")
            metadata = link.get("data-core-metadata", link.get("data-dist-info-metadata"))
            found.append(
                {
                    "filename": unquote(urlsplit(url).path.rpartition("/")[2]),
                    "url": url,
                    "hash": dict([fragment.split("=")]) if fragment else {},
                    "requires-python": link.get("data-requires-python"),
                    # A bare attribute means yanked (PEP 592), though not to pip.
                    "yanked": (link["data-yanked"] or True) if "data-yanked" in link else False,
                    "metadata": dict([metadata.split("=")]) if metadata and "=" in metadata else metadata == "true",
                }
            )
        return found


def name_of(body: bytes) -> ProjectName:
    return ProjectName(json.loads(body)["name"])


@pytest.mark.parametrize("case", JSON_PAGES)
def test_installers_see_the_same_in_json(case: str) -> None:
    body = JSON_PAGES[case]
    page = parse_json(body, url=URL, name=name_of(body))
    assert seen_in_json(project_json(page)) == seen_in_json(body)


@pytest.mark.parametrize("case", JSON_PAGES)
def test_installers_see_the_same_in_html_made_of_json(case: str) -> None:
    body = JSON_PAGES[case]
    page = parse_json(body, url=URL, name=name_of(body))
    expected = seen_in_json(body)
    for file in expected:
        del file["size"], file["upload-time"]
        file["url"] = file["url"].partition("#")[0]
    found = Seen(project_html(page)).files()
    for file, upstream in zip(found, expected, strict=True):
        if set(upstream["hash"]) <= {"sha256", "md5"}:
            assert file == upstream


@pytest.mark.parametrize("case", JSON_PAGES)
def test_with_our_links_everything_else_stays(case: str) -> None:
    """The same page with its files in our store: each link leads to the file's path, nothing else changes."""
    body = JSON_PAGES[case]
    page = parse_json(body, url=URL, name=name_of(body))
    packages = [package_path(f"{index:064x}", file.filename) for index, file in enumerate(page.files)]
    files = [
        msgspec.structs.replace(file, url=file_link(package))
        for file, package in zip(page.files, packages, strict=True)
    ]
    ours = msgspec.structs.replace(page, files=tuple(files))
    offered = [] if page.quarantined else packages
    for seen in (seen_in_json(project_json(ours)), Seen(project_html(ours)).files()):
        paths = [unquote(urlsplit(file["url"]).path).removeprefix("/") for file in seen]
        assert paths == [package.removeprefix("web/") for package in offered]
    changed = [{**file, "url": ""} for file in seen_in_json(project_json(ours))]
    assert changed == [{**file, "url": ""} for file in seen_in_json(body)]


@pytest.mark.parametrize("case", JSON_PAGES)
def test_reading_our_json_gives_the_same_page(case: str) -> None:
    body = JSON_PAGES[case]
    page = parse_json(body, url=URL, name=name_of(body))
    again = parse_json(project_json(page), url=URL, name=page.name)
    assert again == as_rendered(page)
    assert project_json(again) == project_json(page)


def as_rendered(page: ProjectPage) -> ProjectPage:
    """What is left of a page: one hash a file, and no files in quarantine."""
    files = [
        msgspec.structs.replace(
            file,
            hashes=first_hash(file.hashes),
            core_metadata=first_hash(file.core_metadata)
            if isinstance(file.core_metadata, dict)
            else file.core_metadata,
        )
        for file in page.files
    ]
    return msgspec.structs.replace(page, files=() if page.quarantined else tuple(files))


@pytest.mark.parametrize("case", HTML_PAGES)
def test_installers_see_the_same_in_html(case: str) -> None:
    body = HTML_PAGES[case]
    reason = next((reason for end, reason in REFUSED.items() if case.endswith(end)), None)
    if case.startswith("no page: "):
        reason = "no link to a file"
    if reason:
        with pytest.raises(Invalid) as caught:
            parse_html(body, url=URL, name=ProjectName("example"))
        assert reason in caught.value.reason
        return
    page = parse_html(body, url=URL, name=ProjectName("example"))
    ours = Seen(project_html(page))
    expected = [
        file
        for file in Seen(body).files()
        if file["filename"] in {found.filename for found in page.files} or file["hash"]
    ]
    if "frozen" in case:  # its link has no file name, only its text has
        expected[0]["filename"] = ""
    assert ours.files() == expected
    assert len(page.files) == len(expected)
    assert parse_html(project_html(page), url=URL, name=page.name) == msgspec.structs.replace(
        page,
        files=tuple(
            msgspec.structs.replace(file, size=None, upload_time=None, core_metadata=file.core_metadata or None)
            for file in page.files
        ),
    )
    assert "Links for example" in " ".join(ours.texts)


def test_there_are_cases_either_way() -> None:
    assert len(LOOKALIKE_JSON) > 10
    assert len(LOOKALIKE_HTML) > 10
    assert len(SHA) == 64
