"""``heliostat demo``: the whole of it in a minute, on loopback, with nothing left behind.

An index is made up, mirrored by the ordinary ``heliostat mirror``, served, and installed from with pip; then the index
changes, and the mirror follows.  What is said to be so has been looked at: the first thing that is not ends the
demonstration with exit code 1.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import click

from heliostat.cli.exit_codes import ExitCode, Stopped
from heliostat.cli.format import counted, plain
from heliostat.cli.options import Options, common, current
from heliostat.cli.output import show
from heliostat.errors import ConfigError, HeliostatError

if TYPE_CHECKING:
    from heliostat.cli.running import Stop
    from heliostat.fakeindex import Index

_CONFIG = """\
# Written by heliostat demo.  The index it follows was made up, and is gone.
[mirror]
directory = "pypi"
everything = true

[upstream]
url = "{url}"
allow-http = true
"""


@click.command()
@click.option("--keep", metavar="DIR", help="Leave mirror, configuration and environment in DIR, which must be new.")
@common
def command(*, keep: str | None) -> int:
    """Show all of it in a minute, without a network.

    A small index is made up, mirrored over HTTP, served, and installed from with pip; then it changes, and the mirror
    follows.  Everything is removed again.
    """
    from heliostat.cli.running import run

    options = current()
    story = _Story(options)
    with _place(keep) as place:
        run(lambda stop: _until_stopped(_demonstrate(place, story), stop))
    lines = ["", "That was all of it, and every step was verified."]
    if keep:
        lines.append(f"Kept: heliostat serve --config {shlex.quote(os.path.join(place, 'heliostat.toml'))}")
    return show(options, ExitCode.COMPLETE, lines, {"verified": story.verified, "kept": place if keep else None})


class _NotShown(HeliostatError):
    """Something did not come out as it was said to."""


class _Story:
    """Tells what happens, and what has been verified."""

    def __init__(self, options: Options) -> None:
        self._silent = options.json or options.quiet
        self.verified: list[str] = []
        self._chapters = 0

    def chapter(self, text: str) -> None:
        self._chapters += 1
        self._print("\n" + click.style(f"{self._chapters}. {text}", bold=True))

    def tell(self, text: str) -> None:
        for line in text.splitlines():
            self._print(click.style(f"   {plain(line)}", dim=True))

    def verify(self, fact: bool, text: str) -> None:
        """Says that ``text`` is so; raises _NotShown when it is not."""
        if not fact:
            raise _NotShown(f"the demonstration failed: it is not so that {text}")
        self.verified.append(text)
        self._print(f"   {click.style('ok', fg='green')} {text}")

    def _print(self, text: str) -> None:
        if not self._silent:
            click.echo(text)
            sys.stdout.flush()


@contextlib.contextmanager
def _place(keep: str | None) -> Iterator[str]:
    """The directory for everything, removed afterwards unless it is to be kept."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="heliostat-demo-") as directory:
            yield os.path.realpath(directory)
        return
    try:
        os.makedirs(keep)
    except OSError as error:
        raise ConfigError([f"{keep}: cannot be made: {error.strerror}; name a directory that does not exist"]) from None
    yield os.path.realpath(keep)


async def _until_stopped(work: Coroutine[Any, Any, None], stop: Stop) -> None:
    """Runs ``work``; the first signal ends it."""
    import asyncio

    task, asked = asyncio.create_task(work), asyncio.create_task(stop.event.wait())
    await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        raise Stopped(stop.number)
    await task


