"""A hook for tests: it writes down what it is told, and behaves as files beside it say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

_PROGRAM = """#!{python} -IS
import json, os, signal, subprocess, sys, time
here = {folder!r}
def there(name): return os.path.exists(os.path.join(here, name))
try:
    os.close(os.open(os.path.join(here, "runs"), os.O_CREAT | os.O_EXCL))
except FileExistsError:
    open(os.path.join(here, "twice at once"), "w").close()
told = {{"env": dict(os.environ), "cwd": os.getcwd(), "arguments": sys.argv[1:], "pid": os.getpid()}}
told["paths"] = os.fsdecode(sys.stdin.buffer.read()).split("\\0")
with open(os.environ["HELIOSTAT_CHANGES"]) as file:
    told["changes"] = [json.loads(line) for line in file]
if there("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if there("hang"):
    told["child"] = subprocess.Popen(["sleep", "1000"]).pid
count = len(os.listdir(os.path.join(here, "calls")))
with open(os.path.join(here, "writing"), "w") as file:
    json.dump(told, file)
os.replace(os.path.join(here, "writing"), os.path.join(here, "calls", f"{{count:04}}"))
if there("leave"):  # in a session of its own, with all that we inherited
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL, close_fds=False)
    with open(os.path.join(here, "left"), "a") as file:
        print(left.pid, file=file)
while there("hang"):
    time.sleep(0.01)
if there("flood"):
    for number in range(200000):
        print("words, words, words", number)
    print("x" * 3000000, "\\x1b[31m\\0 no end")
try:
    print("told of", len(told["changes"]), flush=True)
except BrokenPipeError:  # nobody listens any more
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.unlink(os.path.join(here, "runs"))
sys.exit(3 if there("fail") else 0)
"""


class Call(NamedTuple):
    """What one run was told."""

    environment: dict[str, str]
    cwd: str
    arguments: list[str]
    pid: int
    #: A process that it left running in its group.
    child: int | None
    paths: list[str]
    changes: list[dict[str, Any]]

    @property
    def projects(self) -> list[str]:
        return [change["project"] for change in self.changes]


class Hook:
    """The program in ``folder``, and what it was told so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "hook"
        (folder / "calls").mkdir(parents=True)
        self.program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
        self.program.chmod(0o755)

    def behave(self, how: str) -> None:
        """``fail``, ``hang``, ``flood``, ``stubborn`` (against SIGTERM), ``leave`` (a process in a session of its own)."""
        (self.folder / how).touch()

    def recover(self, how: str) -> None:
        (self.folder / how).unlink()

    @property
    def calls(self) -> list[Call]:
        return [
            Call(
                told["env"], told["cwd"], told["arguments"], told["pid"], told.get("child"),
                told["paths"], told["changes"],
            )
            for path in sorted((self.folder / "calls").iterdir())
            for told in [json.loads(path.read_text())]
        ]  # fmt: skip

    @property
    def overlapped(self) -> bool:
        return (self.folder / "twice at once").exists()
