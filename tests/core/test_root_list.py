"""The root list is read as a stream: the same whatever the chunks, in bounded memory, refused when it is not whole."""

import itertools
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heliostat.errors import Invalid
from heliostat.model import Listed
from heliostat.pages.render import root_json
from heliostat.pages.root_list import MAX_DEPTH, RootListParser
from support.pages_cases import recorded

URL = "https://index.example/simple/"


def read(body: bytes, size: int = 1 << 20, **limit: int) -> tuple[list[Listed], int | None]:
    parser = RootListParser(URL, **limit)
    listed = [entry for start in range(0, len(body), size) for entry in parser.feed(body[start : start + size])]
    return listed, parser.close()


def refused(body: bytes, size: int = 1 << 20, **limit: int) -> str:
    with pytest.raises(Invalid) as caught:
        read(body, size, **limit)
    assert caught.value.url == URL
    assert len(str(caught.value)) < 400
    return caught.value.reason


def root(*projects: object, **more: object) -> bytes:
    raw = {"meta": {"api-version": "1.4", "_last-serial": 42}, "projects": list(projects), **more}
    return json.dumps({key: value for key, value in raw.items() if value is not ...}).encode()


BRACES = '}],{"name":"no"},{\\"}{[]}'
BODIES = {
    "public index": b'{"meta":{"_last-serial":42,"api-version":"1.4"},"projects":[{"_last-serial":1,"name":"a"},'
    b'{"_last-serial":2,"name":"0-._.-0"}]}\n',
    "meta last": b'{"projects":[{"name":"a"},{"name":"b"}],"meta":{"_last-serial":42}}',
    "keys around": root({"name": "a"}, x=[[{"projects": [{"name": "no"}]}]], y="]}", z=-1.5e3, n=None),
    "serials as text": root({"name": "a", "_last-serial": "7"}, {"name": "b", "_last-serial": None}),
    "no entries": b' {"meta" : {"_last-serial":42} , "projects" : [ ] } ',
    "white space everywhere": json.dumps(
        {"meta": {"_last-serial": 42}, "projects": [{"name": "a", "_last-serial": 1}, {"name": "b"}]}, indent="\r\n\t "
    ).encode(),
    "braces in strings": root({"name": BRACES}, {"name": "b", "x": BRACES, BRACES: 1}, {"name": "\\"}, {"name": '"'}),
    "nested unknown keys": root(*({"name": str(n), "x": {"y": [{"z": "}"}]}} for n in range(9))),
    "text outside ASCII": root({"name": "f\u00f6\u00f6 \u96ea"}).decode().encode(),
    "raw UTF-8": '{"meta":{"_last-serial":42},"projects":[{"name":"f\u00f6\u00f6 \u96ea\U0001f40d"}]}'.encode(),
    "escapes": b'{"pro\\u006aects":[{"n\\u0061me":"\\u0061\\/"}],"m\\u0065ta":{"_last-serial":42}}',
}


