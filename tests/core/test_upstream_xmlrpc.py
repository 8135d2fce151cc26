"""The change feed's XML: what is read, what is refused, and what faults mean."""

import json
import os
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.errors import FeedUnsupported, Invalid, RateLimited, Unavailable
from heliostat.model import Event, Listed
from heliostat.upstream import xmlrpc as ours
from heliostat.upstream.xmlrpc import ChangelogParser, ProjectsParser, SerialParser

URL = "https://index.example/pypi"
RATE_LIMIT = (
    "HTTPTooManyRequests: The action could not be performed because there were too many requests by the client."
)
GONE = "RuntimeError: PyPI no longer supports the XMLRPC list_packages method. Use JSON or Simple API instead."

# Look-alikes of recorded answers, so that the tests say the same without the recordings.
ONE_ROW = b"""<?xml version='1.0'?>
<methodResponse>
<params>
<param>
<value><array><data>
<value><array><data>
<value><string>demo</string></value>
<value><nil/></value><value><int>1588960107</int></value>
<value><string>add source file f&amp;#246;-1.0.tar.gz</string></value>
<value><int>7198863</int></value>
</data></array></value>
</data></array></value>
</param>
</params>
</methodResponse>
"""
NOTHING_NEW = b'<?xml version="1.0"?><methodResponse><params><param><value><array><data></data></array></value></param></params></methodResponse>'


def dumped(value: Any) -> bytes:
    return xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()


def faulty(code: int, text: str) -> bytes:
    return xmlrpc.client.dumps(xmlrpc.client.Fault(code, text), methodresponse=True).encode()


def rows(body: bytes, step: int | None = None) -> list[Event]:
    parser = ChangelogParser(URL)
    for at in range(0, len(body), step or len(body) or 1):
        parser.feed(body[at : at + (step or len(body))])
    return parser.events()


def serial(body: bytes) -> int:
    parser = SerialParser(URL)
    parser.feed(body)
    return parser.serial()


def projects(body: bytes, step: int = 7) -> list[Listed]:
    parser, found = ProjectsParser(URL), []
    for at in range(0, len(body), step):
        parser.feed(body[at : at + step])
        found += parser.take()
    parser.close()
    return found


def test_a_call_is_what_xml_rpc_clients_send() -> None:
    params, method = xmlrpc.client.loads(ours.request("changelog_since_serial", 41125229))
    assert (params, method) == ((41125229,), "changelog_since_serial")
    assert xmlrpc.client.loads(ours.request("changelog_last_serial")) == ((), "changelog_last_serial")


def test_rows() -> None:
    assert rows(ONE_ROW) == [Event("demo", None, 1588960107, "add source file f\u00f6-1.0.tar.gz", 7198863)]
    assert rows(NOTHING_NEW) == []


def test_a_row_about_no_project() -> None:
    assert rows(dumped([["", None, 1, "keyrotate ", 900000], [None, None, 2, "x", 900001]])) == [
        Event("", None, 1, "keyrotate ", 900000),
        Event("", None, 2, "x", 900001),
    ]


def test_a_string_without_its_tag() -> None:
    body = dumped([["demo", "1.0", 1, "x", 5]]).replace(b"<string>", b"").replace(b"</string>", b"")
    assert rows(body) == [Event("demo", "1.0", 1, "x", 5)]


def test_large_integers() -> None:
    assert serial(dumped(42006270)) == 42006270
    assert serial(dumped(5).replace(b"<int>5</int>", b"<i8>9007199254740993</i8>")) == 9007199254740993


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=50)
row = st.tuples(st.none() | text, st.none() | text, st.integers(0, 2**31 - 1), text, st.integers(1, 2**31 - 1))


@given(st.lists(row, max_size=20), st.integers(1, 500))
def test_what_xml_rpc_servers_write_is_read_back(
    given_rows: list[tuple[str | None, str | None, int, str, int]], step: int
) -> None:
    escaped = [[*one[:3], one[3].replace("&", "&amp;"), one[4]] for one in given_rows]
    assert rows(dumped(escaped), step) == [Event(n or "", v, t, a, s) for n, v, t, a, s in given_rows]


@given(st.dictionaries(text, st.integers(0, 2**31 - 1), max_size=30))
def test_lists_of_projects_are_read_back(given_names: dict[str, int]) -> None:
    assert projects(dumped(given_names)) == [Listed(name, number) for name, number in given_names.items()]


