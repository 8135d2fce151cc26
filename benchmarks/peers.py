"""Other mirrors, each in an environment of its own, so that one run measures them beside heliostat.

bandersnatch is installed from the package index that pip is set up for, with the newest Python found on the machine
that its newest release accepts, and with uvloop, which it uses where it finds it, as heliostat does.  shadowmire is no
package of that index: its checkout is named on the command line and installed from there.  It knows no option for
another index than the public one that it would read like that one, so its class is told the URL before its own command
line starts; everything else is as it ships.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from environments import as_key, installed, pythons, version_of

#: As many as bandersnatch allows, for both.
WORKERS = 10

#: The URL is the first argument.
_SHADOWMIRE = (
    "import sys; from shadowmire.pypi import PyPI; PyPI.host = sys.argv.pop(1); from shadowmire.cli import main; main()"
)


def bandersnatch() -> tuple[str, str]:
    """(command, version) of the newest bandersnatch that a Python here runs; installs it once."""
    best: tuple[tuple[int, ...], str, str] | None = None
    for python in pythons():
        folder = installed(f"bandersnatch-uvloop-{version_of(python)}", python, "bandersnatch[uvloop]")
        if folder is None:
            continue
        command = os.path.join(folder, "bandersnatch")
        version = version_of(command)
        if best is None or as_key(version) > best[0]:
            best = (as_key(version), command, version)
    if best is None:
        raise SystemExit("no Python on this machine runs bandersnatch")
    return best[1], f"{best[2]} with uvloop"


def bandersnatch_run(
    command: str, url: str, directory: str, *words: str, workers: int = WORKERS, files: bool = True
) -> list[str]:
    """One run of bandersnatch over everything at ``url``: files, sidecars, JSON, both simple formats.

    ``words`` instead of ``mirror``; without ``files`` metadata only.
    """
    path, kept = f"{directory}.conf", str(files).lower()
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"[mirror]\ndirectory = {directory}\nmaster = {url}\nallow-non-https = true\njson = true\n"
            f"release-files = {kept}\ncore-metadata = {kept}\nsimple-format = ALL\nworkers = {workers}\n"
            "timeout = 60\nglobal-timeout = 18000\nhash-index = false\nstop-on-error = false\n"
            "compare-method = hash\nstorage-backend = filesystem\n[plugins]\nenabled =\n"
        )
    return [command, "--config", path, *(words or ("mirror",))]


def shadowmire(checkout: str) -> tuple[str, str]:
    """(Python of its environment, version) of the shadowmire in ``checkout``; installs it once per version."""
    for python in pythons():
        folder = installed(f"shadowmire-{_stamp(checkout)}-{version_of(python)}", python, checkout)
        if folder is not None:
            command = os.path.join(folder, "python")
            return command, f"{version_of(os.path.join(folder, 'shadowmire'))} {_stamp(checkout)}"
    raise SystemExit(f"no Python on this machine runs the shadowmire in {checkout}")


def shadowmire_run(
    python: str, url: str, directory: str, words: Sequence[str] = ("sync", "--sync-packages")
) -> list[str]:
    """One synchronisation of shadowmire over everything at ``url``, which it reads as it reads the public index."""
    return [python, "-c", _SHADOWMIRE, f"{url}/", "--repo", directory, *words]


#: As many workers as bandersnatch has; its own default is 3.
SHADOWMIRE_ENV = {"SHADOWMIRE_WORKERS": str(WORKERS), "SHADOWMIRE_IOWORKERS": "2"}


def _stamp(checkout: str) -> str:
    """What a checkout is at, as far as git tells."""
    told = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return told or "unversioned"
