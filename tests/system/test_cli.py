"""The command line as a real process, as far as it goes without a mirror."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import heliostat
from heliostat.config.load import load_config
from support.cli import command, environment, run
from support.unprivileged import give_to_ordinary_user

MINIMAL = '[mirror]\ndirectory = "pypi"\n'
EXAMPLE = Path(heliostat.__file__).parent / "cli" / "example.toml"
COMMANDS = ("mirror", "status", "config", "rebuild", "serve", "demo")


def test_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"heliostat {heliostat.__version__}\n", "")


def loaded_modules(tmp_path: Path, *arguments: str) -> set[str]:
    """The modules that a command line leaves loaded."""
    script = f"import sys\nfrom heliostat.cli.main import main\nmain({list(arguments)!r})\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"aiohttp", "asyncio", "msgspec", "rich", "sqlite3", "uvloop", "aiofiles", "packaging", "defusedxml"}


def test_version_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded_modules(tmp_path, "--version") & (
        HEAVY | {"tomllib", "json.decoder", "importlib.resources"} - {"json.decoder"}
    )


def test_checking_a_configuration_loads_no_network_and_no_database(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    assert not loaded_modules(tmp_path, "config", "check") & {"aiohttp", "asyncio", "rich", "sqlite3", "uvloop"}


def test_help_names_every_command_and_each_has_help(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    for name in COMMANDS:
        assert f"\n  {name}  " in text
        done = run(name, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert "--config PATH" in done.stdout


def test_a_bare_call_is_a_usage_error_that_shows_the_help(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["miror"], "Did you mean 'mirror'?"),
        (["mirror", "--onse"], "--once"),
        (["mirror", "--allow-removals", "many"], "not a valid integer"),
        (["config", "chekc"], "chekc"),
        (["serve", "--port", "99999"], "65535"),
    ],
)
def test_usage_errors_have_a_hint(tmp_path: Path, arguments: list[str], hint: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_config_init_writes_the_example_and_check_accepts_it(tmp_path: Path) -> None:
    done = run("config", "init", cwd=tmp_path)
    target = tmp_path / "heliostat.toml"
    assert (done.returncode, done.stderr) == (0, "")
    assert str(target) in done.stdout
    assert target.read_bytes() == EXAMPLE.read_bytes()
    checked = run("config", "check", cwd=tmp_path)
    assert checked.returncode == 0
    assert checked.stdout.startswith(f"{target}: valid\n")


def test_config_init_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINIMAL)
    done = run("config", "init", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "exists already; --force replaces it" in done.stderr
    assert (tmp_path / "mine.toml").read_text() == MINIMAL
    assert run("config", "init", "--force", "mine.toml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "mine.toml").read_bytes() == EXAMPLE.read_bytes()


def test_config_init_makes_directories_and_prints_to_standard_output(tmp_path: Path) -> None:
    assert run("config", "init", "--config", "a/b/c.toml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a/b/c.toml").read_bytes() == EXAMPLE.read_bytes()
    assert run("config", "init", "-", cwd=tmp_path).stdout == EXAMPLE.read_text(encoding="utf-8")
    assert "cannot be written: " in run("config", "init", "a/b/c.toml/d", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    "arguments",
    [["--config", "x.toml", "--json", "config", "check"], ["config", "check", "--config", "x.toml", "--json"]],
)
def test_common_options_count_before_and_after_the_command(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "x.toml").write_text(
        MINIMAL + 'projects = ["a", "b"]\n[upstream]\nurl = "https://me:secret@index.example"\n'
    )
    done = run(*arguments, cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "source": str(tmp_path / "x.toml"),
        "problems": [],
        "warnings": [],
        "upstream": "https://index.example",
        "directory": str(tmp_path / "pypi"),
        "holds": "2 projects",
        "exit_code": 0,
    }


def test_the_configuration_is_searched_in_the_documented_order(tmp_path: Path) -> None:
    for name in ("heliostat", "variable", "option"):
        (tmp_path / f"{name}.toml").write_text(MINIMAL)

    def source(*arguments: str, **env: str) -> str:
        return str(json.loads(run("config", "check", "--json", *arguments, cwd=tmp_path, env=env).stdout)["source"])

    assert source() == str(tmp_path / "heliostat.toml")
    assert source(HELIOSTAT_CONFIG="variable.toml") == str(tmp_path / "variable.toml")
    assert source("--config", "option.toml", HELIOSTAT_CONFIG="variable.toml") == str(tmp_path / "option.toml")


@pytest.mark.parametrize("env", [{}, {"HELIOSTAT_CONFIG": "missing.toml"}])
def test_a_named_configuration_that_does_not_exist_is_an_error(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    arguments = () if env else ("--config", "missing.toml")
    done = run("config", "check", *arguments, cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith(f"heliostat: {tmp_path}/missing.toml: no such file; heliostat config init")


def test_every_problem_is_one_line_and_machines_get_them_as_json(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text('[mirror]\ndirectroy = "pypi"\nprojects = ["a", "A"]\n')
    done = run("config", "check", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert done.returncode == result["exit_code"] == 2
    assert result["problems"] == [
        f'{tmp_path}/heliostat.toml:1: [mirror] directory: missing; say where the mirror goes, such as directory = "/srv/pypi"',
        f"{tmp_path}/heliostat.toml:2: [mirror] directroy: unknown key; did you mean directory?",
        f"{tmp_path}/heliostat.toml:3: [mirror] projects: A and a are the same project; remove one of them",
    ]
    assert done.stderr == "heliostat: " + "\n".join(result["problems"]) + "\n"


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_configurations_that_cannot_be_read_are_clear_errors(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "heliostat.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = run("config", "check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"heliostat: {path}: ")
    assert done.stderr.count("\n") == 1


# --- mirror without what it needs --------------------------------------------------------------------------------


def test_mirror_without_a_configuration_writes_the_example_where_it_will_be_found(tmp_path: Path) -> None:
    give_to_ordinary_user(tmp_path)
    done = run("mirror", "--once", cwd=tmp_path, unprivileged=True)
    target = tmp_path / "heliostat.toml"
    assert done.returncode == 2
    assert f"wrote an annotated example to {target}: edit it" in done.stderr
    assert target.read_bytes() == EXAMPLE.read_bytes()
    again = run("mirror", "--once", cwd=tmp_path, unprivileged=True)
    assert again.returncode == 2
    assert "nothing says what to mirror" in again.stderr


def test_mirror_without_a_configuration_falls_back_to_the_user_s_directory(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "work").mkdir(mode=0o555)
    home.mkdir()
    give_to_ordinary_user(home)
    target = home / ".config/heliostat/heliostat.toml"
    for _ in range(2):  # the second time it is there already, and is left alone
        done = run("mirror", cwd=tmp_path / "work", unprivileged=True, env={"HOME": str(home)})
        assert done.returncode == 2
        assert f"heliostat mirror --config {target}" in done.stderr
        assert target.read_bytes() == EXAMPLE.read_bytes()
    assert not any((tmp_path / "work").iterdir())


def test_a_full_run_without_a_scope_says_what_everything_would_mean_and_refuses(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    for arguments in (["--once"], [], ["--dry-run"], ["--full", "--once"]):
        done = run("mirror", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "100 TB" in done.stderr
        assert "everything = true" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["heliostat.toml"]


def test_names_on_the_command_line_are_checked_before_anything_else(tmp_path: Path) -> None:
    done = run("mirror", "good", "../etc", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "heliostat: project name '../etc': not a valid project name\n"
    assert not any(tmp_path.iterdir())


# --- standard streams, signals, locale ---------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            command("config", "init", "-"),
            env=environment(tmp_path),
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path: Path, closed: str) -> None:
    script = (
        f'"$0" -m heliostat --version {closed}; a=$?; "$0" -m heliostat config check {closed}; exit $((a * 16 + $?))'
    )
    done = subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, env=environment(tmp_path), check=False)
    assert done.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [["config", "init", "-"], ["config", "check"], ["config", "check", "--json"], ["status", "--json"], ["--help"]],
)
def test_a_full_standard_output_is_said_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*arguments, "--verbose"),
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    said = "heliostat: the result cannot be written to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (6, said)


@pytest.mark.parametrize("arguments", [["mirror", "--no-such"], ["mirror", "../etc"]])
def test_a_full_standard_error_does_not_change_the_exit_code(tmp_path: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment(tmp_path), capture_output=False, stderr=full, check=False
        )
    assert done.returncode == 2


def test_a_message_for_a_closed_standard_error_does_not_go_to_standard_output(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m heliostat config check 2>&-', sys.executable],
        cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")


#: A command in which something happens that nobody thought of.
BROKEN = """
import sys
from heliostat.cli import config_cmd
from heliostat.cli.main import main