@given(st.binary(max_size=400))
def test_garbage_is_an_error_and_nothing_else(body: bytes) -> None:
    for read in (rows, serial, projects):
        with pytest.raises(Invalid):
            read(body)


TAGS = ("value", "array", "data", "struct", "member", "name", "int", "string", "fault", "nil")
WHOLE = (
    "<value><int>5</int></value>",
    "<value><array><data>",
    "</data></array></value>",
    "7",
    "x",
    "<i8/>",
    "<other/>",
)
fragment = st.sampled_from([*(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS), *WHOLE])


@given(st.lists(fragment, max_size=30))
def test_elements_in_any_order_are_an_error_or_an_answer(pieces: list[str]) -> None:
    body = f"<methodResponse>{''.join(pieces)}</methodResponse>".encode()
    for read in (rows, serial, projects):
        try:
            read(body)
        except (Invalid, FeedUnsupported, Unavailable):
            pass


BOMB = b"""<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<methodResponse><params><param><value><string>&b;</string></value></param></params></methodResponse>"""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (BOMB, "entities"),
        (b'<!DOCTYPE x SYSTEM "http://other.example/x.dtd"><methodResponse/>', "document type"),
        (b"<!DOCTYPE x><methodResponse/>", "document type"),
        (b"<methodResponse>&undefined;</methodResponse>", "well-formed"),
        (b"", "well-formed"),
        (b"<html><body>Welcome</body></html>", "not an XML-RPC answer"),
        (b"<methodResponse></methodResponse>", "not an XML-RPC answer"),
        (ONE_ROW[:-40], "well-formed"),
        (b"<?xml version='1.0' encoding='utf-7'?><methodResponse/>", "well-formed|not readable"),
        (b"<?xml version='1.0' encoding='nonsense'?><methodResponse/>", "well-formed|not readable"),
        (b"<methodResponse>" + b"<value>" * 100, "nested"),
        (dumped("x" * 70_000), "characters"),
        (dumped([["x" * 70_000, None, 1, "create", 5]]), "characters"),
        (dumped([list(range(1000))]), "values in one row"),
        (dumped([["demo", None, 1, "create"]]), "five"),
        (dumped([["demo", None, 1, "create", "5"]]), "serial"),
        (dumped([["demo", None, 1, "create", True]]), "serial"),
        (dumped([["demo", None, 1, "create", -5]]), "serial"),
        (dumped([["demo", None, 1, "create", None]]), "serial"),
        (dumped([[5, None, 1, "create", 5]]), "name"),
        (dumped([["demo", ["1.0"], 1, "create", 5]]), "version"),
        (dumped([["demo", None, "1", "create", 5]]), "time"),
        (dumped([["demo", None, 1, 7, 5]]), "action"),
        (dumped(["demo"]), "five"),
        (dumped({"demo": 5}), "five"),
        (dumped(5), "not a list"),
        (dumped([["demo", None, 1, "x", 5]]).replace(b">5<", b">99999999999999999999<"), "number"),
        (dumped([["demo", None, 1, "x", 5]]).replace(b">5<", b">9223372036854775808<"), "number"),
        (dumped([["demo", None, 1, "x", 5]]).replace(b">5<", b">\xd9\xa5<"), "number"),
    ],
)
def test_what_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        rows(body)


def test_entities_are_not_expanded_before_they_are_refused() -> None:
    nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 20))
    body = f'<!DOCTYPE b [<!ENTITY e0 "x">{nested}]><methodResponse>&e19;</methodResponse>'.encode()
    with pytest.raises(Invalid, match="entities"):
        rows(body)


