"""Programs that are measured or used, each installed once into an environment of its own, kept in the user's cache."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

_CACHE = os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache")), "heliostat-benchmarks")


def installed(name: str, python: str, *requirements: str) -> str | None:
    """The ``bin`` folder of the environment ``name``, made with ``python`` when it is not there; None if that fails."""
    environment = os.path.join(_CACHE, name)
    if not os.path.exists(os.path.join(environment, ".complete")):
        shutil.rmtree(environment, ignore_errors=True)
        made = _quietly(python, "-m", "venv", environment)
        if not made or not _quietly(os.path.join(environment, "bin", "pip"), "install", "--quiet", *requirements):
            return None
        with open(os.path.join(environment, ".complete"), "w", encoding="ascii"):
            pass
    return os.path.join(environment, "bin")


def pythons() -> list[str]:
    """Interpreters of 3.11 and newer, the newest first."""
    found = {sys.executable}
    for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
        if path := shutil.which(name):
            found.add(path)
    found.update(glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[1-9]*/bin/python")))
    usable = {version_of(python): python for python in sorted(found) if version_of(python)}
    return [usable[version] for version in sorted(usable, key=as_key, reverse=True)]


def version_of(*command: str) -> str:
    """The last word that ``command --version`` says; empty when it cannot be run."""
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return shown[-1] if shown else ""


def as_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _quietly(*command: str) -> bool:
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0
