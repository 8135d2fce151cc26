"""The documentation says what is so: configuration, commands, exit codes, links."""

import re
import shlex
from collections import Counter
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click
import pytest

import heliostat
from heliostat.cli.exit_codes import ExitCode
from heliostat.cli.main import cli
from heliostat.config import SECTIONS, keys
from heliostat.config.load import load_config

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "configs" / "heliostat.toml"
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
BY_NAME = {page.name: page.read_text(encoding="utf-8") for page in PAGES}


# --- the annotated example ---------------------------------------------------------------------------------------


def settings_in_example() -> list[tuple[str, str, str, bool]]:
    """(section, key, line without its comment sign, whether it is commented out) of every setting in the example."""
    found, section = [], ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.fullmatch(r"(# )?(([a-z][a-z-]*) = .*)", line):
            found.append((section, setting[3], setting[2], bool(setting[1])))
    return found


def test_the_example_names_every_key_once_in_its_section() -> None:
    named = Counter((section, key) for section, key, _, _ in settings_in_example())
    assert named == Counter((section, key) for section in SECTIONS for key in keys(section))


def test_what_the_example_comments_out_is_the_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    plain = load_config(text, source="x")
    for section, key, line, commented in settings_in_example():
        item = keys(section)[key]
        assert commented == (item.default is not MISSING or key == "url"), key
        loaded = load_config(text.replace(f"# {line}\n", f"{line}\n"), source="x")
        value, default = (getattr(getattr(config, section), item.name) for config in (loaded, plain))
        if item.default is None:
            assert value is not None, key
        else:
            assert value == default, key


def test_the_example_says_something_about_every_key() -> None:
    """Each block of settings follows a comment; a block is a run of lines between empty ones."""
    for block in EXAMPLE.read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines and re.fullmatch(r"(# )?[a-z-]+ = .*", lines[-1]):
            assert lines[0].startswith("# "), block
            assert not re.fullmatch(r"(# )?[a-z-]+ = .*", lines[0]), block


def test_the_package_carries_the_same_example() -> None:
    packaged = Path(heliostat.__file__).parent / "cli" / "example.toml"
    assert packaged.read_bytes() == EXAMPLE.read_bytes()


# --- snippets ----------------------------------------------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


SNIPPETS = [(name, snippet) for name, text in BY_NAME.items() for snippet in blocks(text, "toml")]


@pytest.mark.parametrize(("name", "snippet"), SNIPPETS)
def test_every_configuration_shown_is_valid(name: str, snippet: str) -> None:
    loaded = load_config(
        snippet, source=name, environ={"INDEX_PASSWORD": "x", "PING_SECRET": "0123456789abcdef", "HOME": "/home/me"}
    )
    assert loaded.mirror.projects or loaded.mirror.everything


def shown_commands() -> list[tuple[str, list[str]]]:
    """The arguments of every heliostat command line in a code block, or in backquotes."""
    found = []
    for name, text in BY_NAME.items():
        lines = [
            line
            for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
            for line in block.splitlines()
        ]
        lines += [line for line in text.splitlines() if line.startswith("    ")]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        lines += [span.replace("\n", " ") for span in re.findall(r"`(heliostat [^`]*)`", prose)]
        for line in lines:
            for part in re.split(r"&&|\s#\s|\|", line):
                words = shlex.split(part.replace("'", ""))
                places = [at for at, word in enumerate(words) if re.fullmatch(r"(.*/)?heliostat", word)]
                if places and places[-1] + 1 < len(words) and words[0] not in ("useradd", "install"):
                    found.append((name, words[places[-1] + 1 :]))
    return found


COMMANDS = shown_commands()


def test_commands_are_found_at_all() -> None:
    assert len(COMMANDS) > 15
    assert ("README.md", ["mirror", "--once", "--dry-run"]) in COMMANDS


@pytest.mark.parametrize(
    ("name", "words"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_every_command_shown_exists_with_its_options(name: str, words: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(group, click.Group) and not words[0].startswith("-"):
        command = group.get_command(context, words[0])
        assert command is not None, f"{name}: no command {words[0]}"
        group, words = command, words[1:]
    known = {option for parameter in (*group.params, *cli.params) for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-") and word != "-"} <= known


def test_the_demonstration_and_the_tests_are_at_the_top_of_the_readme() -> None:
    top = blocks(BY_NAME["README.md"], "sh")[:3]
    assert [block.count("\n") for block in top] == [1, 1, 1]
    demo, real, tests = top
    assert demo.startswith("python3 -m venv .venv && .venv/bin/pip install . && ")
    assert ".venv/bin/heliostat mirror --once" in real
    assert tests.startswith("python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && ")
    assert '-m "not outside"' in tests
    heredoc = re.search(r"printf '(.*?)' >", real)
    assert heredoc is not None
    assert load_config(heredoc[1].replace("\\n", "\n"), source="x").mirror.projects


# --- tables and links --------------------------------------------------------------------------------------------


def test_the_exit_codes_are_all_documented() -> None:
    documented = re.findall(r"^\| (\d+) \|", BY_NAME["exit-codes.md"], re.MULTILINE)
    assert [int(code) for code in documented] == [int(code) for code in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path) if path else page
        assert goal.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)", goal.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_keys_named_in_the_documentation_exist() -> None:
    """A word in backquotes with a hyphen or after a section's name, in the pages about configuration."""
    known: set[str] = {key for section in SECTIONS for key in keys(section)}
    for name in ("configuration.md", "operations.md", "README.md"):
        prose = re.sub(r"^```.*?^```", "", BY_NAME[name], flags=re.DOTALL | re.MULTILINE)
        named: set[Any] = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", prose))
        assert named <= known, name
