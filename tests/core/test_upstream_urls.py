"""Which URLs are requested, where credentials go, and what is shown of a URL."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import Invalid, Refused
from heliostat.upstream.urls import UrlPolicy, redacted, source

SECRET = "hunter2"
POLICY = UrlPolicy(
    [source(f"https://me:{SECRET}@index.example/root"), source("https://second.example:8443")],
    ["files.example", "cdn.example:9000", "[2001:db8::1]:444"],
    allow_http=False,
)
OPEN = UrlPolicy([source("http://127.0.0.1:8080")], ["files.example"], allow_http=True)


@pytest.mark.parametrize(
    ("given_url", "asked"),
    [
        ("https://files.example/packages/aa/x.whl", "https://files.example/packages/aa/x.whl"),
        ("https://FILES.example:443/x", "https://files.example/x"),
        ("https://files.example", "https://files.example/"),
        ("https://files.example/x.whl#sha256=00", "https://files.example/x.whl"),
        ("https://files.example/x?y=z", "https://files.example/x?y=z"),
        ("https://cdn.example:9000/x", "https://cdn.example:9000/x"),
        ("https://second.example:8443/x", "https://second.example:8443/x"),
        ("https://index.example/elsewhere", "https://index.example/elsewhere"),
        ("https://[2001:db8::1]:444/x", "https://[2001:db8::1]:444/x"),
        ("https://files.example/a b (1).tar.gz", "https://files.example/a%20b%20(1).tar.gz"),
        ("https://files.example/f\u00f6\u00f6-1.0.whl", "https://files.example/f%C3%B6%C3%B6-1.0.whl"),
        ("https://files.example/a%20b", "https://files.example/a%20b"),
        ("https://files.example/x-1%213.1.0+cu118.whl", "https://files.example/x-1%213.1.0+cu118.whl"),
        ("https://files.example/100%25-1.0", "https://files.example/100%25-1.0"),
        ("https://files.example/...x", "https://files.example/...x"),
        ("https://files.example/('0.6.0',)~x", "https://files.example/('0.6.0',)~x"),
    ],
)
def test_what_may_be_requested_and_how(given_url: str, asked: str) -> None:
    assert POLICY.check(given_url) == asked
    assert POLICY.check(asked) == asked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://other.example/x", "host"),
        ("https://files.example.other.example/x", "host"),
        ("https://files.example:444/x", "host"),
        ("https://cdn.example/x", "host"),
        ("https://index.example:80/x", "host"),
        ("http://files.example/x", "allow-http"),
        ("ftp://files.example/x", "absolute"),
        ("file:///etc/passwd", "absolute"),
        ("//files.example/x", "absolute"),
        ("/packages/x", "absolute"),
        ("packages/x", "absolute"),
        ("", "absolute"),
        ("https:///x", "absolute"),
        ("https://me:pw@files.example/x", "absolute"),
        ("https://files.example@other.example/x", "absolute"),
        ("https://other.example\\@files.example/x", "backslash"),
        ("https://files.example\\.other.example/x", "backslash"),
        ("https://f\u0130les.example/x", "absolute"),
        ("https://%66iles.example/x", "absolute"),
        ("https://files.example:0/x", "port"),
        ("https://files.example:70000/x", "port"),
        ("https://files.example:+443/x", "absolute"),
        ("https://files.example/../x", "dot"),
        ("https://files.example/a/..", "dot"),
        ("https://files.example/a/./b", "dot"),
        ("https://files.example/a/%2e%2E/b", "dot"),
        ("https://files.example/a/.%2e/b", "dot"),
        ("https://files.example/a%2f..%2fb", "dot"),
        ("https://files.example/a/..;x/b", "dot"),
        ("https://files.example/a%00b", "dot"),
        ("https://files.example/a%0d%0aX-Header:1", "dot"),
        ("https://files.example/a%5cb", "dot"),
        ("https://files.example/100%-1.0", "dot"),
        ("https://files.example/a\\b", "backslash"),
        ("https://files.example/a\x00b", "control"),
        ("https://files.example/a\r\nHost: other.example", "control"),
        ("\thttps://files.example/a", "control"),
        (" https://files.example/a", "absolute"),
        ("https://files.example/\ud800", "UTF-8"),
        ("https://files.example/" + "a" * 8000, "longer"),
    ],
)
def test_what_is_refused(url: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        POLICY.check(url)


def test_http_needs_to_be_allowed() -> None:
    assert OPEN.check("http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/x"
    assert OPEN.check("http://files.example/x") == "http://files.example/x"
    assert OPEN.check("https://files.example/x") == "https://files.example/x"
    with pytest.raises(Refused, match="host"):
        OPEN.check("http://127.0.0.1/x")


@given(st.text())
def test_a_checked_url_is_plain_and_stays_as_it_is(tail: str) -> None:
    try:
        checked = POLICY.check("https://files.example/" + tail)
    except Refused:
        return
    assert checked.isascii()
    assert re.fullmatch(r"https://files\.example/[!-~]*", checked)
    assert not re.search(r'[\\<>"^`{|}#]', checked)
    assert POLICY.check(checked) == checked


@given(st.text(), st.text())
def test_redirects_stay_within_the_policy(location: str, tail: str) -> None:
    try:
        target = POLICY.redirect("https://files.example/packages/a/b?x=" + tail.encode().hex(), location)
    except Invalid:
        return
    assert POLICY.check(target) == target
    assert target.startswith("https://")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example:9000/x?sig=1", "https://cdn.example:9000/x?sig=1"),
        ("/y", "https://files.example/y"),
        ("y", "https://files.example/a/y"),
        ("//index.example/y", "https://index.example/y"),
        ("../y", "https://files.example/y"),
        ("?z=1", "https://files.example/a/x?z=1"),
    ],
)
def test_redirects_that_are_followed(location: str, target: str) -> None:
    assert POLICY.redirect("https://files.example/a/x", location) == target


@pytest.mark.parametrize(
    "location",
    [
        "https://other.example/x",
        "//other.example/x",
        "file:///etc/passwd",
        "https://me:pw@files.example/",
        "http://files.example/x",
        "https://[files.example/x",
        "https://files.example/%2e%2e/x",
    ],
)
def test_redirects_that_are_not(location: str) -> None:
    with pytest.raises(Invalid, match="redirected"):
        POLICY.redirect("https://files.example/a/x", location)


def test_never_from_https_to_http_even_where_http_is_allowed() -> None:
    assert OPEN.redirect("http://files.example/x", "https://files.example/y") == "https://files.example/y"
    with pytest.raises(Invalid, match="from https to http"):
        OPEN.redirect("https://files.example/x", "http://files.example/y")


def test_credentials_go_to_their_own_origin_only() -> None:
    header = POLICY.authorization("https://index.example/simple/")
    assert header == "Basic bWU6aHVudGVyMg=="
    assert POLICY.authorization("https://index.example:443/anywhere") == header
    for url in (
        "https://index.example:444/",
        "http://index.example/",
        "https://files.example/",
        "https://second.example:8443/",
        "https://sub.index.example/",
    ):
        assert POLICY.authorization(url) is None


def test_a_source_is_its_base_without_credentials() -> None:
    one = source("https://me%40home:p%2Fw@Index.example:8443/root/")
    assert one.base == "https://Index.example:8443/root"
    assert one.origin == ("https", "index.example", 8443)
    assert one.authorization == "Basic bWVAaG9tZTpwL3c="
    assert source("https://index.example").authorization is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://me:{SECRET}@index.example/x", "https://index.example/x"),
        (f"https://me:{SECRET}@@index.example/x", "https://index.example/x"),
        (f"//me:{SECRET}@index.example/x", "//index.example/x"),
        (f"https://files.example/x?Signature={SECRET}", "https://files.example/x?..."),
        (f"https://files.example/x?Signature={SECRET}#y", "https://files.example/x?..."),
        (f"https://files.example/x#y?{SECRET}", "https://files.example/x?..."),
        ("https://files.example/a@b", "https://files.example/a@b"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(st.characters(exclude_characters="/?#@", codec="utf-8"), min_size=1))
def test_no_message_of_the_policy_holds_a_password(rest: str) -> None:
    for url in (f"https://me:{SECRET}{rest}@files.example/x", f"https://other.example/{rest}?token={SECRET}"):
        with pytest.raises(Refused) as caught:
            POLICY.check(url)
        assert SECRET not in str(caught.value)
