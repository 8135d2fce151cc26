"""Other mirrors, each in an environment of its own, so that one run measures them beside heliostat.

bandersnatch is installed from the package index that pip is set up for, with the newest Python found on the machine
that its newest release accepts.  shadowmire is no package of that index: name its checkout with ``--shadowmire``.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

_CACHE = os.path.join(os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache")), "heliostat-benchmarks")


def bandersnatch() -> tuple[str, str]:
    """(command, version) of the newest bandersnatch that a Python here runs; installs it once."""
    best: tuple[tuple[int, ...], str, str] | None = None
    for python in _pythons():
        environment = os.path.join(_CACHE, f"bandersnatch-{_version(python)}")
        command = os.path.join(environment, "bin", "bandersnatch")
        if not os.path.exists(command):
            _quietly(python, "-m", "venv", environment)
            _quietly(os.path.join(environment, "bin", "pip"), "install", "--quiet", "bandersnatch")
        if not os.path.exists(command):
            continue
        shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
        version = shown.split()[-1] if shown.split() else "0"
        key = tuple(int(part) for part in version.split(".") if part.isdigit())
        if best is None or key > best[0]:
            best = (key, command, version)
    if best is None:
        raise SystemExit("no Python on this machine runs bandersnatch")
    return best[1], best[2]


def bandersnatch_mirror(command: str, url: str, directory: str, *, workers: int = 10) -> list[str]:
    """One run of bandersnatch over everything at ``url``: files, sidecars, JSON, both simple formats."""
    path = f"{directory}.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"[mirror]\ndirectory = {directory}\nmaster = {url}\nallow-non-https = true\njson = true\n"
            f"release-files = true\ncore-metadata = true\nsimple-format = ALL\nworkers = {workers}\n"
            "timeout = 60\nglobal-timeout = 18000\nhash-index = false\nstop-on-error = false\n"
            "compare-method = hash\nstorage-backend = filesystem\n[plugins]\nenabled =\n"
        )
    return [command, "--config", path, "mirror"]


def shadowmire_mirror(checkout: str, url: str, directory: str) -> list[str]:
    """One synchronisation of shadowmire, run from its checkout with the Python that its environment holds."""
    python = os.path.join(checkout, ".venv", "bin", "python")
    return [python, "-m", "shadowmire", "--repo", directory, "sync", "--sync-packages", "--shadowmire-upstream", url]


def _pythons() -> list[str]:
    """Interpreters of 3.11 and newer, the newest first."""
    found = {sys.executable}
    for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
        if path := shutil.which(name):
            found.add(path)
    found.update(glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[1-9]*/bin/python")))
    usable = {_version(python): python for python in sorted(found) if _version(python)}
    return [usable[version] for version in sorted(usable, key=_key, reverse=True)]


def _version(python: str) -> str:
    shown = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return shown.stdout.partition(" ")[2].strip()


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _quietly(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
