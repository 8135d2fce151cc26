"""pip and uv as real processes, cut off from every configuration, cache and index but the ones named.

No index is ever implied: a run without one cannot find anything, and only loopback URLs are let through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin


def pip(*arguments: str, index: str, extra: Sequence[str] = (), work: Path) -> subprocess.CompletedProcess[str]:
    """``pip ARGUMENTS`` against the index pages below ``index`` (and ``extra``); ``work`` is its home and directory."""
    options = ["--index-url", _loopback(index)]
    for url in extra:
        options += ["--extra-index-url", _loopback(url)]
    environment = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INPUT": "1",
        "PIP_RETRIES": "0",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    return _run([sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:]], environment, work)


def uv(*arguments: str, index: str, first: Sequence[str] = (), work: Path) -> subprocess.CompletedProcess[str]:
    """``uv ARGUMENTS`` with ``index`` as the default index, which is asked after those in ``first``."""
    options = ["--default-index", _loopback(index)]
    for url in first:
        options += ["--index", _loopback(url)]
    environment = {
        "UV_CACHE_DIR": str(work / "uv-cache"),
        "UV_NO_CONFIG": "1",
        "UV_NO_CACHE": "1",
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_RETRIES": "0",
    }
    return _run([find_uv_bin(), *arguments, *options], environment, work)


def _loopback(url: str) -> str:
    if not url.startswith("http://127.0.0.1:"):
        raise AssertionError(f"not a loopback index: {url}")
    return url


def _run(command: list[str], environment: dict[str, str], work: Path) -> subprocess.CompletedProcess[str]:
    work.mkdir(parents=True, exist_ok=True)
    base = {"PATH": os.environ["PATH"], "HOME": str(work), "LANG": "C.UTF-8", "NO_COLOR": "1", "NO_PROXY": "*"}
    return subprocess.run(
        command, cwd=work, env=base | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
