"""JSON documents of all years become the model; everything else is Invalid."""

import json
from typing import Any

import pytest

from heliostat.errors import Invalid
from heliostat.model import Document, DocumentFile
from heliostat.names import normalise
from heliostat.pages.document import parse_document
from support.pages_cases import MD5, SHA, STORE, case_id, document, document_entry, recorded

URL = "https://index.example/pypi/example/json"
RECORDED = [*recorded("json", ".json"), *recorded("json-release", ".json")]


def parse(body: bytes) -> Document:
    return parse_document(body, url=URL)


def one(**more: Any) -> DocumentFile:
    return parse(document({"1.0": [document_entry(**more)]})).files[0]


def refused(body: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert caught.value.url == URL
    return caught.value.reason


def test_a_document_of_today() -> None:
    found = parse(
        document({"0.9": [], "1.0": [document_entry()]}, [document_entry()], vulnerabilities=[], ownership={})
    )
    assert (found.display_name, found.serial, found.versions) == ("Example", 7, ("0.9", "1.0"))
    assert found.files == (
        DocumentFile(
            filename="example-1.0.tar.gz",
            url=f"{STORE}/example-1.0.tar.gz",
            hashes={"sha256": SHA, "blake2b_256": SHA, "md5": MD5},
            size=12,
            upload_time="2024-12-06T00:58:03.138172Z",
            core_metadata=False,
            version="1.0",
        ),
    )
    assert next(iter(found.files[0].hashes)) == "sha256"


def test_another_projects_document() -> None:
    """Another spelling, and what is no name at all, are nobody else's."""
    for name in ("Example", "EXAMPLE", "", "no name"):
        info = {"name": name, "version": "1.0"}
        assert parse_document(document({}, info=info), url=URL, name=normalise("example")).files == ()
    with pytest.raises(Invalid, match="the document of 'other', where 'example' was asked for"):
        parse_document(document({}, info={"name": "other"}), url=URL, name=normalise("example"))


def test_a_document_of_2015() -> None:
    found = one(digests=..., upload_time_iso_8601=..., yanked=..., yanked_reason=..., size=12, **{"core-metadata": ...})
    assert found.hashes == {"md5": MD5}
    assert found.upload_time == "2024-12-06T00:58:03Z"
    assert (found.yanked, found.core_metadata) == (False, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"digests": {}}, {"md5": MD5}),
        ({"digests": None}, {"md5": MD5}),
        ({"digests": {"sha256": SHA}}, {"sha256": SHA, "md5": MD5}),
        ({"digests": {"SHA256": SHA.upper()}, "md5_digest": ""}, {"sha256": SHA}),
        ({"digests": {"sha256": "bad"}}, {"md5": MD5}),
        ({"digests": None, "md5_digest": None}, {}),
        ({"digests": ..., "md5_digest": ...}, {}),
    ],
)
def test_hashes(given: Any, expected: Any) -> None:
    assert one(**given).hashes == expected


@pytest.mark.parametrize(
    ("yanked", "reason", "expected"),
    [
        (False, None, False),
        (False, "left over", False),
        (None, None, False),
        (True, None, True),
        (True, "", True),
        (True, "broken", "broken"),
    ],
)
def test_yanked(yanked: Any, reason: str, expected: Any) -> None:
    assert one(yanked=yanked, yanked_reason=reason).yanked == expected


def test_without_releases_the_urls_are_the_files() -> None:
    found = parse(document(..., [document_entry("a"), document_entry("b")]))
    assert [(file.filename, file.version) for file in found.files] == [("a", "1.0"), ("b", "1.0")]
    assert found.versions == ()
    assert parse(document(None, [])).files == ()


def test_releases_count_and_not_urls() -> None:
    found = parse(document({"1.0": [document_entry("a")], "2.0": None}, [document_entry("b")]))
    assert [file.filename for file in found.files] == ["a"]
    assert found.versions == ("1.0", "2.0")


def test_a_file_under_two_releases_is_kept_twice() -> None:
    found = parse(document({"1.0": [document_entry()], "1.0.0": [document_entry()]}))
    assert [file.version for file in found.files] == ["1.0", "1.0.0"]


@pytest.mark.parametrize(("given", "serial"), [(..., None), (None, None), (0, 0), ("12", 12)])
def test_serials(given: Any, serial: Any) -> None:
    assert parse(document({}, last_serial=given)).serial == serial


@pytest.mark.parametrize("info", [..., None, {}, {"name": None}, {"name": ""}])
def test_no_name(info: Any) -> None:
    assert parse(document({}, info=info)).display_name is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"message": "Not Found"}', "neither"),
        (document(None, None), "neither"),
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "wrong content"),
        (document([]), "releases"),
        (document({"1.0": {}}), "releases"),
        (document({"1.0": [[]]}), "releases"),
        (document({}, info={"name": 1}), "info.name"),
        (document({}, last_serial=-1), "last_serial"),
        (document({}, last_serial="x"), "last_serial"),
        (document({"1.0": [document_entry(), document_entry("b", size=-1)]}), "size"),
        (document({"1.0": [document_entry(), document_entry("b", url="http://[")]}), "releases['1.0'][1].url"),
        (document({"1\n": [document_entry(digests={"sha256": "1"}, md5_digest=...)]}), "releases['1\\n'][0].digests"),
        (document({"1.0": [document_entry(upload_time_iso_8601="now")]}), "releases['1.0'][0].upload_time"),
        (document({"1.0": [document_entry(filename="")]}), "releases['1.0'][0].filename"),
        (document(..., [document_entry(url="")]), "urls[0].url"),
        (document({})[:-1] + b',"x":"\xff"}', "not UTF-8"),
        (document({})[:-1] + b',"x":' + b"[" * 300_000 + b"]" * 300_000 + b"}", "nested"),
    ],
)
def test_what_is_refused(body: bytes, reason: str) -> None:
    assert reason in refused(body)


@pytest.mark.parametrize("path", RECORDED or [None], ids=lambda path: case_id(path) if path else "none recorded")
def test_recorded_documents(path: Any) -> None:
    """Compared with a plain reading of the same bytes that shares nothing with the parser."""
    body = path.read_bytes() if path else document({"1.0": [document_entry()], "0.1": []})
    raw = json.loads(body)
    found = parse(body)
    releases = raw.get("releases")
    entries = (raw.get("urls") or []) if releases is None else [entry for files in releases.values() for entry in files]
    assert found.serial == raw.get("last_serial")
    assert normalise(found.display_name or "") == normalise(raw["info"]["name"])
    assert found.versions == tuple(releases or ())
    assert [file.filename for file in found.files] == [entry["filename"] for entry in entries]
    for file, entry in zip(found.files, entries, strict=True):
        digests = entry.get("digests") or {"md5": entry["md5_digest"]}
        assert {**digests} == file.hashes
        assert file.url == entry["url"]
        assert file.size == entry["size"]
        assert file.upload_time
        assert file.upload_time.removesuffix("Z").startswith(entry["upload_time"])
        assert file.requires_python == (entry.get("requires_python") or None)
        assert bool(file.yanked) == bool(entry.get("yanked"))
        if entry.get("yanked_reason"):
            assert file.yanked == entry["yanked_reason"]
