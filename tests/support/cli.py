"""The command line as a real process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import heliostat
from support.unprivileged import become_ordinary_user

#: Where the package that is being tested was imported from.
SOURCE = str(Path(heliostat.__file__).resolve().parent.parent)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A small, known environment, in which the child imports the package that the tests import."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHONPATH": SOURCE} | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "heliostat", *arguments]


def run(
    *arguments: str, cwd: Path, unprivileged: bool = False, timeout: float = 120, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs one command line in ``cwd``, which is its home as well."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd, **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=timeout,
        preexec_fn=become_ordinary_user if unprivileged else None,
    )


async def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """The same beside a running event loop (that serves the index, for one); output comes through pipes."""
    return await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=cwd,
        env=environment(cwd, **(env or {})),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> subprocess.CompletedProcess[str]:
    out, err = await process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode())


async def arun(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """:func:`run` beside a running event loop."""
    return await finish(await start(*arguments, cwd=cwd, env=env))
