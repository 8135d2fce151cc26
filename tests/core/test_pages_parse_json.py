"""JSON pages of every dialect become the model; everything else is Invalid, with the place that is wrong."""

import json
from typing import Any

import pytest

from heliostat.errors import Invalid
from heliostat.model import DistFile, ProjectName, ProjectPage
from heliostat.pages.fields import MAX_SIZE
from heliostat.pages.parse_json import parse_project
from support.pages_cases import LOOKALIKE_JSON, MD5, SHA, SHA2, STORE, URL, entry, page

NAME = ProjectName("example")


def parse(body: bytes) -> ProjectPage:
    return parse_project(body, url=URL, name=NAME)


def one(**more: Any) -> DistFile:
    return parse(page(entry(**more))).files[0]


def refused(body: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert caught.value.url == URL
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return caught.value.reason


def test_a_page_of_the_public_index() -> None:
    found = parse(LOOKALIKE_JSON["public index"])
    assert found.name == "example"
    assert found.serial == 7
    assert found.versions == ("1.0",)
    assert found.status == "active"
    wheel, sdist = found.files
    assert wheel == DistFile(
        filename="example-1.0-py3-none-any.whl",
        url=f"{STORE}/example-1.0-py3-none-any.whl",
        hashes={"sha256": SHA},
        size=464992,
        upload_time="2023-01-28T10:52:52.445537Z",
        requires_python=">=3.8,<4",
        core_metadata={"sha256": SHA2},
        provenance="https://index.example/integrity/example/1.0/example-1.0-py3-none-any.whl/provenance",
    )
    assert sdist.core_metadata is False
    assert sdist.yanked == "broken & <bad> \"quotes\" 'too', snowman \u2603"
    assert sdist.provenance is None


@pytest.mark.parametrize("case", LOOKALIKE_JSON)
def test_every_dialect_is_read(case: str) -> None:
    found = parse(LOOKALIKE_JSON[case])
    assert found.name == "example"
    assert len(found.files) == len(json.loads(LOOKALIKE_JSON[case])["files"])


@pytest.mark.parametrize(
    ("given", "serial"),
    [(0, 0), (7, 7), ("30000185", 30000185), (None, None), (..., None), (2**63 - 1, 2**63 - 1)],
)
def test_serials(given: Any, serial: Any) -> None:
    meta = {"api-version": "1.1"} if given is ... else {"api-version": "1.1", "_last-serial": given}
    assert parse(page(meta=meta)).serial == serial


@pytest.mark.parametrize(
    "given", [-1, "-1", "", "x", "1e3", " 7", "\u0667", 2**63, str(2**63), "9" * 5000, 1.5, True, [], {}]
)
def test_bad_serials(given: Any) -> None:
    assert "_last-serial" in refused(page(meta={"api-version": "1.0", "_last-serial": given}))


@pytest.mark.parametrize("version", ["1.0", "1.4", "1.99", "1", "1.5.2"])
def test_versions_of_the_api_that_are_read(version: str) -> None:
    assert parse(page(entry(), meta={"api-version": version})).files


@pytest.mark.parametrize("version", ["2.0", "2", "10.0", "", "x", "1.", "-1.0", "1.0\n"])
def test_versions_of_the_api_that_are_refused(version: str) -> None:
    assert "api-version" in refused(page(meta={"api-version": version}))


def test_no_version_counts_as_the_first() -> None:
    assert parse(page(meta={})).files == ()
    assert parse(page(meta=...)).serial is None


@pytest.mark.parametrize("name", ["Example", "EXAMPLE"])
def test_the_name_may_be_the_displayed_one(name: str) -> None:
    assert parse(page(name=name)).name == "example"


@pytest.mark.parametrize("name", ["other", "", "..", "example/", "ex-ample", None, 1])
def test_the_page_of_another_project(name: str) -> None:
    assert "name" in refused(page(name=name))


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        ({}, "active", None),
        ({"project-status": None}, "active", None),
        ({"project-status": {}}, "active", None),
        ({"project-status": {"status": "archived"}}, "archived", None),
        ({"project-status": {"status": "Quarantined", "reason": "bad"}}, "quarantined", "bad"),
        ({"project-status": {"state": "deprecated", "reason": ""}}, "deprecated", None),
        ({"project-status": "archived"}, "archived", None),
        ({"project-status": {"status": "hibernating"}}, "hibernating", None),
        ({"meta": {"project-status": "quarantined", "project-status-reason": "haunted"}}, "quarantined", "haunted"),
        ({"meta": {"project-status": {"status": "archived", "reason": "old"}}}, "archived", "old"),
        ({"meta": {"project-status": "archived"}, "project-status": {"status": "active"}}, "active", None),
    ],
)
def test_project_status(given: Any, status: str, reason: str) -> None:
    found = parse(page(**given))
    assert (found.status, found.status_reason) == (status, reason)


