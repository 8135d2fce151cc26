"""The checker of mirrors is right about a right one, and sees every kind of damage."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile, Virtual
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from support.equality import differences, place
from support.mirrors import complete_pass, config_for

#: What a damage gets: the document root, and the index that the mirror is of.
Damage = Callable[[Path, Index], None]


def whole_index() -> Index:
    """A few projects that between them have everything that is compared."""
    index = Index()
    for version in ("1.0", "1.1"):
        built = [uploaded(make("alpha", version, requires_python=">=3.8")) for make in (wheel, sdist)]
        index.publish("alpha", version, built, requires_python=">=3.8")
    index.publish("Beta.Lib", "1.0", UploadedFile("beta (1)+'#%&;.zip", Virtual(100, 1)))
    signed = uploaded(wheel("signed", "1.0"))
    signed.provenance = provenance_for(signed)
    index.publish("signed", "1.0", signed)
    index.publish("late-metadata", "1.0", uploaded(wheel("late-metadata", "1.0"), sidecar=None))
    index.publish("late-metadata", "2.0", uploaded(wheel("late-metadata", "2.0")))
    index.yank("late-metadata", "2.0", "<bad>")
    index.create("no-release")
    index.publish("no-files", "1.0")
    index.publish("archived", "1.0", uploaded(wheel("archived", "1.0")))
    index.archive("archived")
    for name in ("twin-a", "twin-b"):
        index.publish(name, "1.0", UploadedFile("twin-1.0.zip", Virtual(200, 2)))
    index.publish("zeta", "1.0", uploaded(wheel("zeta", "1.0")))
    return index


def mirror_it(index: Index, directory: Path, options: Options | None = None, **settings: Any) -> None:
    """One complete pass of the real engine."""

    async def run() -> None:
        async with FakeIndex(index, options=options) as server:
            await complete_pass(config_for(directory, server, **settings))

    asyncio.run(run())


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Path]:
    """An index, and a complete mirror of it, made once."""
    index, directory = whole_index(), tmp_path_factory.mktemp("equality") / "mirror"
    mirror_it(index, directory)
    return index, directory


@pytest.fixture
def index(mirrored: tuple[Index, Path]) -> Index:
    """A copy of the index, to be changed."""
    return copy.deepcopy(mirrored[0])


@pytest.fixture
def mirror(mirrored: tuple[Index, Path], tmp_path: Path) -> Path:
    """A copy of the mirror, to be damaged."""
    subprocess.run(["cp", "-a", str(mirrored[1]), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def file_of(index: Index, name: str, number: int = 0) -> str:
    return place(index.expected_files(name)[number])


# -- ways to damage a tree -----------------------------------------------------------------------------------------


def keep_time(path: Path, change: Callable[[], object]) -> None:
    """Change a file's bytes, not its time."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def json_page(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the JSON page of a project (an empty name: the root)."""

    def damage(web: Path, index: Index) -> None:
        path = web / "simple" / name / "index.v1_json"
        page = json.loads(path.read_bytes())
        change(page)
        path.write_text(json.dumps(page, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")

    return damage


def first_file(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change keys of a page's first file; dashes for underscores."""
    return lambda page: page["files"][0].update({key.replace("_", "-"): value for key, value in changes.items()})


def html_page(name: str, old: str, new: str) -> Damage:
    """Replace text in the HTML page, which keeps its inode."""

    def damage(web: Path, index: Index) -> None:
        path = web / "simple" / name / "index.html"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def flipped(find: Callable[[Index], str]) -> Damage:
    def damage(web: Path, index: Index) -> None:
        path = web / find(index)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        keep_time(path, lambda: path.write_bytes(data))

    return damage


def cut(find: Callable[[Index], str]) -> Damage:
    def damage(web: Path, index: Index) -> None:
        path = web / find(index)
        keep_time(path, lambda: os.truncate(path, path.stat().st_size - 1))

    return damage


def gone(find: Callable[[Index], str]) -> Damage:
    return lambda web, index: (web / find(index)).unlink()


def added(find: Callable[[Index], str], data: bytes = b"x") -> Damage:
    def damage(web: Path, index: Index) -> None:
        path = web / find(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return damage


def two_inodes(name: str) -> Damage:
    def damage(web: Path, index: Index) -> None:
        path = web / "simple" / name / "index.v1_html"
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)

    return damage


def other_link(target: str | None) -> Damage:
    """A link that leads elsewhere, or (None) a copy in place of it."""

    def damage(web: Path, index: Index) -> None:
        path = web / "pypi/alpha/json"
        path.unlink()
        if target is None:
            shutil.copy(web / "json/alpha", path)
        else:
            path.symlink_to(target)

    return damage


def linked_page(web: Path, index: Index) -> None:
    path = web / "simple/alpha/index.v1_json"
    path.rename(web / "elsewhere")
    path.symlink_to(web / "elsewhere")


def other_time(web: Path, index: Index) -> None:
    path = web / file_of(index, "alpha")
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time + 1000))


def empty_directory(web: Path, index: Index) -> None:
    (web / "packages/aa/bb").mkdir(parents=True, exist_ok=True)
    (web / "packages/aa/bb/empty").mkdir()


def root_entry(display: str, **changes: Any) -> Damage:
    def change(root: dict[str, Any]) -> None:
        entry = next(entry for entry in root["projects"] if entry["name"] == display)
        entry.update({key.replace("last_serial", "_last-serial"): value for key, value in changes.items()})

    return json_page("", change)


def root_meta(key: str, value: object) -> Damage:
    return json_page("", lambda root: root["meta"].update({key: value}))


def at(text: str) -> Callable[[Index], str]:
    return lambda index: text


def provenance_of(index: Index) -> str:
    return f"integrity/signed/1.0/{index.expected_files('signed')[0].file.filename}/provenance"


def sidecar_of(index: Index) -> str:
    return file_of(index, "alpha") + ".metadata"


ALPHA_JSON = "web/simple/alpha/index.v1_json: "
ALPHA_HTML = "web/simple/alpha/index.html: "
LATE_HTML = "web/simple/late-metadata/index.html: "
ROOT_JSON = "web/simple/index.v1_json: "
ROOT_HTML = "web/simple/index.html: "

#: By name: how the tree is damaged, and how a line about it begins and what else it says.
DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "json name": (json_page("alpha", lambda page: page.update(name="beta")), ALPHA_JSON, "name is 'beta'"),
    "json serial": (json_page("alpha", lambda page: page["meta"].update({"_last-serial": 1})), ALPHA_JSON, "_last-serial is 1"),
    "json serial as text": (
        json_page("alpha", lambda page: page["meta"].update({"_last-serial": str(page["meta"]["_last-serial"])})),
        ALPHA_JSON, "_last-serial is '",
    ),
    "json version": (json_page("alpha", lambda page: page["meta"].update({"api-version": "1.0"})), ALPHA_JSON, "api-version"),
    "json status": (json_page("alpha", lambda page: page["project-status"].update(status="archived")), ALPHA_JSON, "project-status.status"),
    "json reason": (json_page("alpha", lambda page: page["project-status"].update(reason="x")), ALPHA_JSON, "reason is 'x', not missing"),
    "json versions": (json_page("alpha", lambda page: page["versions"].pop()), ALPHA_JSON, "versions"),
    "json file missing": (json_page("alpha", lambda page: page["files"].pop()), ALPHA_JSON, "files is"),
    "json file added": (json_page("alpha", lambda page: page["files"].append(page["files"][0])), ALPHA_JSON, "files is"),
    "json order": (json_page("alpha", lambda page: page["files"].reverse()), ALPHA_JSON, "files[0].filename"),
    "json filename": (json_page("alpha", first_file(filename="x.zip")), ALPHA_JSON, "files[0].filename"),
    "json url": (json_page("alpha", first_file(url="../../packages/x")), ALPHA_JSON, "files[0].url"),
    "json hash": (json_page("alpha", first_file(hashes={"sha256": "0" * 64})), ALPHA_JSON, "files[0].hashes.sha256"),
    "json more hashes": (json_page("alpha", lambda page: page["files"][0]["hashes"].update(md5="0")), ALPHA_JSON, "hashes.md5"),
    "json size": (json_page("alpha", first_file(size=1)), ALPHA_JSON, "files[0].size is 1"),
    "json time": (json_page("alpha", first_file(upload_time="2026-01-01T00:00:00Z")), ALPHA_JSON, "files[0].upload-time"),
    "json python": (json_page("alpha", first_file(requires_python=None)), ALPHA_JSON, "files[0].requires-python is None"),
    "json yanked": (json_page("alpha", first_file(yanked=True)), ALPHA_JSON, "files[0].yanked is True"),
    "json yanked as number": (json_page("alpha", first_file(yanked=0)), ALPHA_JSON, "files[0].yanked is 0"),
    "json metadata": (json_page("alpha", first_file(core_metadata=False)), ALPHA_JSON, "files[0].core-metadata"),
    "json old metadata": (json_page("alpha", first_file(dist_info_metadata=True)), ALPHA_JSON, "dist-info-metadata is True, not missing"),
    "json provenance": (json_page("alpha", first_file(provenance="https://x.invalid/")), ALPHA_JSON, "files[0].provenance"),
    "json cut": (cut(at("simple/alpha/index.v1_json")), ALPHA_JSON, "newline"),
    "json broken": (added(at("simple/alpha/index.v1_json"), b"{"), ALPHA_JSON, "not JSON"),
    "json gone": (gone(at("simple/alpha/index.v1_json")), ALPHA_JSON, "cannot be read"),
    "json linked": (linked_page, ALPHA_JSON, "is a link"),
    "html file missing": (html_page("alpha", "<a ", "<b "), ALPHA_HTML, "files is"),
    "html link": (html_page("alpha", 'href="../../packages/', 'href="../packages/'), ALPHA_HTML, "files[0].url"),
    "html hash": (html_page("alpha", "#sha256=", "#sha1="), ALPHA_HTML, ""),
    "html python": (html_page("alpha", "&gt;=3.8", "&gt;=3.9"), ALPHA_HTML, "files[0].requires_python"),
    "html metadata": (html_page("alpha", "data-core-metadata", "data-x"), ALPHA_HTML, ""),
    "html form": (html_page("alpha", "  <body>", " <body>"), ALPHA_HTML, "form"),
    "html yank": (html_page("late-metadata", 'data-yanked="&lt;bad&gt;"', ""), LATE_HTML, "files[1].yanked"),
    "html yank reason": (html_page("late-metadata", "&lt;bad&gt;", "&lt;good&gt;"), LATE_HTML, "files[1].yanked"),
    "html status": (html_page("archived", "archived", "active"), "web/simple/archived/index.html: ", "status"),
    "html serial": (html_page("alpha", "SERIAL ", "SERIAL 1"), ALPHA_HTML, "serial"),
    "html provenance": (html_page("signed", "data-provenance", "data-x"), "web/simple/signed/index.html: ", "provenance"),
    "html text for no files": (html_page("no-files", "<p>", "<b>"), "web/simple/no-files/index.html: ", "no files"),
    "html cut": (html_page("alpha", "</a><br />", "</a"), ALPHA_HTML, ""),
    "html gone": (gone(at("simple/alpha/index.html")), ALPHA_HTML, "cannot be read"),
    "html twin gone": (gone(at("simple/alpha/index.v1_html")), "web/simple/alpha: ", "both names"),
    "html two inodes": (two_inodes("alpha"), "web/simple/alpha: ", "two different files"),
    "document": (flipped(at("json/alpha")), "web/json/alpha: ", "other bytes"),
    "document gone": (gone(at("json/alpha")), "web/json/alpha: ", "cannot be read"),
    "document too many": (added(at("json/nobody")), "web/json/nobody: ", "referenced by nothing"),
    "document of a project without release": (added(at("json/no-release")), "web/json/no-release: ", "referenced by nothing"),
    "link gone": (gone(at("pypi/alpha/json")), "web/pypi/alpha/json: ", "not a link"),
    "link to elsewhere": (other_link("../../json/zeta"), "web/pypi/alpha/json: ", "leads to"),
    "link absolute": (other_link("/json/alpha"), "web/pypi/alpha/json: ", "leads to"),
    "copy in place of the link": (other_link(None), "web/pypi/alpha/json: ", "not a link"),
    "link too many": (added(at("pypi/nobody/json")), "web/pypi/nobody/json: ", "referenced by nothing"),
    "file": (flipped(lambda index: file_of(index, "alpha")), "web/packages/", "other bytes"),
    "file cut": (cut(lambda index: file_of(index, "alpha")), "web/packages/", "other bytes"),
    "file gone": (gone(lambda index: file_of(index, "alpha")), "web/packages/", "cannot be read"),
    "file with an odd name gone": (gone(lambda index: file_of(index, "beta-lib")), "web/packages/", "cannot be read"),
    "file too many": (added(at("packages/aa/bb/cc/x.zip")), "web/packages/aa/bb/cc/x.zip: ", "referenced by nothing"),
    "time": (other_time, "web/packages/", "upload time"),
    "empty directory": (empty_directory, "web/packages/aa/bb/empty/: ", "referenced by nothing"),
    "sidecar": (flipped(sidecar_of), "web/packages/", "other bytes"),
    "sidecar gone": (gone(sidecar_of), "web/packages/", "cannot be read"),
    "sidecar too many": (added(lambda index: file_of(index, "beta-lib") + ".metadata"), "web/packages/", "by nothing"),
    "provenance": (flipped(provenance_of), "web/integrity/", "other bytes"),
    "provenance gone": (gone(provenance_of), "web/integrity/", "cannot be read"),
    "provenance too many": (added(at("integrity/alpha/1.0/x/provenance")), "web/integrity/alpha/", "by nothing"),
    "root json entry gone": (json_page("", lambda root: root["projects"].pop(3)), ROOT_JSON, "does not list"),
    "root json entry too many": (json_page("", lambda root: root["projects"].append({"name": "zzz"})), ROOT_JSON, "lists zzz"),
    "root json entry twice": (json_page("", lambda root: root["projects"].append(root["projects"][-1])), ROOT_JSON, "twice"),
    "root json order": (json_page("", lambda root: root["projects"].reverse()), ROOT_JSON, "order"),
    "root json serial": (root_entry("alpha", last_serial=5), ROOT_JSON, "alpha: serial 5"),
    "root json serial as text": (root_entry("alpha", last_serial="5"), ROOT_JSON, "alpha: serial '5'"),
    "root json display": (root_entry("Beta.Lib", name="beta-lib"), ROOT_JSON, "lists beta-lib"),
    "root json too old": (root_meta("_last-serial", 1), ROOT_JSON, "meta is"),
    "root json too new": (root_meta("_last-serial", 99_999_999), ROOT_JSON, "meta is"),
    "root json version": (root_meta("api-version", "1.0"), ROOT_JSON, "meta is"),
    "root json gone": (gone(at("simple/index.v1_json")), ROOT_JSON, "cannot be read"),
    "root html entry gone": (html_page("", '<a href="alpha/">alpha</a>', ""), ROOT_HTML, "does not list alpha"),
    "root html entry too many": (html_page("", "</body>", '<a href="x/">x</a></body>'), ROOT_HTML, "lists x as x/"),
    "root html entry twice": (
        html_page("", "</body>", '<a href="alpha/">alpha</a></body>'), ROOT_HTML, "lists a project twice",
    ),
    "root html display": (html_page("", ">Beta.Lib<", ">beta-lib<"), ROOT_HTML, "does not list Beta.Lib"),
    "root html link": (html_page("", '"alpha/"', '"/simple/alpha/"'), ROOT_HTML, "does not list alpha"),
    "root html two inodes": (two_inodes(""), "web/simple: ", "two different files"),
    "page too many": (added(at("simple/nobody/index.html")), "web/simple/nobody/index.html: ", "by nothing"),
    "temporary beside a page": (added(at("simple/alpha/.tmp")), "web/simple/alpha/.tmp: ", "by nothing"),
    "anything": (added(at("robots.txt")), "web/robots.txt: ", "referenced by nothing"),
    "stamp": (added(at("last-modified"), b"today\n"), "web/last-modified: ", "is b'today"),
    "stamp gone": (gone(at("last-modified")), "web/last-modified: ", "cannot be read"),
    "partial": (added(at("../partial/sha256-00.part")), "partial/sha256-00.part: ", "left over"),
    "withheld": (added(at("../withheld/packages/aa/bb/cc/x.zip")), "withheld/packages/aa/bb/cc/x.zip: ", "quarantined"),
}  # fmt: skip


