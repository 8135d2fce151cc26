"""Request targets to files and redirects, as a pure function: hostile ones cannot leave the root or write headers."""

import os.path
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import Refused
from heliostat.names import normalise
from heliostat.service.routes import Found, Redirect, clean_path, route

targets = st.lists(
    st.one_of(
        st.text(),
        st.text().map(quote),
        st.sampled_from(["..", ".", "%2e%2e", "%2f", "/", "//", "%00", "%5c", "\\", "simple/", "pypi/", "json"]),
    ),
    max_size=8,
).map(lambda pieces: "/" + "".join(pieces))


@given(target=targets)
def test_a_clean_path_stays_below_the_root(target: str) -> None:
    path = clean_path(target)
    if path is not None:
        assert path.startswith("/")
        assert path.rstrip("/") == ("" if path == "/" else os.path.normpath(path))
        assert "\0" not in path
        assert not {"", ".", ".."} & set(path.strip("/").split("/")) or path == "/"


@given(path=st.text(min_size=1).map(lambda text: "/" + text.strip("/")))
def test_a_path_without_dots_is_what_was_quoted(path: str) -> None:
    if "\0" not in path and not {"", ".", ".."} & set(path[1:].split("/")):
        assert clean_path(quote(path)) == path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("//a//b", "/a/b"),
        ("/a/./b/../c/", "/a/c/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a%2f..%2fb", "/b"),
        ("/%252e", "/%2e"),
        ("/+%2B", "/++"),
        ("/%ff", "/\udcff"),
        ("/..", None),
        ("/a/../../b", None),
        ("/%00", None),
        ("/%4", None),
        ("a", None),
        ("", None),
    ],
)
def test_clean_path(raw: str, path: str | None) -> None:
    assert clean_path(raw) == path


@given(target=targets, query=st.text(string.ascii_letters + string.digits + "=&%+"))
def test_whatever_is_asked_a_redirect_is_one_plain_line_and_the_last(target: str, query: str) -> None:
    path = clean_path(target)
    answer = None if path is None else route(path, query=query)
    if isinstance(answer, Redirect):
        assert answer.location.isascii()
        assert answer.location.isprintable()
        after = route(answer.location.partition("?")[0])
        assert isinstance(after, Found)


@given(
    name=st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=20),
    slash=st.sampled_from(["", "/"]),
)
def test_every_spelling_of_a_name_leads_to_its_normal_form(name: str, slash: str) -> None:
    path = clean_path(f"/simple/{name}{slash}")
    if path is None or path == "/" or name in (".", ".."):
        return
    answer = route(path)
    try:
        normal = f"/simple/{normalise(name)}/"
    except Refused:
        assert answer is None
    else:
        if path == normal:
            assert isinstance(answer, Found)
        else:
            assert answer == Redirect(normal)
