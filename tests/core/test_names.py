"""Upstream's names become paths below their folder, or are refused."""

import posixpath
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heliostat import names
from heliostat.errors import Refused
from heliostat.model import ProjectName

SHA = "ab" * 32
#: Text that likes to hit what paths and names are made of.
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text(st.sampled_from("aZ0._-/\\~% \n\x00\u202e\ud800\u00e9:?#;&'\""), max_size=12),
    st.sampled_from(["..", ".", "", "../..", "/etc/passwd", "a/../..", "%2e%2e", "C:\\x", "index.html", "a" * 256]),
)


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Foo", "foo"),
        ("foo.bar_baz--qux", "foo-bar-baz-qux"),
        ("0-._.-._.-._.-._.-._.-._.-0", "0-0"),
        ("A", "a"),
        ("con", "con"),
        ("a" * 255, "a" * 255),
        ("a" + "-" * 500 + "b", "a-b"),
    ],
)
def test_normal_names(name: str, normal: str) -> None:
    assert names.normalise(name) == normal


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", ".", "..", "a/b", "a\\b", "a b", "a\n", "\na", "f\u00f6\u00f6", "a\x00", "_", "\u0661", "a" * 256],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(Refused):
        names.normalise(name)


@given(TEXT)
@settings(deadline=None)
def test_normalising_is_idempotent(text: str) -> None:
    try:
        normal = names.normalise(text)
    except Refused:
        return
    assert names.normalise(normal) == normal
    assert names.page_directory(normal) == f"web/simple/{normal}"


@pytest.mark.parametrize("name", ["..", "a/b", "A", "", "a--b", "-", "a" * 256, "a\n"])
@pytest.mark.parametrize(
    "path", [names.page_directory, names.document_path, names.document_link, names.document_link_target]
)
def test_no_path_for_a_name_that_is_not_normal(path: Any, name: str) -> None:
    with pytest.raises(Refused):
        path(ProjectName(name))


def stays_below(path: str, folder: str) -> bool:
    return (
        path.startswith(folder + "/")
        and posixpath.normpath(path) == path
        and ".." not in path.split("/")
        and "\x00" not in path
        and all(0 < len(part.encode()) <= 255 for part in path.split("/"))
    )


@given(digits=st.one_of(st.just(SHA), TEXT), filename=TEXT, version=TEXT)
@example(digits=SHA, filename="..", version="..")
@example(digits=SHA, filename="a" * 246, version="1")
@settings(deadline=None, max_examples=300)
def test_any_text_is_refused_or_stays_below_its_folder(digits: str, filename: str, version: str) -> None:
    made: dict[str, Callable[[], str]] = {
        "web/packages": lambda: names.package_path(digits, filename),
        "web/integrity/example": lambda: names.provenance_path(ProjectName("example"), version, filename),
        "partial": lambda: names.partial_path(filename, digits),
        "withheld": lambda: names.withheld_path("web/" + filename),
    }
    for folder, make in made.items():
        try:
            path = make()
        except Refused:
            continue
        assert stays_below(path, folder)
        if folder == "web/packages":
            assert stays_below(names.sidecar_path(path), folder)
            assert stays_below(names.withheld_path(names.sidecar_path(path)), "withheld/packages")


@pytest.mark.parametrize(
    "filename",
    [
        "pyfurby-0.1 (1).tar.gz",
        "scikit-highs-('0.6.0',).tar.gz",
        "100%-a#b?c&d;.tar.gz",
        "javascript:x.whl",
        "f\u00f6\u00f6-1.0.whl",
        "x-1!3.1.0-py3-none-any.whl",
        "trailing.",
        " spaces ",
        "a...",
        "hidden-.1.0.tar.gz",
        "-rf.whl",
        "%2e%2e",
        "CON.whl",
        "\u96ea" * 82,
    ],
)
def test_odd_but_good_file_names(filename: str) -> None:
    assert names.safe_filename(filename) == filename
    url = "https://files.example/packages/" + names.quote_filename(filename)
    assert names.url_filename(url) == filename
    assert not urlsplit(url).query
    assert not urlsplit(url).fragment


@pytest.mark.parametrize(
    "filename",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\x85b",
        "a\u202egnp.exe",
        "a\u061cb",
        "\ufeffa",
        "a\ud800",
        "x.whl.metadata",
        "index.html",
        "Index.HTML",
        "index.v1_json",
        "...",
        ".htaccess",
        ".hidden-1.0.tar.gz",
        "a" * 247,
        "\u96ea" * 83,
    ],
)
def test_file_names_that_are_refused(filename: str) -> None:
    with pytest.raises(Refused):
        names.safe_filename(filename)


