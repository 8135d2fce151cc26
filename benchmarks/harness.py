"""What the benchmarks share: an upstream on loopback as a process of its own, and commands timed as whole processes."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """One finished process: seconds, CPU seconds, and the largest resident size in MiB."""

    wall: float
    user: float
    system: float
    memory: float
    code: int
    output: str

    @property
    def cpu(self) -> float:
        return self.user + self.system


def timed(command: Sequence[str], *, env: dict[str, str] | None = None) -> Run:
    """Run ``command`` to its end; its output is kept, its errors are shown."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    return Run(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, text)


@contextlib.contextmanager
def upstream(*arguments: str) -> Iterator[str]:
    """A synthetic index in a process of its own; its URL."""
    command = [sys.executable, "-m", "heliostat.fakeindex", "--no-log", "--warm", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise SystemExit(f"the fake index did not start: {url!r}")
        yield url
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def mirror_directory(parent: str | None) -> Iterator[str]:
    """A fresh directory below ``parent`` (the system's temporary folder by default), removed at the end."""
    directory = tempfile.mkdtemp(prefix="heliostat-bench-", dir=parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def heliostat(url: str, directory: str, **settings: object) -> list[str]:
    """The command of one pass over everything at ``url``; writes its configuration beside ``directory``'s tree."""
    lines = ["[mirror]", f'directory = "{directory}"', "everything = true", 'min-free = "0%"']
    lines += ["[upstream]", f'url = "{url}"', "allow-http = true"]
    lines += [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in settings.items()]
    path = f"{directory}.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return [sys.executable, "-m", "heliostat", "--json", "mirror", "--once", "--config", path]


def simple_json(url: str) -> Any:
    """A Simple API answer, decoded."""
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def urls_of_everything(url: str) -> list[str]:
    """Every page, document, file and sidecar of the index: what a mirror must fetch."""
    found = []
    for entry in simple_json(f"{url}/simple/")["projects"]:
        page = f"{url}/simple/{entry['name'].lower()}/"
        found += [page, f"{url}/pypi/{entry['name'].lower()}/json"]
        for file in simple_json(page)["files"]:
            found.append(file["url"])
            if file.get("core-metadata"):
                found.append(file["url"] + ".metadata")
    return found


def curl_parallel(urls: Sequence[str], directory: str, at_once: int = 50) -> list[str]:
    """curl fetching ``urls`` side by side into ``directory``, each under its URL's path."""
    listing = f"{directory}.curl"
    with open(listing, "w", encoding="utf-8") as file:
        for url in urls:
            path = url.split("/", 3)[3].rstrip("/")
            leaf = "/body" if url.endswith(("/json", "/")) else ""
            target = f"{directory}/{path}{leaf}"
            file.write(f'url = "{url}"\noutput = "{target}"\n')
    return [
        "curl", "--silent", "--no-progress-meter", "--show-error",
        "--fail", "--parallel", "--parallel-max", str(at_once), "--create-dirs",
        "--header", "Accept: application/vnd.pypi.simple.v1+json, */*;q=0.1", "--config", listing,
    ]  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the range in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> str:
    """Where the figures come from."""
    versions = f"CPython {platform.python_version()}, Linux {platform.release()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {versions}, {time.strftime('%Y-%m-%d')}"
