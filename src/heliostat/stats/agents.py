"""Who asked, from the User-Agent header: installer, its version, and the Python it works for.

The header is whatever a client cares to send.  So installers that are not known are all ``other``, and of versions only
numbers stay: what is kept and published has few values, and no text of strangers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

OTHER = "other"
#: The first word of the header, in lower case, and what it is called here.
_KNOWN = {
    **{
        name: name
        for name in (
            *("pip", "uv", "poetry", "pdm", "pipenv", "pipx", "hatch", "rye", "pixi", "pex", "conda"),
            *("mamba", "micropip"),
            *("setuptools", "distribute", "buildout", "easy_install", "twine", "flit", "bazel", "pants", "homebrew"),
            *("heliostat", "bandersnatch", "shadowmire", "devpi-server", "devpi", "artifactory", "nexus", "pulp"),
            *("curl", "wget", "aria2", "rattler", "renovate", "dependabot"),
        )
    },
    "python-requests": "requests",
    "python-urllib": "urllib",
    "python-httpx": "httpx",
    "go-http-client": "go",
    "mozilla": "browser",
}  # fmt: skip
_TOKEN = re.compile(r"([A-Za-z][A-Za-z0-9._-]{0,40})(?:/v?(\d{1,4}(?:\.\d{1,4}){0,2})(?!\d))?")
_NUMBER = re.compile(r"\d{1,4}(?:\.\d{1,4}){0,2}(?!\d)")
_PYTHON = re.compile(r"(?:\b(?:C?Python|PyPy|GraalPy)|Python-urllib)[/ ](\d\.\d{1,2})", re.IGNORECASE)
_MINOR = re.compile(r"\d\.\d{1,2}(?![0-9])")
_SETUPTOOLS = re.compile(r"\b(setuptools|distribute)/(\d{1,4}(?:\.\d{1,4}){0,2})(?!\d)")
#: Longer ones are cut: no installer says so much.
_MOST = 4096


class Agent(NamedTuple):
    """An installer; ``version`` and ``python`` (two numbers) are empty where they were not told."""

    installer: str
    version: str
    python: str


class _Named(msgspec.Struct):
    name: str | None = None
    version: str | None = None


class _Told(msgspec.Struct):
    """What pip, uv and pdm send as JSON after their name; the rest of it is nobody's business here."""

    installer: _Named | None = None
    python: str | None = None


_told = msgspec.json.Decoder(_Told).decode
_UNKNOWN = Agent(OTHER, "", "")


def agent_of(header: str) -> Agent:
    """Never fails, whatever the header is."""
    return _cached(header) if len(header) <= 1024 else _parsed(header[:_MOST])


def _parsed(header: str) -> Agent:
    found = _TOKEN.match(header)
    if found is None:
        return _UNKNOWN
    name, version = found[1].lower(), found[2] or ""
    rest = header[found.end() :].lstrip()
    if rest.startswith("{"):
        try:
            told = _told(rest)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return Agent(_KNOWN.get(name, OTHER), version if name in _KNOWN else "", "")
        if told.installer is not None and told.installer.name is not None:
            name, version = told.installer.name.lower(), _first(_NUMBER, told.installer.version)
        return _named(name, version, _first(_MINOR, told.python))
    if later := _SETUPTOOLS.search(header):
        name, version = later[1], later[2]
    python = _PYTHON.search(header)
    return _named(name, version, python[1] if python else "")


def _named(name: str, version: str, python: str) -> Agent:
    known = _KNOWN.get(name)
    # What is no installer has versions that tell nobody anything.
    return Agent(known, version if known != "browser" else "", python) if known else Agent(OTHER, "", python)


def _first(pattern: re.Pattern[str], text: str | None) -> str:
    found = pattern.match(text) if text else None
    return found[0] if found else ""


_cached = lru_cache(2048)(_parsed)