@pytest.mark.parametrize("given", ["<script>", "a b", "x" * 65, 1, [], {"status": 1}, {"status": "\u00e9"}])
def test_bad_project_status(given: Any) -> None:
    assert "project-status" in refused(page(**{"project-status": given}))


@pytest.mark.parametrize(
    ("given", "yanked"),
    [(..., False), (None, False), (False, False), ("", False), (True, True), ("why", "why"), ("false", "false")],
)
def test_yanked(given: Any, yanked: Any) -> None:
    assert one(yanked=given).yanked == yanked


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"core_metadata": None}, None),
        ({"core_metadata": False}, False),
        ({"core_metadata": True}, True),
        ({"core_metadata": {}}, True),
        ({"core_metadata": {"sha256": SHA}}, {"sha256": SHA}),
        ({"core_metadata": {"SHA256": SHA.upper()}}, {"sha256": SHA}),
        ({"data_dist_info_metadata": {"sha256": SHA}}, {"sha256": SHA}),
        ({"dist_info_metadata": {"sha256": SHA}}, {"sha256": SHA}),
        ({"core_metadata": False, "data_dist_info_metadata": True, "dist_info_metadata": True}, False),
        ({"core_metadata": None, "data_dist_info_metadata": False, "dist_info_metadata": True}, False),
    ],
)
def test_core_metadata_by_preference(keys: Any, expected: Any) -> None:
    assert one(**keys).core_metadata == expected


@pytest.mark.parametrize("value", ["true", 1, [], {"sha256": 1}, {"sha256": "xyz"}, {"crc32": "00000000"}])
def test_bad_core_metadata(value: Any) -> None:
    assert "files[0].core" in refused(page(entry(core_metadata=value)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sha256": SHA}, {"sha256": SHA}),
        ({"SHA256": SHA.upper()}, {"sha256": SHA}),
        ({"md5": MD5, "sha256": SHA}, {"sha256": SHA, "md5": MD5}),
        ({"sha256": SHA, "blake2b_256": SHA}, {"sha256": SHA}),
        ({"sha256": SHA, "md5": "short"}, {"sha256": SHA}),
        ({"sha256": SHA, "md5": None}, {"sha256": SHA}),
        ({"sha512": "0" * 128, "crc32": "0"}, {"sha512": "0" * 128}),
        ({"sha1": "0" * 40}, {"sha1": "0" * 40}),
        ({"sha256": None}, {}),
        ({}, {}),
        (None, {}),
        (..., {}),
    ],
)
def test_hashes(given: Any, expected: Any) -> None:
    found = one(hashes=given).hashes
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    "given",
    [
        {"sha256": SHA[1:]},
        {"sha256": SHA + "0"},
        {"sha256": "g" * 64},
        {"sha256": ""},
        {"sha256": SHA[:-1] + "\n"},
        {"sha256": "\u0660" * 64},
        {"blake2b_256": SHA},
        {"crc32": "00000000"},
        {"sha256": SHA, "SHA256": SHA2},
        {"sha256": 1},
        [SHA],
        SHA,
        {"shake_128": ""},
    ],
)
def test_bad_hashes(given: Any) -> None:
    assert "files[1].hashes" in refused(page(entry("a"), entry("b", hashes=given)))


def test_a_hash_in_the_link_counts_when_there_is_no_other() -> None:
    file = one(hashes={}, url=f"x-1.0.tar.gz#sha256={SHA}&egg=x")
    assert file.hashes == {"sha256": SHA}
    assert file.url == URL + "x-1.0.tar.gz"
    assert one(url=f"x-1.0.tar.gz#sha256={SHA2}").hashes == {"sha256": SHA}


@pytest.mark.parametrize("size", [0, 1, MAX_SIZE])
def test_sizes(size: int) -> None:
    assert one(size=size).size == size


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1, 10**30, 1.5, "12", True, [], {}])
def test_bad_sizes(size: int) -> None:
    assert "files[0].size" in refused(page(entry(size=size)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        ("2014-01-21T05:35:05.558877Z", "2014-01-21T05:35:05.558877Z"),
        ("2007-05-04T03:02:01Z", "2007-05-04T03:02:01Z"),
        ("2023-01-01T00:00:00.000Z", "2023-01-01T00:00:00.000Z"),
        ("2023-01-01T00:00:00.123456789Z", "2023-01-01T00:00:00.123456789Z"),
        ("2023-01-01T00:00:00+00:00", "2023-01-01T00:00:00Z"),
        ("2023-01-01 00:00:00", "2023-01-01T00:00:00Z"),
    ],
)
def test_upload_times(given: Any, expected: Any) -> None:
    assert one(upload_time=given).upload_time == expected