async def _demonstrate(place: str, story: _Story) -> None:
    from heliostat.fakeindex import FakeIndex, Index

    index = Index()
    async with FakeIndex(index) as server:
        story.chapter("An index to follow")
        _publish_first(index)
        story.tell(f"A small package index runs at {server.url}, with real wheels and sdists made a moment ago.")
        story.verify(len(index) == 4, f"it has 4 projects: {', '.join(index.projects())}")

        story.chapter("The first pass")
        _configure(place, server.url)
        summary = await _heliostat(place, story, "mirror", "--once")
        story.verify(_says(summary, "complete: 4 projects added"), "the pass ended complete, exit code 0")
        _verify_files(place, index, story)

        story.chapter("Installing from the mirror")
        async with _serving(place) as url:
            environment = await _environment(place, story)
            await _first_install(environment, url, story)

            story.chapter("Upstream changes")
            _publish_second(index)
            story.tell("sunfinder 1.1 is published, 1.0 is yanked, and candle is deleted.")
            before = server.request_count
            summary = await _heliostat(place, story, "mirror", "--once")
            asked = counted(server.request_count - before, "request")
            story.verify(
                _says(summary, "complete: 0 projects added, 1 updated, 1 removed, 0 unchanged"),
                f"the pass fetched the changes only, in {asked}",
            )
            _verify_files(place, index, story)
            story.verify(not _lies_about(place, "candle"), "nothing of candle is left in the mirror")
            await _second_install(environment, url, story)

        story.chapter("Nothing new")
        before = server.request_count
        await _heliostat(place, story, "mirror", "--once", "--quiet")
        count = server.request_count - before
        story.verify(count <= 2, f"a pass without changes costs upstream {counted(count, 'small request')}")
        status = await _heliostat(place, story, "status")
        story.verify("3 current" in status, "the mirror knows that it is complete")


# --- upstream ----------------------------------------------------------------------------------------------------


def _publish_first(index: Index) -> None:
    """A wheel with dependencies, one of them an sdist, one with a name in another spelling; and one to be deleted."""
    _upload(index, "sunfinder", "1.0", "wheel", requires=["sunclock>=1", "mirror-frame"])
    _upload(index, "sunclock", "1.0", "sdist")
    _upload(index, "Mirror.Frame", "1.0", "wheel")
    _upload(index, "candle", "1.0", "wheel")


def _publish_second(index: Index) -> None:
    _upload(index, "sunfinder", "1.1", "sdist", requires=["sunclock>=1", "mirror-frame"])
    _upload(index, "sunfinder", "1.1", "wheel", requires=["sunclock>=1", "mirror-frame"])
    index.yank("sunfinder", "1.0", "points at the moon")
    index.remove_project("candle")


def _upload(index: Index, name: str, version: str, kind: str, *, requires: list[str] | None = None) -> None:
    from heliostat.fakeindex import UploadedFile
    from heliostat.fakeindex.wheels import sdist, wheel

    made = (wheel if kind == "wheel" else sdist)(name, version, requires or [])
    sidecar = made.metadata if kind == "wheel" else None
    index.publish(name, version, UploadedFile(made.filename, made.data, sidecar=sidecar))


# --- the mirror --------------------------------------------------------------------------------------------------


def _configure(place: str, url: str) -> None:
    os.mkdir(os.path.join(place, "pypi"))
    with open(os.path.join(place, "heliostat.toml"), "x", encoding="utf-8") as file:
        file.write(_CONFIG.format(url=url))


async def _heliostat(place: str, story: _Story, *arguments: str) -> str:
    """Runs one command of heliostat's as a process of its own; what it printed."""
    story.tell(f"$ heliostat {shlex.join(arguments)}")
    config = os.path.join(place, "heliostat.toml")
    output = await _succeed(sys.executable, "-m", "heliostat", *arguments, "--config", config, "--no-progress")
    story.tell(output)
    return output


def _says(output: str, beginning: str) -> bool:
    """Whether a line of the output begins like that."""
    return any(line.startswith(beginning) for line in output.splitlines())


