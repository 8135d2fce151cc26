"""The package's shape: imports go downward only, the core touches nothing outside, only the command line speaks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import heliostat

ROOT = Path(heliostat.__file__).parent

#: Part to level.  A part imports from lower levels and from itself, never from another part of its own level.
LEVELS = {
    "": 0,  # the package itself: its version
    "errors": 0,
    "model": 1,
    "names": 2,
    "config": 3,
    "policy": 4,
    "pages": 4,
    "upstream": 5,
    "store": 5,
    "state": 5,
    "stats": 6,
    "mirror": 6,
    "service": 7,
    "cli": 8,
    "__main__": 9,
}
#: The fake index stands aside: it may know these, and only the demonstration may know it.
FAKEINDEX_MAY_IMPORT = {"", "errors", "model", "names", "pages", "fakeindex"}
MAY_IMPORT_FAKEINDEX = {"heliostat.cli.demo"}

CORE = {"errors", "model", "names", "config", "policy", "pages"}
OUTSIDE_WORLD = {
    *("aiofiles", "aiohttp", "asyncio", "filelock", "pathlib", "random", "shutil", "signal", "socket", "sqlite3"),
    *("subprocess", "tempfile", "threading", "time", "urllib.request", "uvloop"),
}


def part_of(module: str) -> str:
    """``heliostat.store.disk`` belongs to ``store``."""
    return ([*module.split("."), ""])[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a source names, those under TYPE_CHECKING and inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where they lead"
            if node.module == "heliostat":
                names = {alias.name for alias in node.names}
                yield from (
                    f"heliostat.{name}" if f"{name}" in LEVELS or name == "fakeindex" else "heliostat" for name in names
                )
            elif node.module:
                yield node.module


def violations(module: str, source: str) -> list[str]:
    """What ``source``, as the module of that name, does that it may not do."""
    tree, part = ast.parse(source), part_of(module)
    found = []
    for target in imported(tree):
        if target.partition(".")[0] != "heliostat":
            if part in CORE and any(target == name or target.startswith(f"{name}.") for name in OUTSIDE_WORLD):
                found.append(f"{module} is core, but imports {target}")
            continue
        goal = part_of(target)
        if goal == "fakeindex":
            allowed = part == "fakeindex" or module in MAY_IMPORT_FAKEINDEX
        elif part == "fakeindex":
            allowed = goal in FAKEINDEX_MAY_IMPORT
        else:
            allowed = goal == part or LEVELS[goal] < LEVELS[part]
        if not allowed:
            found.append(f"{module} imports {target}")
    if part not in ("cli", "__main__"):
        found += [f"{module} calls {call}" for call in speaking(tree)]
    return found


def speaking(tree: ast.AST) -> Iterator[str]:
    """Calls that print or exit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "exit", "quit", "sys.exit", "os._exit", "input"):
                yield called


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(("heliostat", *(part for part in parts if part != "__init__"))), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_downward_only(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


def test_every_part_has_a_level() -> None:
    assert {part_of(module) for module, _ in modules()} - {"fakeindex"} == set(LEVELS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("heliostat.names", "from heliostat.config import Config"),
        ("heliostat.names", "from heliostat import config"),
        ("heliostat.store.disk", "import heliostat.state.ledger"),
        ("heliostat.mirror.run", "def f():\n    from heliostat.service.daemon import Daemon"),
        ("heliostat.mirror.run", "from heliostat.fakeindex import Index"),
        ("heliostat.cli.mirror", "from heliostat.fakeindex import Index"),
        ("heliostat.fakeindex.index", "from heliostat.upstream.client import Upstream"),
        ("heliostat.pages.render", "import urllib.request"),
        ("heliostat.pages.render", "from asyncio import sleep"),
        ("heliostat.pages.render", "import heliostat.policy.scope"),
        ("heliostat.store.disk", "print('x')"),
        ("heliostat.service.daemon", "import sys\nsys.exit(1)"),
    ],
)
def test_the_check_finds_what_is_wrong(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("heliostat.names", "from heliostat.errors import Refused"),
        ("heliostat.upstream.client", "from heliostat import __version__\nimport aiohttp"),
        ("heliostat.cli.demo", "from heliostat.fakeindex import Index\nprint(Index)"),
        (
            "heliostat.fakeindex.index",
            "from heliostat.pages.render import root_html\nimport heliostat.fakeindex.wheels",
        ),
    ],
)
def test_the_check_accepts_what_is_right(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_the_public_index_is_named_in_one_place_only() -> None:
    marks = ("pypi.org", "pythonhosted")
    naming = {module for module, path in modules() if any(mark in path.read_text(encoding="utf-8") for mark in marks)}
    assert naming == {"heliostat.config.sections"}