def test_a_refusal_is_one_printable_line() -> None:
    with pytest.raises(Refused) as caught:
        names.safe_filename("evil\n\x1b[2J\u202e/" + "x" * 10_000)
    message = str(caught.value)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 300


def test_a_lone_surrogate_cannot_be_quoted() -> None:
    with pytest.raises(Refused):
        names.quote_filename("a\ud800")


@pytest.mark.parametrize(
    ("url", "digits"),
    [
        (f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x.whl", SHA),
        (f"https://h.example/prefix/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/x%2Fy.whl?token=1#sha256=1", SHA),
        (f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/", None),
        (f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:]}/a/b", None),
        (f"https://files.example/packages/{SHA[:2]}/{SHA[2:4]}/{SHA[4:-1]}/x.whl", None),
        (f"https://files.example/packages/{SHA[:2].upper()}/{SHA[2:4]}/{SHA[4:]}/x.whl", None),
        ("https://files.example/packages/py3/e/example/x.whl", None),
        ("http://[broken/packages/", None),
    ],
)
def test_content_digits(url: str, digits: str | None) -> None:
    assert names.content_digits(url) == digits


@pytest.mark.parametrize(
    ("url", "filename"),
    [
        ("https://h.example/a/pyfurby-0.1%20(1).tar.gz#sha256=0", "pyfurby-0.1 (1).tar.gz"),
        ("https://h.example/a/x%2B1.whl?token=a/b", "x+1.whl"),
        ("https://h.example/a/..%2fx", "../x"),
        ("https://h.example/", ""),
    ],
)
def test_url_filename(url: str, filename: str) -> None:
    assert names.url_filename(url) == filename


@pytest.mark.parametrize("url", ["https://h.example/%ff.whl", "http://[broken/x.whl"])
def test_url_filename_refuses(url: str) -> None:
    with pytest.raises(Refused):
        names.url_filename(url)


@given(TEXT)
@settings(deadline=None)
def test_quoting_a_file_name_comes_back(filename: str) -> None:
    try:
        names.safe_filename(filename)
    except Refused:
        return
    quoted = names.quote_filename(filename)
    assert quoted.isascii()
    assert unquote(quoted) == filename
    assert not set(quoted) & set('/?#"<>\\ ')


@pytest.mark.parametrize("path", ["packages/x", "web", "web/", "web//x", "web/../x", "/web/x", "web/a/..", "webs/x"])
def test_only_paths_of_the_tree_are_withheld(path: Any) -> None:
    with pytest.raises(Refused):
        names.withheld_path(path)


@given(st.lists(st.from_regex(r"[A-Za-z0-9._\n-]{0,12}", fullmatch=True) | st.text(max_size=6), max_size=8))
def test_many_names_at_once_are_what_each_is(texts: list[str]) -> None:
    try:
        each = [names.normalise(text) for text in texts] or None
    except Refused:
        each = None
    assert names.normalise_all(texts) == each


def test_a_long_name_among_many_is_left_to_the_one_by_one_form() -> None:
    assert names.normalise_all(["a", "b" * 255]) == ["a", "b" * 255]
    assert names.normalise_all(["a", "b" * 256]) is None
    assert names.normalise_all(["a", "b" + "-" * 254 + "c"]) is None
    assert names.normalise("b" + "-" * 254 + "c") == "b-c"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///packages/source/f/foo/foo-1.0.tar.gz", "web/packages/source/f/foo/foo-1.0.tar.gz"),
        (
            "https://old.example/base/packages/2.7/p/packages/packages-1.zip",
            "web/packages/2.7/p/packages/packages-1.zip",
        ),
        ("file:///packages/py3/s/sp%20ace/a%20b.whl#md5=00", "web/packages/py3/s/sp ace/a b.whl"),
        (
            f"https://files.example/packages/packages/ab/cd/{'e' * 60}/x.whl",
            f"web/packages/ab/cd/{'e' * 60}/x.whl",
        ),
        ("https://files.example/elsewhere/x.whl", None),
    ],
)
def test_where_another_mirror_keeps_a_file(url: str, path: str | None) -> None:
    assert names.old_package_path(url) == path


@pytest.mark.parametrize(
    "url",
    [
        "file:///packages/../../etc/passwd",
        "file:///packages/a/..%2f..%2fx/y.whl",
        "file:///packages/a//y.whl",
        "file:///packages/a/.y.whl",
        "file:///packages/%ff/y.whl",
        "file:///packages/1/2/3/4/5/6/7/8/y.whl",
        "file:///packages/a/y%00.whl",
    ],
)
def test_links_that_lead_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        names.old_package_path(url)