def _verify_files(place: str, index: Index, story: _Story) -> None:
    """Each file that upstream has is in the mirror, byte for byte; sidecars too."""
    files = [expected.file for name in index.projects() for expected in index.expected_files(name)]
    for file in files:
        path = f"{place}/pypi/web{file.path}"
        same = _content(path) == file.content.read(0, file.content.size)
        if not same or (file.sidecar is not None and _content(f"{path}.metadata") != file.sidecar):
            story.verify(same, f"{file.filename} in the mirror is upstream's")
    story.verify(bool(files), f"upstream's {counted(len(files), 'file')} are in the mirror, byte for byte")


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _lies_about(place: str, name: str) -> bool:
    """Whether any file or directory below the web root has ``name`` in its name."""
    return any(
        name in entry for _, directories, files in os.walk(f"{place}/pypi/web") for entry in (*directories, *files)
    )


@contextlib.asynccontextmanager
async def _serving(place: str) -> AsyncIterator[str]:
    """Serves the mirror's web root; yields its URL."""
    import asyncio

    from heliostat.service.serve import run_static_server

    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        run_static_server(f"{place}/pypi/web", host="127.0.0.1", port=0, stop=stop, started=started.set_result)
    )
    try:
        await asyncio.wait((server, started), return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server
        yield await started
    finally:
        stop.set()
        await server


# --- installing --------------------------------------------------------------------------------------------------


async def _environment(place: str, story: _Story) -> str:
    """A throw-away virtual environment; the path of its Python."""
    directory = os.path.join(place, "environment")
    story.tell(f"$ python -m venv {directory}")
    await _succeed(sys.executable, "-m", "venv", directory)
    return os.path.join(directory, "bin", "python")


async def _first_install(python: str, url: str, story: _Story) -> None:
    await _pip(python, url, story, "sunfinder", "candle")
    versions = await _versions(python, "sunfinder", "sunclock", "mirror_frame", "candle")
    story.verify(
        versions == "1.0 1.0 1.0 1.0",
        "pip resolved sunfinder's dependencies, built sunclock from its sdist, and all of it can be imported",
    )


async def _second_install(python: str, url: str, story: _Story) -> None:
    await _pip(python, url, story, "--upgrade", "sunfinder")
    story.verify(await _versions(python, "sunfinder") == "1.1", "pip upgraded sunfinder to 1.1 from the mirror")
    code, output = await _process(*_pip_command(python, url, "--force-reinstall", "candle"))
    story.verify(code != 0 and "No matching distribution" in output, "pip finds no candle in the mirror any more")


def _pip_command(python: str, url: str, *arguments: str) -> list[str]:
    """An installation from the mirror as the only index, whatever this machine's configuration says."""
    options = ["--isolated", "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--retries", "0"]
    return [python, "-m", "pip", "install", *options, "--index-url", f"{url}simple/", *arguments]


async def _pip(python: str, url: str, story: _Story, *arguments: str) -> None:
    story.tell(f"$ pip install --index-url {url}simple/ {shlex.join(arguments)}")
    output = await _succeed(*_pip_command(python, url, *arguments))
    story.tell(output.strip().splitlines()[-1])


async def _versions(python: str, *modules: str) -> str:
    script = f"import {', '.join(modules)}; print({', '.join(f'{module}.__version__' for module in modules)})"
    return (await _succeed(python, "-c", script)).strip()


async def _succeed(*command: str) -> str:
    """Runs a process that must end with 0; what it printed.  Raises _NotShown."""
    code, output = await _process(*command)
    if code != 0:
        raise _NotShown(f"the demonstration failed: {shlex.join(command)} ended with {code}:\n{output}")
    return output


async def _process(*command: str) -> tuple[int, str]:
    """Runs a process in a plain environment, without proxies and with English messages.

    When cancelled it kills the process and those that it started.
    """
    dropped = ("PIP_", "PYTHONHOME", "VIRTUAL_ENV", "HELIOSTAT_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    if command[0] != sys.executable:
        environment.pop("PYTHONPATH", None)
    import asyncio

    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        env=environment | {"LC_ALL": "C.UTF-8", "NO_PROXY": "*", "PIP_CONFIG_FILE": os.devnull},
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