def expected(body: bytes) -> list[Listed]:
    entries = json.loads(body)["projects"]
    serials = (entry.get("_last-serial") for entry in entries)
    return [
        Listed(entry["name"], None if serial is None else int(serial))
        for entry, serial in zip(entries, serials, strict=True)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("case", BODIES)
def test_every_form_in_every_chunking(case: str, size: int) -> None:
    assert read(BODIES[case], size) == (expected(BODIES[case]), 42)


@pytest.mark.parametrize("case", BODIES)
def test_every_beginning_is_refused(case: str) -> None:
    body = BODIES[case].strip()
    for end in range(len(body)):
        refused(body[:end])


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cut off"),
        (b"[]", "an object"),
        (b"<!DOCTYPE html>", "an object"),
        (b"\xef\xbb\xbf{}", "an object"),
        (b"{}", "no `projects`"),
        (b'{"message": "Not Found"}', "no `projects`"),
        (b'{"projects":null}', "an array"),
        (b'{"projects":{}}', "an array"),
        (b'{"projects":[]}x', "more after"),
        (b'{"projects":[]}{"projects":[]}', "more after"),
        (b'{"projects":[],}', "a key"),
        (b'{"projects":[]]', "a comma"),
        (b'{"projects":[,]}', "an entry"),
        (b'{"projects":[{"name":"a"},]}', "an entry"),
        (b'{"projects":[{"name":"a"},nul]}', "not JSON"),
        (b'{"projects":[' + b"null," * 100 + b"{}]}", "projects[100]: Object missing required field `name`"),
        (b'{"projects":[' + b"null," * 100 + b'{"name":"a","_last-serial":"x"}]}', "'x' is not a serial"),
        (b'{"projects":[' + b"0," * 101 + b"0]}", "projects[100]: not an object, after 100 others"),
        (b'{"projects":[{"name":"a"} {"name":"b"}]}', "a comma after 1 projects"),
        (b'{"projects":[{"name":"\\ud800"}]}', "projects[0]"),
        (b'{"projects":[{"name":"a","x":NaN}]}', "projects[0]"),
        (b'{"projects":[{"name":"a","x":[}]}]}', "projects[0]"),
        (b'{"projects":[{"name":"a","x":"\xff"}]}', "UTF-8"),
        (b'{"projects":[{"name":"\xff"}]}', "UTF-8"),
        (b'{"projects":[],"projects":[]}', "`projects` twice"),
        (b'{"meta":{},"meta":{},"projects":[]}', "`meta` twice"),
        (b'{"meta":[],"projects":[]}', "Expected `object`"),
        (b'{"meta":{"_last-serial":-1},"projects":[]}', "_last-serial"),
        (b'{"meta":{"_last-serial":"x"},"projects":[]}', "meta._last-serial"),
        (b'{"meta":{"api-version":"2.0"},"projects":[]}', "api-version"),
        (b'{"projects":[{"name":"a"}],"meta":{"api-version":"2.0"}}', "api-version"),
        (b'{"x":,"projects":[]}', "not JSON"),
        (b'{"x":tru,"projects":[]}', "not JSON"),
        (b'{"x":"\xff","projects":[]}', "UTF-8"),
        (b'{"x" 1,"projects":[]}', "a colon"),
        (b"{x:1}", "a key"),
        (b'{"x":{]},"projects":[]}', "not JSON"),
        (b'{"projects":[{"name":"a","x":' + b"[" * 40 + b"]" * 40 + b"}]}", "nested deeper"),
        (b'{"x":' + b"[" * 40 + b"]" * 40 + b',"projects":[]}', "nested deeper"),
    ],
)
def test_what_is_refused_in_the_same_words_whatever_the_chunks(body: bytes, size: int, reason: str) -> None:
    assert reason in refused(body, size)
    assert refused(body, size) == refused(body)


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("entry", "listed"),
    [
        (b'{"name":"x","_last-serial":-1}', Listed("x")),
        (b'{"name":"x","_last-serial":1.5}', Listed("x")),
        (b'{"name":"x","_last-serial":"7 "}', Listed("x")),
        (b'{"name":"x","_last-serial":"9223372036854775808"}', Listed("x")),
        (b'{"name":"x","_last-serial":9223372036854775808}', Listed("x")),
        (b'{"name":1,"_last-serial":7}', Listed('(\'{"name":1,"_last-serial":7}\')')),
        (b'{"name":null}', Listed("('{\"name\":null}')")),
        (b"{}", Listed("('{}')")),
        (b"null", Listed("('null')")),
        (b'"x"', Listed("('\"x\"')")),
        (b"[1,{}]", Listed("('[1,{}]')")),
        (b'{"a":"' + b"a" * 300 + b'"}', Listed(f'(\'{{"a":"{"a" * 194}...\')')),
    ],
)
def test_one_entry_of_the_wrong_form_does_not_spoil_the_others(entry: bytes, listed: Listed, size: int) -> None:
    a, z = Listed("a", 1), Listed("z", 2)
    for before, after in ((True, True), (True, False), (False, True), (False, False)):
        parts = [b'{"name":"a","_last-serial":1}'] * before + [entry] + [b'{"name":"z","_last-serial":2}'] * after
        body = b'{"projects":[' + b",".join(parts) + b"]}"
        assert read(body, size) == ([a] * before + [listed] + [z] * after, None)