def test_more_rows_than_anyone_sends() -> None:
    one = b"<value><array><data><value/><value/><value><i4>1</i4></value><value/><value><i4>5</i4></value></data></array></value>"
    parser = ChangelogParser(URL)
    parser.feed(b"<methodResponse><params><param><value><array><data>")
    block = one * 10_000
    for _ in range(ours.MOST_ROWS // 10_000):
        parser.feed(block)
    with pytest.raises(Invalid, match="rows"):
        parser.feed(one)


@pytest.mark.parametrize("body", [dumped("5"), dumped(None), dumped([True]), dumped(-1), dumped([5]), dumped({"a": 5})])
def test_a_serial_that_is_none(body: bytes) -> None:
    with pytest.raises(Invalid):
        serial(body)


@pytest.mark.parametrize("body", [dumped({"a": "5"}), dumped({"a": -5}), dumped({"a": True}), dumped([5])])
def test_lists_of_projects_that_are_none(body: bytes) -> None:
    with pytest.raises(Invalid):
        projects(body)


@pytest.mark.parametrize(
    ("code", "said", "error", "wait"),
    [
        (-32500, f"{RATE_LIMIT} Limit may reset in 17 seconds.", RateLimited, 17.0),
        (-32500, f"{RATE_LIMIT} Limit may reset in 0 seconds.", RateLimited, 1.0),
        (-32500, RATE_LIMIT, RateLimited, None),
        (-32500, GONE, FeedUnsupported, None),
        (-32500, "ValueError: unknown", FeedUnsupported, None),
        (-32500, "KeyError: 'x'", Unavailable, None),
        (-32403, "server error; service unavailable", Unavailable, None),
        (-32601, "server error; requested method not found", FeedUnsupported, None),
        (1, "<class 'Exception'>:method \"changelog_last_serial\" is not supported", FeedUnsupported, None),
        (-32602, "client error; serial: Input should be a valid integer", Invalid, None),
        (-32700, "parse error", Invalid, None),
    ],
)
def test_faults(code: int, said: str, error: type[Exception], wait: float | None) -> None:
    for read in (serial, rows, projects):
        with pytest.raises(error) as caught:
            read(faulty(code, said))
        assert type(caught.value) is error
        assert getattr(caught.value, "retry_after", None) == wait


def test_a_fault_is_shown_in_one_short_line() -> None:
    with pytest.raises(Invalid) as caught:
        serial(faulty(1, "x\r\n\x1b[31m\u202e" * 1000))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("body", [b"<methodResponse><fault><value><int>5</int></value></fault></methodResponse>"])
def test_a_fault_that_says_nothing(body: bytes) -> None:
    with pytest.raises(Invalid, match="fault None"):
        serial(body)


#: Look-alikes of recordings: file name, body, and the rows, names or nothing that it stands for.
LOOK_ALIKES: list[tuple[str, bytes, Any]] = [
    ("request-changelog_last_serial", ours.request("changelog_last_serial"), None),
    ("changelog-one-row", ONE_ROW, [["demo", None, 1588960107, "", 7198863]]),
    ("changelog_since_serial-nothing-new", NOTHING_NEW, []),
    ("changelog_last_serial-small", dumped(5), None),
    ("list_packages_with_serial-few", dumped({"0": 3075854, "0-._.-0": 1448421}), {"0": 3075854, "0-._.-0": 1448421}),
    ("cdn-fault-list_packages", faulty(-32500, GONE), None),
    ("fault-rate-limit", faulty(-32500, f"{RATE_LIMIT} Limit may reset in 1 seconds."), None),
]


def recordings() -> list[tuple[str, bytes, Any]]:
    """The recorded answers, where the machine has them."""
    folder = os.environ.get("HELIOSTAT_FIXTURES")
    found = []
    for path in sorted(Path(folder, "xmlrpc").rglob("*.xml")) if folder else []:
        beside, body = path.with_suffix(".json"), path.read_bytes()
        if beside.exists():
            known = json.loads(beside.read_text())
        else:
            known = xmlrpc.client.loads(body)[0][0] if path.name.startswith("changelog") else None
        found.append((path.stem, body, known))
    return found


@pytest.mark.parametrize(
    ("name", "body", "known"), [*LOOK_ALIKES, *recordings()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_recorded_answers(name: str, body: bytes, known: Any) -> None:
    if name.startswith("request-"):
        method = name.removeprefix("request-")
        numbers = [number for number in (41125229,) if method == "changelog_since_serial"]
        assert xmlrpc.client.loads(body) == xmlrpc.client.loads(ours.request(method, *numbers))
    elif "fault" in name:
        with pytest.raises((FeedUnsupported, RateLimited, Unavailable, Invalid)) as caught:
            rows(body)
        expected = {"rate-limit": RateLimited, "service": Unavailable, "bad-param": Invalid, "cdn": FeedUnsupported}
        assert type(caught.value) is next(kind for word, kind in expected.items() if word in name)
    elif name.startswith("changelog_last_serial"):
        assert serial(body) == xmlrpc.client.loads(body)[0][0]
    elif name.startswith("list_packages"):
        assert projects(body) == [Listed(display, number) for display, number in known.items()]
    else:
        found = rows(body)
        assert [event.serial for event in found] == [one[4] for one in known]
        assert [event.display for event in found] == [one[0] for one in known]
        assert all("&#" not in event.action for event in found)
