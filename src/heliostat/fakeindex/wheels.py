"""Wheels and sdists made in memory: tiny, real, and the same bytes at every call.

A wheel holds one package that knows its version.  An sdist brings its own build backend (``backend-path``), so that
installers can build it without any network and without setuptools.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_MOMENT = (2026, 1, 1, 0, 0, 0)
_SECONDS = 1_767_225_600
_WHEEL = "Wheel-Version: 1.0\nGenerator: fakeindex\nRoot-Is-Purelib: true\n"


class Built(NamedTuple):
    """A distribution: its file name, its bytes, and its METADATA (of an sdist: PKG-INFO)."""

    filename: str
    data: bytes
    metadata: bytes


def wheel(
    name: str,
    version: str,
    requires: Sequence[str] = (),
    *,
    tags: str = "py3-none-any",
    requires_python: str | None = None,
    extras: Mapping[str, Sequence[str]] | None = None,
    summary: str = "Made for tests",
    code: str = "",
) -> Built:
    """A wheel (PEP 427).  ``extras`` are further requirements by extra; ``code`` is added to the package's module.

    The package is called like the project, in lower case with underscores.
    """
    metadata = _metadata(name, version, requires, requires_python, extras, summary)
    info = f"{_part(name)}-{_version_part(version)}.dist-info"
    files = {
        f"{module_name(name)}/__init__.py": _module(version, code),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": (_WHEEL + _tag_lines(tags)).encode(),
    }
    record = "".join(f"{path},sha256={_record_digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return Built(f"{_part(name)}-{_version_part(version)}-{tags}.whl", _zip(files), metadata)


def metadata_member(info: str, metadata: bytes, position: int) -> bytes:
    """The end of an archive whose only listed member is METADATA in the directory ``info``; it stands at ``position``.

    What lies before it belongs to no member.
    """
    name, packed = f"{info}/METADATA".encode(), zlib.compress(metadata, wbits=-zlib.MAX_WBITS)
    what = struct.pack("<H", 20), struct.pack("<2HI3I2H", 0, 8, 33 << 16, zlib.crc32(metadata), len(packed),
                                              len(metadata), len(name), 0)  # fmt: skip
    member = b"PK\3\4" + b"".join(what) + name + packed
    entry = b"PK\1\2" + b"".join((what[0], *what)) + struct.pack("<3H2I", 0, 0, 0, 0, position) + name
    return member + entry + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), position + len(member), 0)


def sdist(
    name: str,
    version: str,
    requires: Sequence[str] = (),
    *,
    requires_python: str | None = None,
    extras: Mapping[str, Sequence[str]] | None = None,
    summary: str = "Made for tests",
    code: str = "",
    zipped: bool = False,
) -> Built:
    """An sdist (PEP 625) whose build gives what :func:`wheel` gives; ``zipped``: the old ``.zip`` form."""
    metadata = _metadata(name, version, requires, requires_python, extras, summary)
    base = f"{_part(name)}-{version}"
    files = {
        f"{base}/PKG-INFO": metadata,
        f"{base}/pyproject.toml": _PYPROJECT.encode(),
        f"{base}/backend/packed_backend.py": _BACKEND.encode(),
        f"{base}/src/{module_name(name)}/__init__.py": _module(version, code),
    }
    return Built(f"{base}{'.zip' if zipped else '.tar.gz'}", _zip(files) if zipped else _tar(files), metadata)


def module_name(name: str) -> str:
    """What to import of a distribution made here."""
    return _part(name)


def _part(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _version_part(version: str) -> str:
    return version.replace("-", "_")


def _module(version: str, code: str) -> bytes:
    return f'__version__ = "{version}"\n{code}'.encode()


def _metadata(
    name: str,
    version: str,
    requires: Iterable[str],
    requires_python: str | None,
    extras: Mapping[str, Sequence[str]] | None,
    summary: str,
) -> bytes:
    lines = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}", f"Summary: {summary}"]
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {one}" for one in requires]
    for extra, more in (extras or {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {one}; extra == "{extra}"' for one in more]
    return ("\n".join(lines) + "\n").encode()


def _tag_lines(tags: str) -> str:
    python, abi, platform = tags.split("-")[-3:]
    return "".join(
        f"Tag: {one}-{two}-{three}\n"
        for one in python.split(".")
        for two in abi.split(".")
        for three in platform.split(".")
    )


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _zip(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            member = zipfile.ZipInfo(path, _MOMENT)
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, data)
    return target.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.mode = len(data), _SECONDS, 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(target.getvalue(), 9, mtime=0)


_PYPROJECT = """\
[build-system]
requires = []
build-backend = "packed_backend"
backend-path = ["backend"]
"""

#: Packs ``src`` and PKG-INFO into a wheel; a build backend (PEP 517) needs no more.
_BACKEND = '''\
"""A build backend that needs nothing but the standard library."""

import base64
import email
import hashlib
import os
import re
import zipfile


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _info():
    metadata = _read("PKG-INFO")
    headers = email.message_from_bytes(metadata)
    stem = re.sub(r"[-_.]+", "_", headers["Name"]).lower() + "-" + headers["Version"].replace("-", "_")
    wheel = b"Wheel-Version: 1.0\\nGenerator: packed_backend\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    return stem, {stem + ".dist-info/METADATA": metadata, stem + ".dist-info/WHEEL": wheel}


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    stem, files = _info()
    os.makedirs(os.path.join(metadata_directory, stem + ".dist-info"))
    for path, data in files.items():
        with open(os.path.join(metadata_directory, path), "wb") as file:
            file.write(data)
    return stem + ".dist-info"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    stem, files = _info()
    for folder, _, names in os.walk("src"):
        for name in names:
            path = os.path.join(folder, name)
            files[os.path.relpath(path, "src").replace(os.sep, "/")] = _read(path)
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record += "%s,sha256=%s,%d\\n" % (path, digest, len(data))
    files[stem + ".dist-info/RECORD"] = (record + stem + ".dist-info/RECORD,,\\n").encode()
    filename = stem + "-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, filename), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return filename
'''