def test_nesting_up_to_the_bound() -> None:
    deep = MAX_DEPTH - 1
    body = b'{"projects":[{"name":"a","x":' + b"[" * deep + b"]" * deep + b"}]}"
    assert read(body) == ([Listed("a")], None)


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
@pytest.mark.parametrize("filler", ["a", "}", "{", '"', "\\", "\u00e9"])
def test_the_largest_entry(filler: str, size: int) -> None:
    entry = json.dumps({"name": filler * 20}).encode()
    body = b'{"projects":[{"name":"x"},' + entry + b',{"name":"y"}]}'
    limit = max(len(entry), 40)
    filling = b" " * (limit - len(entry))
    body = body.replace(entry, entry[:-1] + filling + b"}")
    assert [listed.display for listed in read(body, size, limit=limit)[0]] == ["x", filler * 20, "y"]
    assert f"more than {limit - 1} bytes" in refused(body, size, limit=limit - 1)


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
@pytest.mark.parametrize(
    "endless",
    [
        b'{"projects":[{"name":"' + b"a" * (1 << 20),
        b'{"projects":[{"name":"' + b"}" * (1 << 20),
        b'{"projects":[{"x":' + b"9" * (1 << 20),
        b'{"x":' + b"9" * (1 << 20),
        b'{"x":"' + b"\\\\" * (1 << 20),
        b'{"' + b"k" * (1 << 20),
        b'{"meta":{' + b'"a":1,' * (1 << 18),
    ],
)
def test_what_never_ends_is_refused_early(endless: bytes, size: int) -> None:
    parser = RootListParser(URL)

    def feed_all() -> None:
        for start in range(0, len(endless), size):
            parser.feed(endless[start : start + size])

    with pytest.raises(Invalid, match="has more than 65536 bytes"):
        feed_all()
    assert len(parser._buffer) <= 65536 + size


def test_white_space_is_not_kept() -> None:
    parser = RootListParser(URL)
    parser.feed(b'{"projects":[{"name":"a"}')
    for _ in range(100):
        assert parser.feed(b" \n" * 1000) == []
    assert len(parser._buffer) == 0
    assert parser.feed(b"]}") == []
    assert parser.close() is None


def test_entries_come_as_soon_as_they_are_complete() -> None:
    parser = RootListParser(URL)
    assert parser.feed(b'{"projects":[{"name":"a"') == []
    assert parser.feed(b"}") == [Listed("a")]
    assert parser.feed(b',{"name":"b","_last-serial":3}') == [Listed("b", 3)]
    with pytest.raises(Invalid, match="cut off after 2 projects"):
        parser.close()


def many(count: int, extra: str = "") -> bytes:
    """A list of the public index's form, with something that only the exact scanner reads if ``extra`` is given."""
    body = b"".join(root_json(((f"Name_{n}", f"name-{n}", n) for n in range(count)), 42))
    return body.replace(b'"name"', f'{extra}"name"'.encode())


