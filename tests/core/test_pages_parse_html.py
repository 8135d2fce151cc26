"""HTML pages of every server become the model; what is cut off, or no index page, is Invalid."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.errors import Invalid
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.pages.html_tokens import Comment, Tag, Truncated, tokens, unescape
from heliostat.pages.parse_html import parse_project
from support.pages_cases import LOOKALIKE_HTML, MD5, NOT_PAGES, SHA, SHA2, STORE, URL, anchor, html

NAME = ProjectName("example")


def parse(body: bytes) -> ProjectPage:
    return parse_project(body, url=URL, name=NAME)


def one(attributes: str = "", **more: str) -> DistFile:
    return parse(html(anchor(attributes=attributes, **more))).files[0]


def refused(body: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert caught.value.url == URL
    return caught.value.reason


def test_a_plain_page() -> None:
    found = parse(LOOKALIKE_HTML["plain"])
    assert found.serial == 7
    assert found.versions is None
    assert found.files == (
        DistFile(
            filename="example-1.0.tar.gz",
            url=f"{STORE}/example-1.0.tar.gz",
            hashes={"sha256": SHA},
            requires_python=">=3.8, <4",
        ),
    )


def test_yanked_is_the_presence_of_the_attribute() -> None:
    assert [file.yanked for file in parse(LOOKALIKE_HTML["yanked three ways"]).files] == [True, True, 'smelly & "bad"']
    assert one().yanked is False


def test_metadata_under_both_names() -> None:
    first, second, third = parse(LOOKALIKE_HTML["metadata, both names"]).files
    assert (first.core_metadata, first.gpg_sig) == (True, None)
    assert (second.core_metadata, second.gpg_sig) == ({"sha256": SHA2}, True)
    assert (third.core_metadata, third.gpg_sig) == (False, False)
    assert one("data-core-metadata").core_metadata is True
    assert one('data-core-metadata="yes"').core_metadata is True
    assert one().core_metadata is None


def test_status_and_its_reason() -> None:
    found = parse(LOOKALIKE_HTML["PEP 708 and status"])
    assert (found.status, found.status_reason) == ("deprecated", "Dev is tired")
    assert parse(html()).status == "active"


def test_links_relative_to_the_page_and_to_its_base() -> None:
    found = parse(LOOKALIKE_HTML["md5, relative, in several lines"])
    assert found.files[0].url == "https://index.example/packages/aa/bb/luigi-3.0.0+weasyl.2.tar.gz"
    assert found.files[0].filename == "luigi-3.0.0+weasyl.2.tar.gz"
    assert found.files[0].hashes == {"md5": MD5}
    assert parse(LOOKALIKE_HTML["base"]).files[0].url == "https://files.example/packages/aa/bb/example-1.0.zip"
    twice = html('<a href="x-1.zip">x</a>', head='<base href="../a/"><base href="https://other.example/">')
    assert parse(twice).files[0].url == "https://index.example/simple/a/x-1.zip"
    assert parse(html('<a href="x-1.zip">x</a>', head="<base>")).files[0].url == URL + "x-1.zip"


def test_size_and_time_of_those_who_give_them() -> None:
    first, second = parse(LOOKALIKE_HTML["provenance, size and time"]).files
    assert (first.size, first.provenance) == (12, "https://i.example/p?a=1&b=2")
    assert second.upload_time == "2020-01-02T03:04:05Z"
    assert one('data-size="-1"').size is None


def test_navigation_is_no_file_and_a_digest_makes_one() -> None:
    assert [file.filename for file in parse(LOOKALIKE_HTML["navigation beside files"]).files] == ["example-1.0.tar.gz"]
    digest = f"#sha256={SHA}"
    assert parse(html(f'<a href="/x/odd name.bin{digest}">x</a>')).files[0].filename == "odd name.bin"
    assert parse(html(f'<a href="http://localhost/{digest}">named.bin</a>')).files[0].filename == "named.bin"
    assert "no file name" in refused(html(f'<a href="http://localhost/{digest}"></a>'))
    assert "no link to a file" in refused(html('<a href="#top">x</a>', '<a href="/%ff.bin">x</a>'))
    assert "link 1" in refused(html(anchor(), f'<a href="/%ff.zip{digest}">x</a>'))


@pytest.mark.parametrize("case", LOOKALIKE_HTML)
def test_every_dialect_is_read(case: str) -> None:
    found = parse(LOOKALIKE_HTML[case])
    assert len(found.files) == LOOKALIKE_HTML[case].count(b"<a ") - (case == "navigation beside files")


@pytest.mark.parametrize("case", NOT_PAGES)
def test_what_is_no_index_page(case: str) -> None:
    assert "no link to a file" in refused(NOT_PAGES[case])


@pytest.mark.parametrize(
    "href",
    ["x-1.zip", '"x-1.zip"', "'x-1.zip'", ' = "x-1.zip"', '"  x-1.zip\n"', '"x-1&#46;zip"', '"&#x78;-1.zip"'],
)
def test_attributes_of_every_form(href: str) -> None:
    sign = "" if href.startswith(" =") else "="
    text = f"<A ID=1 Href{sign}{href} HREF='other.zip'>x</A>"
    assert [file.url for file in parse(html(text)).files] == [URL + "x-1.zip"]


def test_only_whole_references_are_resolved() -> None:
    assert unescape("?a=1&copy=2&amp;b&#38;&#x26;&unknown;") == "?a=1&copy=2&b&&&unknown;"
    assert unescape("&#0;&#xd800;&#9999999;&#99999999;") == "\ufffd\ufffd\ufffd&#99999999;"
    assert unescape("&#" + "9" * 10_000 + ";").startswith("&#999")


def test_comments_and_raw_text_hold_no_links() -> None:
    hidden = anchor("hidden-1.zip")
    body = html(
        f"<!-- {hidden} -->", f"<script>{hidden}</script>", f"<STYLE>{hidden}</Style >", anchor(), "<!-->", "<!--->"
    )
    assert [file.filename for file in parse(body).files] == ["example-1.0.tar.gz"]


@pytest.mark.parametrize(
    ("tail", "serial"),
    [
        ("<!--SERIAL 12-->", 12),
        ("<!-- SERIAL 12 -->", 12),
        ("<!--SERIAL x-->", None),
        ("<!--SERIAL -1-->", None),
        ("<!--SERIAL " + "9" * 19 + "-->", None),
        ("", None),
    ],
)
def test_serial(tail: str, serial: Any) -> None:
    assert parse(html(anchor(), tail=tail)).serial == serial


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (html(anchor(), head='<meta name="pypi:repository-version" content="2.0">'), "api-version"),
        (html(anchor(), head='<meta name="pypi:project-status" content="<b>">'), "project-status"),
        (html(anchor(), anchor()), "is files[0] already"),
        (html(anchor(fragment="#sha256=12")), "link 0"),
        (html(anchor(attributes='data-core-metadata="sha256=12"')), "data-core-metadata"),
        (html(anchor(attributes='data-upload-time="now"')), "data-upload-time"),
        (html(anchor(), head='<base href="http://[">'), "base"),
        (html('<a href="http://[/x.zip">x</a>'), "link 0"),
        (html(anchor()) + b"\xff", "not UTF-8"),
        (html(anchor()) + b"<", "inside a tag"),
        (html(anchor()) + b"<a", "inside a tag"),
        (html(anchor()) + b'<a href="x', "inside an attribute"),
        (html(anchor()) + b"<a href=x", "inside a tag"),
        (html(anchor()) + b"<a href=", "inside a tag"),
        (html(anchor()) + b"<!-- x", "inside a comment"),
        (html(anchor()) + b"</a", "inside a tag"),
        (html(anchor()) + b"<!DOCTYPE", "inside a tag"),
        (html(anchor()) + b"<script>x</scrip>", "inside <script>"),
    ],
)
def test_what_is_refused(body: bytes, reason: str) -> None:
    assert reason in refused(body)


@pytest.mark.parametrize("at", range(1, 40))
def test_a_page_cut_off_inside_its_last_link_is_refused(at: int) -> None:
    body = html(anchor("a-1.zip"), tail="")
    last = anchor("b-1.zip")
    assert refused(body + last[:at].encode())


HOSTILE = [
    "<",
    "<a",
    "<a ",
    "<a href=",
    '<a href="',
    "<a href='x' ",
    "<!--",
    "<!",
    "</",
    "<title>",
    "<a =",
    "&#",
    "&amp",
    "<<a/",
    "a=",
]


class Measured(str):  # noqa: SLOT000 - it counts
    """Text that counts the characters that searches in it pass over."""

    passed = 0

    def find(self, what: str, start: Any = 0, end: Any = None, /) -> int:
        found = str.find(self, what, start, end)
        self.passed += (len(self) if found < 0 else found) - start
        return found


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_repetition_is_searched_only_once(piece: str) -> None:
    """What quadratic parsers do: search the rest of the text again and again for an end that is not there."""
    text = Measured(piece * 5000)
    try:
        for _ in tokens(text):
            pass
    except Truncated:
        pass
    assert text.passed <= 4 * len(text)


@given(st.text(st.sampled_from("<>!-/a='\" \nbhref&#;titlescript\u00e9"), max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_text_is_tokens_or_truncated(text: str) -> None:
    try:
        for token in tokens(text):
            assert isinstance(token, Tag | Comment)
    except Truncated:
        pass
