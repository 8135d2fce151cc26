"""``heliostat changes`` as a process: forms, exit codes, messages; paths are UTF-8 in any locale."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.wheels import wheel
from support.cli import command, environment, run
from support.mirrored import mirror_of, upload

ODD = "naïve-1.0.zip"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of one project, and its configuration."""
    home = tmp_path_factory.mktemp("changes")
    index = Index()
    index.publish("Al.pha", "1.0", [upload(wheel("Al.pha", "1.0"), day=1), UploadedFile(ODD, b"odd")])
    mirror_of(index, home / "pypi")
    (home / "heliostat.toml").write_text(
        '[mirror]\ndirectory = "pypi"\neverything = true\n[upstream]\nurl = "http://127.0.0.1:9"\nallow-http = true\n'
    )
    return home


def output(home: Path, *arguments: str, **environ: str) -> bytes:
    done = subprocess.run(
        command("changes", *arguments), cwd=home, env=environment(home, **environ), capture_output=True, check=True
    )
    assert done.stderr == b""
    return done.stdout


def test_text_is_a_line_a_row(home: Path) -> None:
    (line,) = output(home).decode().splitlines()
    assert line.split()[0] == "1"
    assert line.split()[3:5] == ["added", "al-pha"]


def test_json_is_the_rows_of_the_feed(home: Path) -> None:
    assert output(home, "--json") == (home / "pypi/web/changes/000000000001.jsonl").read_bytes()
    row = json.loads(output(home, "--json"))
    assert (row["number"], row["project"], row["display"], row["what"]) == (1, "al-pha", "Al.pha", "added")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_paths_for_rsync_are_bytes_on_disk_in_any_locale(home: Path, locale: str) -> None:
    paths = output(home, "--format", "rsync", "-0", LC_ALL=locale).split(b"\0")
    assert paths.pop() == b""
    assert all(
        (str(home / "pypi").encode() + b"/" + path).decode() and Path(home / "pypi" / path.decode()).exists()
        for path in paths
    )
    assert [path for path in paths if path.endswith(ODD.encode())]
    assert {b"status", b"web/changes/head", b"web/last-modified", b"web/simple/index.v1_json"} <= set(paths)
    assert len(paths) == len(set(paths))


def test_urls_are_quoted_and_pages_are_listed_by_their_directory_too(home: Path) -> None:
    urls = output(home, "--format", "urls", "--base-url", "https://pypi.example/").decode().splitlines()
    assert "https://pypi.example/simple/al-pha/" in urls
    assert "https://pypi.example/simple/" in urls
    assert [url for url in urls if url.endswith("/na%C3%AFve-1.0.zip")]


def test_nothing_changed_since_the_position(home: Path) -> None:
    position = output(home, "--position").decode().strip()
    assert output(home, "--since", position) == b""
    assert output(home, "--since", position, "--format", "urls") == b""
    assert output(home, "--since", position, "--format", "rsync", "--removed") == b""


def test_only_some_kinds(home: Path) -> None:
    assert output(home, "--what", "removed", "--what", "repaired") == b""
    assert output(home, "--what", "added") != b""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--since", "yesterday"], 2, "neither a serial nor a position"),
        (["--since", "99999999"], 3, "complete up to serial"),
        (["--since", "0" * 32 + ":1"], 3, "began anew since then; make a whole copy"),
        (["--removed"], 2, "--removed goes with --format rsync"),
    ],
)
def test_what_cannot_be_told_is_one_line_and_an_exit_code(
    home: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run("changes", *arguments, cwd=home)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--since", "1"], ["--format", "rsync", "-0"], ["--json"]])
def test_a_damaged_feed_is_one_line_and_what_to_do(home: Path, arguments: list[str]) -> None:
    segment = home / "pypi/web/changes/000000000001.jsonl"
    body = segment.read_bytes()
    try:
        segment.write_bytes(b"####" + body[4:])
        done = run("changes", *arguments, cwd=home)
    finally:
        segment.write_bytes(body)
    assert done.returncode == 6
    assert "not a row of a change feed" in done.stderr
    assert "heliostat verify --repair" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mirror_that_never_ran(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectory = "."\neverything = true\n')
    done = run("changes", cwd=tmp_path)
    assert done.returncode == 6
    assert "web/changes/head: no change feed there; has this mirror been run yet?" in done.stderr