@pytest.mark.parametrize("extra", ["", '"x":[],', '"x":"{",'])
def test_a_long_list_in_bounded_memory(extra: str) -> None:
    body = many(30_000, extra)
    parser, count, chunk = RootListParser(URL), 0, 1 << 14
    parser.feed(body[:chunk])
    tracemalloc.start()
    for start in range(chunk, len(body), chunk):
        count += len(parser.feed(body[start : start + chunk]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parser.close() == 42
    assert parser._count == 30_000
    assert peak < 1_000_000 < len(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8) | st.just(BRACES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAME = st.one_of(st.text(max_size=6), st.sampled_from(["a", BRACES, '"', "\\", "Name"]))
ENTRY = st.builds(
    lambda more, name, serial: {**more, "name": name, **serial},
    st.dictionaries(st.text(max_size=4), JSON, max_size=2),
    NAME,
    st.one_of(st.just({}), st.builds(lambda n: {"_last-serial": n}, st.none() | st.integers(0, 2**63 - 1))),
)


@st.composite
def root_lists(draw: st.DrawFn) -> tuple[bytes, list[Any], int | None]:
    """(body, entries, meta serial): keys in any order, compact or not, ASCII or not."""
    entries = draw(st.lists(ENTRY, max_size=12))
    serial = draw(st.none() | st.integers(0, 2**63 - 1))
    keys: list[tuple[str, Any]] = [("meta", {"api-version": "1.4", "_last-serial": serial}), ("projects", entries)]
    keys += [(f"x{key}", value) for key, value in draw(st.dictionaries(st.text(max_size=4), JSON, max_size=2)).items()]
    indent = draw(st.sampled_from([None, 0, "\t"]))
    body = json.dumps(dict(draw(st.permutations(keys))), indent=indent, ensure_ascii=draw(st.booleans()))
    return body.encode(), entries, serial


def chunked(body: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(bounds)]


@given(root_lists(), st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([1 << 16, 1000, 400]))
@settings(deadline=None, max_examples=300)
def test_any_list_in_any_chunking_is_what_a_whole_decoding_gives(made: Any, cuts: list[int], limit: int) -> None:
    body, entries, serial = made
    parser = RootListParser(URL, limit)
    try:
        listed = [entry for chunk in chunked(body, cuts) for entry in parser.feed(chunk)]
        found = parser.close()
    except Invalid as exc:
        if "more than" not in exc.reason or limit == 1 << 16:
            raise
        return
    whole = msgspec.json.decode(body)
    assert listed == [Listed(entry["name"], entry.get("_last-serial")) for entry in whole["projects"]]
    assert len(listed) == len(entries)
    assert found == serial


@pytest.mark.parametrize("entry", [b'{"name":"a","_last-serial":{ 1 },{"name":"b"}', b'{"name":1,"x":{ 1 },{}'])
def test_an_entry_of_the_wrong_form_that_is_no_json_either(entry: bytes) -> None:
    body = b'{"meta":{"_last-serial":1},"projects":[' + entry + b"]}"
    with pytest.raises(Invalid, match=r"wrong content: projects\[0\]: JSON is malformed"):
        RootListParser(URL).feed(body)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damage_is_found_in_the_same_way_in_any_chunking(data: st.DataObject) -> None:
    """A list with some bytes changed gives the same entries or the same reason, however it is cut."""
    body = bytearray(data.draw(st.sampled_from(sorted(BODIES.values()))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"{", b'"', b"]"])
        )
    damaged = bytes(body)
    outcomes: list[Any] = []
    for chunks in (
        [damaged],
        [damaged[n : n + 1] for n in range(len(damaged))],
        chunked(damaged, data.draw(st.lists(st.integers(0, 999)))),
    ):
        parser = RootListParser(URL)
        try:
            outcomes.append(([entry for chunk in chunks for entry in parser.feed(chunk)], parser.close()))
        except Invalid as exc:
            outcomes.append(exc.reason)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    try:
        whole = msgspec.json.decode(damaged)
    except (msgspec.DecodeError, UnicodeDecodeError):
        assert isinstance(outcomes[0], str)
        return
    if not isinstance(outcomes[0], str):
        for found, entry in zip(outcomes[0][0], whole["projects"], strict=True):
            named = isinstance(entry, dict) and isinstance(entry.get("name"), str)
            assert found.display == entry["name"] if named else found.display.startswith("('")


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ projectsmn1e'), max_size=60).map(str.encode))
@example(b'{"projects":[{"name":"a"}]')
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_list_or_invalid(body: bytes) -> None:
    try:
        read(body, 7)
    except Invalid:
        pass


def test_recorded_project_pages_are_no_root_lists() -> None:
    for path in recorded("simple-json", ".json"):
        assert "no `projects`" in refused(path.read_bytes(), 1000, limit=1 << 20)
