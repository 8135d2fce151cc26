"""What the benchmarks share: an upstream on loopback as a process of its own, and commands timed as whole processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


@dataclass(frozen=True)
class Run:
    """One finished process: seconds, CPU seconds, the largest resident size in MiB, exit code and output."""

    wall: float
    user: float
    system: float
    memory: float
    code: int
    output: str
    #: (seconds since the start, resident MiB), where it was asked for.
    samples: list[tuple[float, float]] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        return self.user + self.system


def timed(command: Sequence[str], *, env: Mapping[str, str] | None = None, sample_every: float | None = None) -> Run:
    """Run ``command`` to its end; its standard output is kept, the end of the other one is shown if it fails.

    Every ``sample_every`` seconds its resident size is noted.
    """
    samples: list[tuple[float, float]] = []
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        tempfile.NamedTemporaryFile("r", encoding="ascii") as report,
    ):
        launcher = [sys.executable, "-I", "-S", _LAUNCHER, report.name, *command]
        environment = {**os.environ, **(env or {})}
        # What is installed is compiled; what is run from a clone would be compiled again in every run.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        process = subprocess.Popen(launcher, stdout=output, stderr=errors, env=environment)
        with _sampling(report.name, sample_every, samples):
            process.wait()
        for stream in (output, errors):
            stream.seek(0)
        text, told = output.read(), report.read().split()
        if len(told) != 6:
            raise SystemExit(f"{command[0]} could not be run: {errors.read()[-4000:]}")
        wall, user, system, memory, code = float(told[1]), float(told[2]), float(told[3]), int(told[4]), int(told[5])
        if code:
            sys.stderr.write(errors.read()[-4000:])
    return Run(wall, user, system, memory / 1024, code, text, samples)


@contextlib.contextmanager
def _sampling(report: str, every: float | None, samples: list[tuple[float, float]]) -> Iterator[None]:
    if every is None:
        yield
        return
    done, started = threading.Event(), time.perf_counter()

    def sample() -> None:
        while not done.wait(every):
            with open(report, encoding="ascii") as file:
                pid = file.readline().strip()
            if pid and (size := resident(pid)):
                samples.append((time.perf_counter() - started, size))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def resident(pid: int | str) -> float:
    """The resident size of a process in MiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:")), 0.0)
    except (OSError, ValueError):
        return 0.0


def successful(run: Run, name: str) -> Run:
    """``run``, which must have ended with 0."""
    if run.code:
        raise SystemExit(f"{name} ended with {run.code}: {run.output[-2000:]}")
    return run


@contextlib.contextmanager
def upstream(*arguments: str, warm: bool = True) -> Iterator[str]:
    """A synthetic index in a process of its own; its URL.  ``warm``: everything is rendered before it starts."""
    command = [sys.executable, "-m", "heliostat.fakeindex", "--no-log", "--with-stdin", *arguments]
    command += ["--warm"] if warm else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise SystemExit(f"the fake index did not start: {url!r}")
        yield url
    finally:
        process.stdin.close()
        process.wait()


@contextlib.contextmanager
def mirror_directory(parent: str | None) -> Iterator[str]:
    """A fresh directory below ``parent`` (the system's temporary folder by default).

    At the end it goes, with the files beside it whose names begin like its own.
    """
    outer = tempfile.mkdtemp(prefix="heliostat-bench-", dir=parent)
    directory = os.path.join(outer, "mirror")
    os.mkdir(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def settle() -> None:
    """Let nothing that was written before be paid by what is measured next."""
    os.sync()
    time.sleep(0.2)
