"""Links between a project's page and its files: every resolver ends at the file's own path."""

from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heliostat.errors import Refused
from heliostat.model import ProjectName
from heliostat.names import package_path
from heliostat.pages import links

SHA = "ab" * 32
BASES = ["https://mirror.example/simple/example/", "http://127.0.0.1:8080/a/b%20c/simple/example/"]
ODD = [
    "a+b.whl",
    "100%.whl",
    "%2e%2e",
    "%25.whl",
    "a#b.whl",
    "a&b&amp;c.whl",
    "a?b.whl",
    "a;b.whl",
    "ends;",
    ";",
    "a'b\"c.whl",
    "a (1).tar.gz",
    "f\u00f6\u00f6-\u96ea.whl",
    "javascript:x.whl",
    "http:x.whl",
    "//".replace("/", ":"),
    "a@b.whl",
    "trailing.",
    "a...",
    "~x|y^z`.whl",
    "<script>.whl",
    "a=b,c$d!.whl",
    "[x]{y}.whl",
]


def resolved(base: str, link: str) -> str:
    """The path below the web root where a client that joins, cuts query and fragment, and unquotes, ends up."""
    parts = urlsplit(urljoin(base, link))
    assert not parts.query
    assert not parts.fragment
    root = unquote(urlsplit(base).path.removesuffix("simple/example/"))
    path = unquote(parts.path, errors="strict")
    assert path.startswith(root)
    return "web/" + path.removeprefix(root)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("filename", ODD)
def test_odd_names_survive(base: str, filename: str) -> None:
    package = package_path(SHA, filename)
    link = links.file_link(package)
    assert link.startswith("../../packages/")
    assert resolved(base, link) == package
    assert links.package_of(link) == package


@given(st.text(min_size=1, max_size=80))
@example(";")
@settings(deadline=None, max_examples=300)
def test_any_name_survives(filename: str) -> None:
    try:
        package = package_path(SHA, filename)
    except Refused:
        return
    link = links.file_link(package)
    assert link.isascii()
    assert resolved(BASES[0], link) == package
    assert links.package_of(link) == package
    absolute = urljoin(links.local_page_url(ProjectName("example")), link)
    assert links.package_of(absolute) == package
    assert links.package_of(absolute + f"#sha256={SHA}") == package


@pytest.mark.parametrize(
    "link",
    [
        "",
        "x.whl",
        "../../packages/",
        "../../packages/aa/bb/cc/x.whl",
        f"../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.whl",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/..",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/%2e%2e",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/..%2f..%2fx",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/a/b",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x%00",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/%ff",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x?y",
        f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.metadata",
        f"../../packages/{SHA[:2].upper()}/{SHA[2:4]}/{SHA[4:]}/x.whl",
        f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.whl",
        f"file:///x/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.whl",
        f"x../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.whl",
    ],
)
def test_other_links_lead_nowhere(link: str) -> None:
    assert links.package_of(link) is None


@given(st.text())
@settings(deadline=None)
def test_any_link_leads_below_packages_or_nowhere(text: str) -> None:
    for link in (text, "../../packages/" + text, f"../../packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/{text}"):
        package = links.package_of(link)
        assert package is None or (package.startswith("web/packages/") and package.count("/") == 5)


def test_only_packages_are_linked_to() -> None:
    with pytest.raises(Refused):
        links.file_link("web/simple/example/index.html")
