"""The fake index's model: what every operation writes into the journal, and what is expected of a mirror after it."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import xmlrpc.client
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.fakeindex import Index, Literal, UploadedFile, Virtual, render
from heliostat.fakeindex.recorded import from_recorded
from heliostat.fakeindex.root import RootList
from heliostat.fakeindex.synthetic import Synthetic, many_projects, provenance_for, small_index, uploaded
from heliostat.fakeindex.wheels import wheel
from heliostat.model import Event
from support.recording import write_recording


def said(index: Index, since: int = 0) -> list[tuple[str, str | None, str]]:
    return [(row.display, row.version, row.action) for row in index.rows(since)]


def sample() -> Index:
    index = Index(serial=100)
    files = [
        UploadedFile("Demo-1.0.tar.gz", b"sdist"),
        UploadedFile("demo-1.0-py3-none-any.whl", b"wheel", sidecar=b"M"),
    ]
    index.publish("Demo", "1.0", files)
    return index


# -- the journal ---------------------------------------------------------------------------------------------------


def test_a_first_upload_writes_the_rows_that_the_public_index_writes() -> None:
    index = sample()
    assert said(index) == [
        ("Demo", None, "create"),
        ("Demo", None, "add Owner alice"),
        ("Demo", "1.0", "new release"),
        ("Demo", "1.0", "add source file Demo-1.0.tar.gz"),
        ("Demo", "1.0", "add py3 file demo-1.0-py3-none-any.whl"),
    ]
    assert [row.serial for row in index.rows()] == [101, 102, 103, 104, 105]
    assert index.serial == index["demo"].last_serial == 105
    assert [row.time for row in index.rows()] == sorted({row.time for row in index.rows()})


@pytest.mark.parametrize(
    ("operation", "arguments", "version", "action"),
    [
        ("yank", ("1.0", "why"), "1.0", "yank release"),
        ("unyank", ("1.0",), "1.0", "unyank release"),
        ("remove_release", ("1.0",), "1.0", "remove release"),
        ("remove_file", ("1.0", "Demo-1.0.tar.gz"), "1.0", "remove file Demo-1.0.tar.gz"),
        ("remove_project", (), None, "remove project"),
        ("quarantine", (), None, "project quarantined"),
        ("clear_quarantine", (), None, "project quarantine cleared"),
        ("quarantine_release", ("1.0",), "1.0", "release quarantined"),
        ("clear_release_quarantine", ("1.0",), "1.0", "release quarantine cleared"),
        ("touch", (), None, "add Maintainer bob"),
    ],
)
def test_each_operation_writes_its_row(
    operation: str, arguments: tuple[str, ...], version: str | None, action: str
) -> None:
    index = sample()
    getattr(index, operation)("demo", *arguments)
    assert said(index, 105) == [("Demo", version, action)]
    assert index.serial == 106
    if operation != "remove_project":
        assert index["demo"].last_serial == 106


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("recase", ("demo", "DEMO")),
        ("archive", ("demo",)),
        ("unarchive", ("demo",)),
        ("set_provenance", ("demo", "1.0", "Demo-1.0.tar.gz", {"version": 1})),
        ("add_late_sidecar", ("demo", "1.0", "Demo-1.0.tar.gz", b"Metadata-Version: 2.2\n")),
        ("set_vulnerabilities", ("demo", "1.0", [{"id": "X"}])),
    ],
)
def test_some_changes_have_no_serial(operation: str, arguments: tuple[object, ...]) -> None:
    index = sample()
    index.archive("demo") if operation == "unarchive" else None
    before = index["demo"].revision
    getattr(index, operation)(*arguments)
    assert (index.serial, index["demo"].last_serial) == (105, 105)
    assert index["demo"].revision > before


def test_a_legacy_renaming_renames_the_old_rows() -> None:
    index = sample()
    index.rename("demo", "Other.Name")
    assert {row.display for row in index.rows()} == {"Other.Name"}
    assert said(index, 105) == [("Other.Name", None, "rename from Demo")]
    assert "demo" not in index
    assert index["other-name"].display == "Other.Name"
    assert list(index.projects()) == ["other-name"]


def test_a_held_serial_stays_below_its_rows() -> None:
    index = sample()
    index.hold_serial("demo")
    assert index.touch("demo") == index.serial == 106
    assert index["demo"].last_serial == 105
    index.hold_serial("demo", held=False)
    assert index["demo"].last_serial == 106


def test_serials_may_have_gaps_and_rows_without_a_project() -> None:
    index = sample()
    index.skip_serials(10)
    assert index.journal_row("", "", "keyrotate ") == 116
    assert index.rows(105) == [Event("", "", index.now, "keyrotate ", 116)]


def test_rows_are_capped_from_the_oldest_on() -> None:
    index = sample()
    assert [row.serial for row in index.rows(101, 2)] == [102, 103]


def test_unknown_names_and_files_raise() -> None:
    index = sample()
    for call in (
        lambda: index.yank("other", "1.0"),
        lambda: index.yank("demo", "2.0"),
        lambda: index.remove_file("demo", "1.0", "x"),
        lambda: index["other"],
    ):
        with pytest.raises(KeyError):
            call()
    with pytest.raises(ValueError, match="exists"):
        index.create("DEMO")


# -- what a mirror must hold ---------------------------------------------------------------------------------------


def test_the_expected_page_follows_what_happened() -> None:
    index = sample()
    index.yank("demo", "1.0", "broken")
    index.publish("demo", "2.0", UploadedFile("demo-2.0.tar.gz", b"new"), requires_python=">=3.9")
    index.publish("demo", "10.0", UploadedFile("demo-10.0.tar.gz", b"newest"))
    page = index.expected_page("demo")
    assert page is not None
    assert [file.filename for file in page.files] == [
        "Demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl", "demo-2.0.tar.gz", "demo-10.0.tar.gz",
    ]  # fmt: skip
    assert [file.yanked for file in page.files] == ["broken", "broken", False, False]
    assert page.versions == ("1.0", "2.0", "10.0")
    assert page.files[1].core_metadata == {"sha256": hashlib.sha256(b"M").hexdigest()}
    assert page.files[2].requires_python == ">=3.9"
    assert page.serial == index.serial
    index.unyank("demo", "1.0")
    assert {file.yanked for file in index.expected_page("demo").files} == {False}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("state", "page_files", "document", "listed"),
    [
        ("live", 1, True, True),
        ("created", 0, False, True),
        ("no files", 0, True, True),
        ("quarantined", 0, False, False),
        ("archived", 1, True, True),
        ("release quarantined", 1, True, True),
        ("all releases quarantined", 0, False, True),
    ],
)
def test_the_states_of_a_project(state: str, page_files: int, document: bool, listed: bool) -> None:
    index = Index()
    if state == "created":
        index.create("demo")
    else:
        index.publish("demo", "1.0", UploadedFile("demo-1.0.zip", b"1"))
    if state == "no files":
        index.release_files("demo", "1.0")
    elif state == "quarantined":
        index.quarantine("demo")
    elif state == "archived":
        index.archive("demo")
    elif state == "release quarantined":
        index.publish("demo", "2.0", UploadedFile("demo-2.0.zip", b"2"))
        index.quarantine_release("demo", "2.0")
    elif state == "all releases quarantined":
        index.quarantine_release("demo", "1.0")
    page = index.expected_page("demo")
    assert page is not None
    assert len(page.files) == len(index.expected_files("demo")) == page_files
    assert (index.document_bytes("demo") is not None) is document
    names = [entry["name"] for entry in json.loads(RootList(index).json())["projects"]]
    assert names == (["demo"] if listed else [])
    assert list(index.projects()) == ["demo"]


def test_a_document_has_every_documented_key_in_sorted_compact_form() -> None:
    index = sample()
    body = index.document_bytes("demo")
    assert body is not None
    document = json.loads(body)
    assert body == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    assert set(document) == {"info", "last_serial", "ownership", "releases", "urls", "vulnerabilities"}
    assert set(document["info"]) == {
        "author", "author_email", "bugtrack_url", "classifiers", "description", "description_content_type", "docs_url",
        "download_url", "downloads", "dynamic", "home_page", "keywords", "license", "license_expression",
        "license_files", "maintainer", "maintainer_email", "name", "package_url", "platform", "project_url",
        "project_urls", "provides_extra", "release_url", "requires_dist", "requires_python", "summary", "version",
        "yanked", "yanked_reason",
    }  # fmt: skip
    file = document["releases"]["1.0"][0]
    assert set(file) == {
        "comment_text", "core-metadata", "digests", "downloads", "filename", "has_sig", "md5_digest", "packagetype",
        "python_version", "requires_python", "size", "upload_time", "upload_time_iso_8601", "url", "yanked",
        "yanked_reason",
    }  # fmt: skip
    assert set(file["digests"]) == {"md5", "sha256", "blake2b_256"}


def test_the_document_describes_the_version_that_the_public_index_would_choose() -> None:
    index = Index()
    for version in ("1.0", "1.1", "2.0", "3.0rc1", "unknown"):
        index.publish("demo", version, UploadedFile(f"demo-{version}.zip", version.encode()))
    index.yank("demo", "2.0")
    document = json.loads(index.document_bytes("demo") or b"")
    assert document["info"]["version"] == "1.1"
    assert [file["filename"] for file in document["urls"]] == ["demo-1.1.zip"]
    for version in ("1.0", "1.1", "unknown"):
        index.remove_release("demo", version)
    assert json.loads(index.document_bytes("demo") or b"")["info"]["version"] == "3.0rc1"


def test_files_of_a_document_are_in_the_databases_order_and_those_of_a_page_by_code_point() -> None:
    index = Index()
    names = ["hippounit-1.3.2-py2-none-any.whl", "hippounit-1.3.2-py2.7.egg"]
    index.publish("hippounit", "1.3.2", [UploadedFile(name, name.encode()) for name in names])
    document = json.loads(index.document_bytes("hippounit") or b"")
    assert [file["filename"] for file in document["urls"]] == names[::-1]
    assert [one.file.filename for one in index.expected_files("hippounit")] == names


@pytest.mark.parametrize(
    ("hashes", "on_page", "in_document"),
    [
        ("all", {"sha256"}, {"md5", "sha256", "blake2b_256"}),
        ("sha256", {"sha256"}, {"sha256"}),
        ("md5", {"md5"}, {"md5"}),
        ("none", set(), set()),
    ],
)
def test_which_hashes_are_given_can_be_chosen(hashes: str, on_page: set[str], in_document: set[str]) -> None:
    index = Index()
    index.publish("demo", "1", UploadedFile("demo-1.zip", b"x", hashes=hashes))  # type: ignore[arg-type]
    page = index.expected_page("demo")
    assert page is not None
    assert set(page.files[0].hashes) == on_page
    document = json.loads(index.document_bytes("demo") or b"")
    assert set(document["urls"][0]["digests"]) == in_document


def test_the_form_of_urls_can_be_chosen() -> None:
    data = b"content"
    blake = hashlib.blake2b(data, digest_size=32).hexdigest()
    sha = hashlib.sha256(data).hexdigest()
    for form, path in (
        ("blake2b", f"/packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/a%20b%23%25.zip"),
        ("sha256", f"/packages/{sha[:2]}/{sha[2:4]}/{sha[4:]}/a%20b%23%25.zip"),
        ("/opaque/7/a%20b.zip", "/opaque/7/a%20b.zip"),
    ):
        index = Index()
        file = UploadedFile("a b#%.zip", data, path_form=form)
        index.publish("demo", "1", file)
        assert file.path == path
        assert index.file_at(path) is file


def test_deleted_files_stay_reachable_by_their_path() -> None:
    index = sample()
    file = index.expected_files("demo")[0].file
    index.remove_project("demo")
    assert index.file_at(file.path) is file


# -- contents ------------------------------------------------------------------------------------------------------


@given(size=st.integers(0, 300_000), seed=st.integers(0, 2**40), cuts=st.lists(st.integers(0, 300_000), max_size=4))
def test_a_virtual_content_is_the_same_in_whatever_parts_it_is_read(size: int, seed: int, cuts: list[int]) -> None:
    content = Virtual(size, seed)
    whole = content.read(0, size) if size else b""
    bounds = sorted({0, size, *(cut for cut in cuts if cut <= size)})
    assert b"".join(content.read(start, stop) for start, stop in itertools.pairwise(bounds)) == whole
    assert len(whole) == size
    assert content.digests == Literal(whole).digests
    assert b"".join(content.chunks(step=70_001)) == whole


def test_virtual_contents_differ_by_seed_and_a_huge_one_needs_no_memory() -> None:
    assert Virtual(100, 1).read(0, 100) != Virtual(100, 2).read(0, 100)
    long = Virtual(1 << 20, 5)
    assert len({long.read(at, at + 100) for at in range(0, 1 << 20, 1 << 16)}) == 16
    huge = Virtual(2 << 40, 5)
    assert len(huge.read((2 << 40) - 10, 2 << 40)) == 10


# -- bulks ---------------------------------------------------------------------------------------------------------


def test_long_tailed_descriptions_are_mostly_short_and_as_long_on_average() -> None:
    lengths = []
    for long_tail in (False, True):
        index = many_projects(2000, 1, 0, 100, description=10_000, long_tail=long_tail)
        lengths.append(sorted(len(index.document_bytes(name) or b"") for name in index.projects()))
    even, tailed = lengths
    assert abs(sum(tailed) / sum(even) - 1) < 0.1
    assert tailed[1000] < even[1000] * 0.7
    assert tailed[-1] > even[-1] * 4


@pytest.mark.parametrize(("files", "sidecars"), [(5, 3), (2, None), (0, None), (1, 0), (1, 1), (4, 1)])
def test_a_bulk_behaves_like_published_projects(files: int, sidecars: int | None) -> None:
    index = many_projects(30, files, sidecars, 100, description=10)
    assert len(index) == 30
    serials = [row.serial for row in index.rows()]
    assert serials == list(range(1001, 1001 + len(serials)))
    assert index.serial == serials[-1]
    for name, display, serial, quarantined in index.entries():
        rows = [row for row in index.rows() if row.display == display]
        assert (serial, quarantined) == (rows[-1].serial, False) == (index[name].last_serial, False)
        uploads = {row.action.partition(" file ")[2] for row in rows if " file " in row.action}
        assert uploads == {one.file.filename for one in index.expected_files(name)}
    first = index.expected_files("project-0000007")
    assert sum(one.file.sidecar is not None for one in first) == (min(3, files) if sidecars is None else sidecars)
    assert len(first) == files
    for one in first:
        found = index.file_at(one.file.path)
        assert found is not None
        assert found.content.digests == one.file.content.digests


@pytest.mark.parametrize("wrong", [(3, 2, 3), (3, -1, -1), (3, 2, -1), (-1, 2, 1), (3, 2, 1, -5)])
def test_a_bulk_that_cannot_be_is_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sidecars"):
        many_projects(*wrong)


def test_a_project_of_a_bulk_can_change_and_go() -> None:
    index = many_projects(5, 2, 1, 50)
    path = index.expected_files("project-0000003")[0].file.path
    index.yank("project-0000003", "1.0", "x")
    assert index["project-0000003"].last_serial == index.serial
    index.remove_project("project-0000003")
    assert "project-0000003" not in index
    assert list(index.projects()) == [f"project-{number:07}" for number in (0, 1, 2, 4)]
    assert len(index) == 4
    assert index.file_at(path) is not None
    index.publish("middle", "1", UploadedFile("m-1.zip", b"m"))
    index.publish("project-0000001x", "1", UploadedFile("x-1.zip", b"x"))
    assert list(index.projects()) == [
        "middle", "project-0000000", "project-0000001", "project-0000001x", "project-0000002", "project-0000004",
    ]  # fmt: skip


def test_time_goes_on_after_a_bulk() -> None:
    index = many_projects(5)
    index.touch("project-0000001")
    times = [row.time for row in index.rows()]
    assert times == sorted(times)


def test_a_bulk_is_the_same_whenever_it_is_made_up() -> None:
    first, second = many_projects(3, seed=4), many_projects(3, seed=4)
    assert first.document_bytes("project-0000002") == second.document_bytes("project-0000002")
    assert first.document_bytes("project-0000002") != many_projects(3, seed=5).document_bytes("project-0000002")


def test_sizes_of_a_bulk_are_as_asked_on_average() -> None:
    bulk = Synthetic(2000, 5, 3, 20_000)
    sizes = [file.size for number in range(0, 2000, 7) for _, file in bulk.project(number).offered()]
    assert 0.95 < sum(sizes) / len(sizes) / 20_000 < 1.05
    assert max(sizes) > 1.5 * 20_000
    assert min(sizes) < 0.5 * 20_000


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["publish", "remove", "quarantine", "clear"])), max_size=25)
)
def test_the_root_list_never_differs_from_a_fresh_one(steps: list[tuple[int, str]]) -> None:
    index = many_projects(6, 1, 1, 10)
    kept = RootList(index)
    for number, what in steps:
        name = f"project-{number:07}"
        if what == "publish":
            index.publish(name, "9.0")
        elif name in index and what != "publish":
            {"remove": index.remove_project, "quarantine": index.quarantine, "clear": index.clear_quarantine}[what](
                name
            )
        assert (kept.json(), kept.html()) == (RootList(index).json(), RootList(index).html())


def test_the_root_list_is_divided_and_still_whole() -> None:
    index = many_projects(4_500, 1, 1, 10)
    kept = RootList(index)
    names = [entry["name"] for entry in json.loads(kept.json())["projects"]]
    assert names == [f"project-{number:07}" for number in range(4_500)]
    index.remove_project("project-0002000")
    index.publish("a-first", "1")
    again = [entry["name"] for entry in json.loads(kept.json())["projects"]]
    assert again == ["a-first", *(name for name in names if name != "project-0002000")]


# -- ready-made indexes --------------------------------------------------------------------------------------------


def test_the_small_index_is_always_the_same() -> None:
    first, second = small_index(), small_index()
    assert list(first.projects()) == list(second.projects())
    assert [first.document_bytes(name) for name in first.projects()] == [
        second.document_bytes(name) for name in second.projects()
    ]
    assert first.rows() == second.rows()
    assert first["came-back"].display == "Came_Back"
    assert "gone" not in first


def test_provenance_names_the_file_it_is_for() -> None:
    file = uploaded(wheel("demo", "1.0"))
    envelope = provenance_for(file)["attestation_bundles"][0]["attestations"][0]["envelope"]
    assert set(envelope) == {"statement", "signature"}


def test_an_index_is_made_of_recordings(tmp_path: os.PathLike[str]) -> None:
    data = write_recording(os.fspath(tmp_path))
    index = from_recorded(os.fspath(tmp_path))
    project = index["rec"]
    assert list(project.releases) == ["0.1", "1.0", "2.0", "2.1"]
    assert (project.display, project.status) == ("Rec", "archived")
    real, virtual, from_page = (one.file for one in index.expected_files("rec"))
    assert real.content.read(0, 100) == data
    assert real.path == "/packages/aa/bb/cc/Rec-1.0.tar.gz"
    assert (real.upload_time, real.size) == ("2020-01-02T03:04:05Z", len(data))
    assert (virtual.filename, virtual.size) == ("Rec-2.0.zip", 77)
    assert from_page.sidecar == b"META"
    assert from_page.provenance is not None
    document = json.loads(index.document_bytes("rec") or b"")
    assert document["info"]["summary"] == "s"
    assert document["releases"]["1.0"][0]["yanked_reason"] == "old"
    omitted = from_recorded(os.fspath(tmp_path), missing="omit")
    assert [one.file.filename for one in omitted.expected_files("rec")] == ["Rec-1.0.tar.gz"]
    wrong = from_recorded(os.fspath(tmp_path), missing="omit", wrong_sizes=True)
    assert wrong.expected_files("rec")[0].file.size == 5


# -- XML -----------------------------------------------------------------------------------------------------------


def test_xml_is_what_the_standard_library_would_write() -> None:
    rows = [Event("demo", None, 5, "create", 1), Event("demo", "1<&>", 6, "add py3 file x.whl", 2)]
    expected = xmlrpc.client.dumps(
        ([[row.display, row.version, row.time, row.action, row.serial] for row in rows],),
        methodresponse=True,
        allow_none=True,
    )
    ours = render.xml_answer(render.xml_rows(rows)).decode()
    assert ours.replace("\n", "") == expected.replace("\n", "")
    serials = render.xml_answer(render.xml_serials(iter([("a", 1), ("b&", 2)]))).decode()
    assert xmlrpc.client.loads(serials)[0] == ({"a": 1, "b&": 2},)
    fault = render.xml_fault(-32602, "a < b").decode()
    expected = xmlrpc.client.dumps(xmlrpc.client.Fault(-32602, "a < b"), methodresponse=True)
    assert fault.replace("\n", "") == expected.replace("\n", "")


def test_the_action_is_escaped_twice_and_forbidden_characters_go() -> None:
    rows = [Event("demo", "1", 5, "add py3 file ö\x01 & x.whl", 1)]
    parsed = xmlrpc.client.loads(render.xml_answer(render.xml_rows(rows)))[0][0]
    assert parsed[0][3] == "add py3 file &#246; & x.whl"  # type: ignore[index]


def test_wheels_that_are_archives_hold_their_metadata() -> None:
    index = many_projects(3, 5, 3, 1000, archives=True)
    project = index.get("project-0000001")
    assert project is not None
    for release in project.releases.values():
        for file in release.files:
            content = file.content
            whole = content.read(0, content.size)
            assert len(whole) == content.size == sum(map(len, content.chunks(step=100)))
            assert b"".join(content.chunks(step=77)) == whole
            if file.sidecar is not None:
                with zipfile.ZipFile(io.BytesIO(whole)) as archive:
                    (name,) = archive.namelist()
                    assert name.endswith(".dist-info/METADATA")
                    assert archive.read(name) == file.sidecar
                    assert archive.testzip() is None
