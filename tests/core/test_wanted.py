"""Which files a project must have, and where each belongs."""

from __future__ import annotations

import pytest

from heliostat.errors import Refused
from heliostat.mirror.wanted import Held, nanoseconds, provenance_path, wanted_files
from heliostat.model import DistFile, Document, DocumentFile, ProjectName, ProjectPage

NAME = ProjectName("one")
SHA, BLAKE, OTHER = "a" * 64, "b" * 64, "c" * 64
SHA_URL = f"http://127.0.0.1/packages/aa/aa/{'a' * 60}/one-1.0.tar.gz"
BLAKE_URL = f"http://127.0.0.1/packages/bb/bb/{'b' * 60}/one-1.0.tar.gz"
SHA_PATH = f"web/packages/aa/aa/{'a' * 60}/one-1.0.tar.gz"
BLAKE_PATH = f"web/packages/bb/bb/{'b' * 60}/one-1.0.tar.gz"


def page(*files: DistFile) -> ProjectPage:
    return ProjectPage(name=NAME, files=files)


def file(url: str, hashes: dict[str, str], filename: str = "one-1.0.tar.gz") -> DistFile:
    return DistFile(filename=filename, url=url, hashes=hashes, size=1)


def document(**hashes: str) -> Document:
    entry = DocumentFile(filename="one-1.0.tar.gz", url=BLAKE_URL, hashes=hashes, size=1)
    return Document(display_name="One", serial=1, files=(entry,))


def test_upstreams_path_is_kept_when_it_is_the_sha256() -> None:
    (want,) = wanted_files(page(file(SHA_URL, {"sha256": SHA})), None, {}, allow_unhashed=False)
    assert want.path == SHA_PATH


def test_upstreams_path_is_kept_when_the_document_says_it_is_the_blake2b() -> None:
    described = document(sha256=SHA, blake2b_256=BLAKE)
    (want,) = wanted_files(page(file(BLAKE_URL, {"sha256": SHA})), described, {}, allow_unhashed=False)
    assert want.path == BLAKE_PATH


def test_a_document_that_contradicts_the_page_proves_nothing() -> None:
    described = document(sha256=OTHER, blake2b_256=BLAKE)
    (want,) = wanted_files(page(file(BLAKE_URL, {"sha256": SHA})), described, {}, allow_unhashed=False)
    assert want.path is None
    assert want.digests == {"sha256": SHA}


def test_an_unproven_path_is_kept_only_if_the_bytes_prove_it() -> None:
    (want,) = wanted_files(page(file(BLAKE_URL, {"sha256": SHA})), None, {}, allow_unhashed=False)
    assert want.path is None
    assert want.path_for({"sha256": SHA, "blake2b_256": BLAKE}) == BLAKE_PATH
    assert want.path_for({"sha256": SHA, "blake2b_256": OTHER}) == SHA_PATH


def test_an_opaque_url_leads_to_the_sha256() -> None:
    (want,) = wanted_files(page(file("http://127.0.0.1/x?id=1", {"sha256": SHA})), None, {}, allow_unhashed=False)
    assert want.path == SHA_PATH


def test_what_our_own_page_proved_before_is_known() -> None:
    held = {"one-1.0.tar.gz": Held(BLAKE_PATH, {"sha256": SHA}, 1, None, None)}
    (want,) = wanted_files(page(file(BLAKE_URL, {"sha256": SHA})), None, held, allow_unhashed=False)
    assert want.path == BLAKE_PATH


def test_other_bytes_under_the_name_we_have_are_not_taken_for_ours() -> None:
    held = {"one-1.0.tar.gz": Held(BLAKE_PATH, {"sha256": SHA}, 1, None, None)}
    (want,) = wanted_files(page(file(BLAKE_URL, {"sha256": OTHER})), None, held, allow_unhashed=False)
    assert want.path is None
    assert want.maybe == BLAKE_PATH


def test_without_any_hash_a_file_is_refused_unless_allowed() -> None:
    unhashed = page(file("http://127.0.0.1/x", {}))
    with pytest.raises(Refused, match="allow-unhashed"):
        wanted_files(unhashed, None, {}, allow_unhashed=False)
    (want,) = wanted_files(unhashed, None, {}, allow_unhashed=True)
    assert want.partial is None


def test_a_file_that_only_the_document_lists_is_wanted_but_not_listed() -> None:
    (want,) = wanted_files(page(), document(sha256=SHA, blake2b_256=BLAKE), {}, allow_unhashed=False)
    assert not want.listed
    assert want.path == BLAKE_PATH


@pytest.mark.parametrize("filename", ["../x", "a/b", "a\\b", "x\0y", "", "..", "x" * 300, "x.metadata", "index.html"])
def test_names_that_cannot_be_files_are_refused(filename: str) -> None:
    with pytest.raises(Refused):
        wanted_files(page(file(SHA_URL, {"sha256": SHA}, filename)), None, {}, allow_unhashed=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01.000002Z", 1_000_002_000),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01", 1_000_000_000),
        ("1969-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_upload_times(text: str | None, expected: int | None) -> None:
    assert nanoseconds(text) == expected


def test_provenance_lies_where_upstreams_url_says_by_version() -> None:
    url = "https://index.example/integrity/one/1.0/one-1.0.tar.gz/provenance"
    assert provenance_path(NAME, url, "one-1.0.tar.gz") == "web/integrity/one/1.0/one-1.0.tar.gz/provenance"
    hostile = "https://index.example/integrity/one/%2e%2e/one-1.0.tar.gz/provenance"
    with pytest.raises(Refused):
        provenance_path(NAME, hostile, "one-1.0.tar.gz")