def test_a_right_mirror_is_equal(mirrored: tuple[Index, Path]) -> None:
    assert differences(*mirrored) == []
    assert differences(mirrored[1], mirrored[0]) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_seen(name: str, mirror: Path, index: Index) -> None:
    damage, beginning, said = DAMAGES[name]
    damage(mirror / "web", index)
    found = differences(index, mirror)
    assert any(line.startswith(beginning) and said in line for line in found), found
    assert all(len(line.splitlines()) == 1 for line in found)


#: What upstream may do that the mirror has not followed, and how a line about it begins.
MOVES: dict[str, tuple[Callable[[Index], object], str]] = {
    "a new project": (lambda index: index.publish("new", "1.0"), "web/simple/new"),
    "a new release": (lambda index: index.publish("alpha", "2.0"), "web/json/alpha"),
    "a new file": (lambda index: index.publish("alpha", "1.1", UploadedFile("a.zip", b"a")), "web/packages/"),
    "a removed project": (lambda index: index.remove_project("zeta"), "web/simple/zeta/index.html"),
    "a removed file": (lambda index: index.release_files("signed", "1.0"), "web/packages/"),
    "a yank": (lambda index: index.yank("alpha", "1.0", "x"), "web/simple/alpha/index.v1_json: files[0].yanked"),
    "a serial": (lambda index: index.touch("alpha"), "web/simple/index.v1_json: alpha: serial"),
    "a quarantine": (lambda index: index.quarantine("alpha"), "web/packages/"),
    "another spelling": (lambda index: index.recase("alpha", "ALPHA"), "web/simple/index.v1_json: does not list ALPHA"),
    "an archived project": (lambda index: index.archive("alpha"), "web/simple/alpha/index.v1_json: project-status"),
    "a vulnerability": (lambda index: index.set_vulnerabilities("alpha", "1.1", [{"id": "X"}]), "web/json/alpha"),
    "a late sidecar": (
        lambda index: index.add_late_sidecar("late-metadata", "1.0", "late_metadata-1.0-py3-none-any.whl", b"M"),
        "web/simple/late-metadata/index.v1_json: files[0].core-metadata",
    ),
    "another provenance object": (
        lambda index: index.set_provenance(
            "signed", "1.0", "signed-1.0-py3-none-any.whl", {"version": 1, "attestation_bundles": []}
        ),
        "web/integrity/signed",
    ),
    "a document that went": (lambda index: index.remove_release("no-files", "1.0"), "web/json/no-files"),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_upstream_did_since_is_seen(name: str, mirrored: tuple[Index, Path], index: Index) -> None:
    move, beginning = MOVES[name]
    move(index)
    found = differences(index, mirrored[1])
    assert any(line.startswith(beginning) for line in found), found


# -- what may be excused -------------------------------------------------------------------------------------------


def test_a_project_that_is_owed_is_excused_and_no_other(mirror: Path, index: Index) -> None:
    index.publish("alpha", "2.0", uploaded(wheel("alpha", "2.0")))
    added(at("packages/aa/bb/cc/alpha-2.0-py3-none-any.whl"))(mirror / "web", index)
    added(at("../partial/sha256-00.part"))(mirror / "web", index)
    assert differences(index, mirror) != []
    assert differences(index, mirror, owed=["alpha"]) == []
    added(at("packages/aa/bb/cc/zeta-2.0-py3-none-any.whl"))(mirror / "web", index)
    assert len(differences(index, mirror, owed=["alpha"])) == 1
    added(at("../partial/rest.tmp"))(mirror / "web", index)
    assert len(differences(index, mirror, owed=["alpha"])) == 2


def test_a_new_project_that_is_owed_may_be_missing(mirrored: tuple[Index, Path], index: Index) -> None:
    index.publish("new", "1.0", uploaded(wheel("new", "1.0")))
    assert differences(index, mirrored[1], owed=["new"]) == []


def test_a_removed_project_that_is_owed_may_still_be_there(mirrored: tuple[Index, Path], index: Index) -> None:
    index.remove_project("zeta")
    assert differences(index, mirrored[1], owed=["zeta"]) == []


def test_other_things_may_be_there_when_they_are_named(mirror: Path, index: Index) -> None:
    added(at("local-stats/days/x"))(mirror / "web", index)
    assert len(differences(index, mirror)) == 1
    assert differences(index, mirror, also=["local-stats/*"]) == []


def test_a_mirror_of_some_projects(tmp_path: Path) -> None:
    index = whole_index()

    mirror_it(index, tmp_path / "m", projects=("alpha", "signed"))
    assert differences(index, tmp_path / "m", only=["alpha", "signed"]) == []
    assert differences(index, tmp_path / "m") != []
    assert differences(index, tmp_path / "m", only=["alpha"]) != []


def test_quarantined_files_may_be_withheld_with_their_own_bytes(mirror: Path, index: Index) -> None:
    index.quarantine("alpha")
    path = mirror / "web" / file_of(whole_index(), "alpha")
    target = mirror / "withheld" / file_of(whole_index(), "alpha")
    target.parent.mkdir(parents=True)
    path.rename(target)
    about = [line for line in differences(index, mirror) if line.startswith("withheld/")]
    assert about == []
    target.write_bytes(b"other")
    about = [line for line in differences(index, mirror) if line.startswith("withheld/")]
    assert len(about) == 1


def test_a_shared_file_may_have_either_time(mirror: Path, index: Index) -> None:
    path = mirror / "web" / file_of(index, "twin-a")
    assert file_of(index, "twin-a") == file_of(index, "twin-b")
    for name in ("twin-a", "twin-b"):
        moment = index.expected_files(name)[0].file.upload_time
        seconds, micro = moment[:19], int(moment[20:26])
        stamp = subprocess.run(["date", "-u", "-d", f"{seconds}Z", "+%s"], capture_output=True, text=True, check=True)
        time = int(stamp.stdout) * 1_000_000_000 + micro * 1000
        os.utime(path, ns=(time, time))
        assert differences(index, mirror) == []


def test_upstreams_that_say_less(tmp_path: Path) -> None:
    index = Index()
    odd = UploadedFile("demo-1.0.zip", Virtual(300, 1), hashes="md5", path_form="/elsewhere/7/demo-1.0.zip")
    plain = uploaded(wheel("demo", "1.0"), path_form="sha256")
    plain.provenance = provenance_for(plain)
    index.publish("demo", "1.0", [odd, plain], requires_python=">=3.8")

    mirror_it(index, tmp_path / "whole")
    assert differences(index, tmp_path / "whole") == []
    mirror_it(index, tmp_path / "simple", Options(documents=False))
    assert differences(index, tmp_path / "simple", documents=False) == []
    assert differences(index, tmp_path / "simple") != []
    mirror_it(index, tmp_path / "bare", provenance=False)
    assert differences(index, tmp_path / "bare", provenance=False) == []
    assert differences(index, tmp_path / "bare") != []