@pytest.mark.parametrize(
    "given",
    [
        "now",
        "2023-13-01T00:00:00Z",
        "2023-02-30T00:00:00Z",
        "2023-01-01T25:00:00Z",
        "2023-01-01",
        "2023-01-01T00:00:00+02:00",
        "2023-01-01T00:00:00Z\n",
        "0000-01-01T00:00:00Z",
        "\u0662023-01-01T00:00:00Z",
        1672531200,
        [],
        True,
    ],
)
def test_bad_upload_times(given: Any) -> None:
    assert "files[0].upload" in refused(page(entry(upload_time=given)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://files.example/a/x.whl", "https://files.example/a/x.whl"),
        ("x.whl", URL + "x.whl"),
        ("../../packages/a/x.whl", "https://index.example/packages/a/x.whl"),
        ("/packages/x%20(1).whl", "https://index.example/packages/x%20(1).whl"),
        ("//files.example/x.whl", "https://files.example/x.whl"),
        ("HTTPS://files.example/x.whl", "https://files.example/x.whl"),
        ("../../../../../x.whl", "https://index.example/x.whl"),
        ("https://files.example/%2e%2e/x.whl", "https://files.example/%2e%2e/x.whl"),
        ("javascript:x.whl", "javascript:x.whl"),
        ("https://files.example/x.whl?token=1", "https://files.example/x.whl?token=1"),
    ],
)
def test_urls_become_absolute_and_nothing_else(given: Any, expected: Any) -> None:
    assert one(url=given).url == expected


@pytest.mark.parametrize("given", ["", "#sha256=0", "http://[", "//[x", "https://[::1", None, 1])
def test_bad_urls(given: Any) -> None:
    assert "files[0].url" in refused(page(entry(url=given)))


@pytest.mark.parametrize("filename", ["..", "/etc/passwd", "a\x00b", "x" * 5000, "x.metadata", "index.html"])
def test_hostile_file_names_are_for_others_to_refuse(filename: str) -> None:
    """A bad name blocks the project, with a reason; the page as such is well-formed."""
    assert one(filename=filename).filename == filename


@pytest.mark.parametrize("filename", ["", None, 1, [], ...])
def test_no_file_name(filename: str) -> None:
    assert "file" in refused(page(entry(filename=filename)))


def test_two_files_of_one_name() -> None:
    reason = refused(page(entry("a"), entry("b"), entry("A"), entry("a", hashes={})))
    assert reason == "files[3].filename: 'a' is files[0] already"


def test_versions() -> None:
    assert parse(page(versions=["1.0", "unknown", ".9", "1.0"])).versions == ("1.0", "unknown", ".9")
    assert parse(page(versions=[])).versions == ()
    assert parse(page()).versions is None
    assert "versions" in refused(page(versions=[1]))
    assert "versions" in refused(page(versions={}))


def test_unknown_keys_are_ignored() -> None:
    body = page(entry(zip_safe={"deep": [[[]]]}, x=1.5), namespaces=[{"name": "x", "owned": True}], _private=None)
    assert parse(body).files[0].filename == "example-1.0.tar.gz"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"{}",
        b"\x00",
        b"\xef\xbb\xbf" + page(),
        page()[:-1],
        page() + b"x",
        page() + page(),
        page().decode().encode("utf-16"),
        b'{"message": "Not Found"}',
        b"<!DOCTYPE html><html></html>",
        b'{"name": "example"}',
        b'{"name": "example", "files": null}',
        b'{"name": "example", "files": {}}',
        b'{"name": "example", "files": [null]}',
        b'{"name": "example", "files": [[]]}',
        b'{"name": "example", "files": [], "meta": []}',
        b'{"name": "example", "files": [], "meta": {"api-version": 1.0}}',
        b'{"name": "example", "files": [], "x": NaN}',
        b'{"name": "example", "files": [], "x": Infinity}',
        b'{"name": "example", "files": [], "x": "\xff"}',
        b'{"name": "example", "files": [], "\xed\xa0\x80": 1}',
        b'{"name": "example", "files": [], "versions": ["\\ud800"]}',
        b'{"name": "example", "files": [], "x": "a\nb"}',
        b'{"name": "example", "files": [], }',
        b'{"name": "example", "files": [], "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"x":' * 200_000,
        b"[" * 2_000_000,
        b'{"name": "example", "files": [], "x": "' + "\u2603".encode() * 600_000 + b'\xff"}',
    ],
)
def test_what_is_no_page(body: bytes) -> None:
    refused(body)


def test_the_reason_names_key_and_index() -> None:
    assert refused(page(entry("a"), entry("b"), entry("c", size=-1))) == (
        "wrong content: Expected `int` >= 0 - at `$.files[2].size`"
    )
    assert refused(page(entry("a"), entry("b", gpg_sig="yes"))) == (
        "wrong content: Expected `bool | null`, got `str` - at `$.files[1].gpg-sig`"
    )


def test_an_absurd_number_of_files() -> None:
    files = ",".join(f'{{"filename":"f{index}","url":"u"}}' for index in range(250_001))
    assert "250000" in refused(f'{{"name":"example","files":[{files}]}}'.encode())


def test_text_outside_ascii_is_read_whole() -> None:
    text = "\u2603\U0001f40d" * 300_000  # multi-byte sequences on every boundary of the check
    assert one(yanked=text).yanked == text