def fail(**_):
    raise OSError("it broke\\n\\x1b[2J")

config_cmd.settings = fail
sys.exit(main(["config", "check", *sys.argv[1:]]))
"""


def test_an_unexpected_error_is_one_line_with_a_place_to_report_it(tmp_path: Path) -> None:
    def fail(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BROKEN, *arguments],
            env=environment(tmp_path),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    short, long = fail(), fail("--verbose")
    assert short.returncode == long.returncode == 1
    assert short.stderr.startswith("heliostat: unexpected OSError: ")
    assert "report it" in short.stderr
    assert "Traceback" not in short.stderr
    assert "Traceback" in long.stderr


def wait_for_reader(fifo: Path) -> int:
    """The writing end of ``fifo``, as soon as somebody reads from it."""
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)


def test_an_interrupt_anywhere_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "heliostat.toml"
    os.mkfifo(fifo)
    with subprocess.Popen(
        command("config", "check"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        writer = wait_for_reader(fifo)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_names_outside_ascii_survive_a_plain_c_locale(tmp_path: Path) -> None:
    plain_c = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("config", "init", "caf\xe9/\u65e5.toml", cwd=tmp_path, env=plain_c)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "caf\xe9/\u65e5.toml").exists()
    checked = run("config", "check", "--config", "caf\xe9/\u65e5.toml", cwd=tmp_path, env=plain_c)
    assert checked.returncode == 0
    missing = run("mirror", "caf\xe9", cwd=tmp_path, env=plain_c)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


# --- serve -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    page = tmp_path / "pypi/web/simple/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!DOCTYPE html><title>Simple index</title>")
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    with subprocess.Popen(
        command("serve", "--port", "0"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[-1]
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_it_is_told_to_end(served: tuple[subprocess.Popen[str], str], number: int) -> None:
    process, url = served
    with urllib.request.urlopen(f"{url}simple/", timeout=60) as answer:
        assert b"Simple index" in answer.read()
    process.send_signal(number)
    assert process.wait(timeout=60) == 0


def test_serve_without_a_mirror_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "heliostat.toml").write_text(MINIMAL)
    done = run("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}/pypi/web: no such directory" in done.stderr


def test_the_example_is_a_configuration_by_itself() -> None:
    assert load_config(EXAMPLE.read_text(encoding="utf-8"), source="x").mirror.directory == "/srv/pypi"
