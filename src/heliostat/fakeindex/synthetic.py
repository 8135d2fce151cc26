"""Ready-made indexes: a small one with all oddities, and one of any size."""

from __future__ import annotations

import base64
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import exp
from statistics import NormalDist
from typing import Any

import msgspec

from heliostat.fakeindex.content import Content, Ended, Virtual
from heliostat.fakeindex.index import Index
from heliostat.fakeindex.project import Project, Release, UploadedFile
from heliostat.fakeindex.wheels import Built, metadata_member, sdist, wheel
from heliostat.model import Event

_OWNER = re.compile(r"/project_(\d{7})-[^/]*")
_NOW = 1_790_000_000
#: Bytes; room for the metadata and the archive's list.
_SMALLEST_WHEEL = 512
#: File names that break naive code; old uploads have them.
ODD_FILENAMES = (
    "odd files-1.0.linux-x86_64.tar.gz",
    "odd_files-1.0 (1).tar.gz",
    "odd_files-('1.0',).tar.gz",
    "odd_files-1.0+local.1-py3-none-any.whl",
    "odd_files-1!1.0-py3-none-any.whl",
    "odd_files-100%25.zip",
    "odd_files-50%.zip",
    "odd_files-1.0#2.tar.gz",
    "odd_files-1.0&amp;.tar.gz",
    'odd_files-"1.0".tar.gz',
    "odd_files-1.0;a=b?c.tar.gz",
    "odd_files-[1.0]{x}~^.zip",
    "odd_files-1.0-<b>.zip",
    "ödd_fîles-1.0-日本.tar.gz",
    "odd.zip",
)


def small_index() -> Index:
    """Some two dozen projects: real ones that install and depend on each other, and one for each oddity.

    Nothing in it has to be refused; its state is always the same.
    """
    index = Index()
    _installable(index)
    _lifecycle(index)
    _odd(index)
    return index


def many_projects(
    count: int,
    files_per_project: int = 5,
    sidecars: int | None = None,
    size: int = 20_000,
    *,
    seed: int = 0,
    description: int = 0,
    long_tail: bool = False,
    archives: bool = False,
) -> Index:
    """``count`` projects ``project-0000000`` and so on, made up when they are asked for.

    ``sidecars`` of each project's files are wheels with a ``.metadata`` (by default three, if there are so many), the
    others sdists; they have ``size`` bytes on average, and the documents a description of ``description`` bytes on
    average: with ``long_tail`` most much shorter and a few much longer, else evenly from a tenth to twice of it.
    With ``archives`` the wheels are archives with their metadata in them; otherwise they are noise.
    Raises ValueError for more sidecars than files, and for numbers below 0.
    """
    sidecars = min(3, files_per_project) if sidecars is None else sidecars
    index = Index()
    index.add_bulk(Synthetic(count, files_per_project, sidecars, size, seed, description, long_tail, archives))
    return index


@dataclass(frozen=True)
class Synthetic:
    """A bulk for :meth:`Index.add_bulk`; the fields are :func:`many_projects`' parameters."""

    count: int
    files: int = 5
    sidecars: int = 3
    size: int = 20_000
    seed: int = 0
    description: int = 0
    long_tail: bool = False
    archives: bool = False

    def __post_init__(self) -> None:
        if min(self.count, self.files, self.sidecars, self.size, self.description) < 0:
            raise ValueError("projects, files, sidecars, sizes: 0 or more")
        if self.sidecars > self.files:
            raise ValueError(f"{self.sidecars} sidecars, but only {self.files} files that could have one")

    @property
    def versions(self) -> int:
        return max(self.sidecars, self.files - self.sidecars)

    @property
    def rows_each(self) -> int:
        return 2 + self.versions + self.files

    def display(self, number: int) -> str:
        return f"project-{number:07}"

    def find(self, name: str) -> int | None:
        digits = name.removeprefix("project-")
        if len(digits) != 7 or not (digits.isascii() and digits.isdigit()) or len(name) != 15:
            return None
        number = int(digits)
        return number if number < self.count else None

    def owner(self, path: str) -> int | None:
        found = _OWNER.search(path)
        number = int(found[1]) if found else self.count
        return number if number < self.count else None

    def project(self, number: int) -> Project:
        name = self.display(number)
        releases = {version: Release(version) for version in self._version_names()}
        for position, (version, filename) in enumerate(self._names(number)):
            releases[version].files.append(self._file(number, position, version, filename))
        if self.description and releases:
            share = self._share(number, 99)
            length = int((_long_tail(share) if self.long_tail else share) * self.description * 4 / 9)
            text = random.Random(self.seed * 7 + number).randbytes(length).hex(" ", 4)
            releases[self._version_names()[-1]].info["description"] = text
        return Project(display=name, name=name, releases=releases)

    def rows(self, number: int, first_serial: int) -> list[Event]:
        name = self.display(number)
        said: list[tuple[str | None, str]] = [(None, "create"), (None, "add Owner alice")]
        seen: set[str] = set()
        for version, filename in sorted(self._names(number)):
            if version not in seen:
                seen.add(version)
                said.append((version, "new release"))
            said.append((version, f"add {'py3' if filename.endswith('.whl') else 'source'} file {filename}"))
        return [
            Event(name, version, _NOW + first_serial + at, action, first_serial + at)
            for at, (version, action) in enumerate(said)
        ]

    def _version_names(self) -> list[str]:
        return [f"1.{number}" for number in range(self.versions)]

    def _names(self, number: int) -> list[tuple[str, str]]:
        """(version, file name) of each file; wheels first."""
        stem = f"project_{number:07}"
        wheels = [(f"1.{one}", f"{stem}-1.{one}-py3-none-any.whl") for one in range(self.sidecars)]
        return wheels + [(f"1.{one}", f"{stem}-1.{one}.tar.gz") for one in range(self.files - self.sidecars)]

    def _file(self, number: int, position: int, version: str, filename: str) -> UploadedFile:
        seed = (self.seed << 40) + number * 64 + position
        sidecar, moment = None, datetime.fromtimestamp(_NOW + number, UTC)
        size = max(1, int(self.size * self._share(number, position)))
        content: Content = Virtual(size, seed)
        if filename.endswith(".whl"):
            sidecar = f"Metadata-Version: 2.2\nName: project-{number:07}\nVersion: {version}\n".encode()
            if self.archives:
                info = f"project_{number:07}-{version}.dist-info"
                content = Ended(max(size, _SMALLEST_WHEEL), seed, partial(metadata_member, info, sidecar))
        return UploadedFile(
            filename,
            content,
            sidecar=sidecar,
            upload_time=moment.strftime(f"%Y-%m-%dT%H:%M:%S.{number % 1000000:06}Z"),
            requires_python=">=3.8",
        )

    def _share(self, number: int, position: int) -> float:
        """Between 0.1 and 1.9, 1 on average, without any state."""
        mixed = (number * 2_654_435_761 + position * 40_503 + self.seed * 97) & 0xFFFFFFFF
        mixed = (mixed ^ (mixed >> 15)) * 2_246_822_519 & 0xFFFFFFFF
        return 0.1 + 1.8 * (mixed / 0x100000000)


def _long_tail(share: float) -> float:
    """Log-normal where ``share`` is even between 0.1 and 1.9; 1 on average too, at most 50."""
    place = min(max((share - 0.1) / 1.8, 1e-9), 1 - 1e-9)
    deviation = 1.25
    return min(50.0, exp(deviation * NormalDist().inv_cdf(place) - deviation**2 / 2))


def uploaded(built: Built, **more: Any) -> UploadedFile:
    """What :mod:`heliostat.fakeindex.wheels` built, to publish; a wheel gets its sidecar."""
    sidecar = built.metadata if built.filename.endswith(".whl") else None
    return UploadedFile(built.filename, built.data, **{"sidecar": sidecar, **more})


def provenance_for(file: UploadedFile, *, repository: str = "example/demo") -> dict[str, Any]:
    """A PEP 740 object of the right form for a file; its signatures are not genuine."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.filename, "digest": {"sha256": file.content.digests.sha256}}],
        "predicateType": "https://docs.example.org/attestations/publish/v1",
        "predicate": None,
    }
    attestation = {
        "version": 1,
        "verification_material": {
            "certificate": base64.b64encode(b"not a certificate").decode(),
            "transparency_entries": [{"logIndex": "1"}],
        },
        "envelope": {
            "statement": base64.b64encode(msgspec.json.encode(statement)).decode(),
            "signature": base64.b64encode(b"not a signature").decode(),
        },
    }
    publisher = {
        "kind": "GitHub",
        "repository": repository,
        "workflow": "release.yml",
        "environment": "",
    }
    return {"version": 1, "attestation_bundles": [{"publisher": publisher, "attestations": [attestation]}]}


def _installable(index: Index) -> None:
    """Real distributions; alpha needs Beta.Lib, which needs gamma_sdist, of which there are only sdists."""
    needs, extras = ["Beta.Lib >=1.0"], {"more": ["zeta"]}
    for version in ("1.0", "1.1"):
        index.publish(
            "alpha",
            version,
            [
                uploaded(build("alpha", version, needs, requires_python=">=3.8", extras=extras))
                for build in (wheel, sdist)
            ],
            requires_python=">=3.8",
            info={
                "summary": "Needs another one",
                "description": 'Ein Text mit Umlauten: äöü, and <html> & "quotes"\r\nand lines\n',
                "requires_dist": ["Beta.Lib >=1.0", 'zeta; extra == "more"'],
                "provides_extra": ["more"],
                "classifiers": ["Programming Language :: Python :: 3"],
                "project_urls": {"Homepage": "https://example.org/alpha"},
            },
        )
    index.publish("Beta.Lib", "1.0", [uploaded(wheel("Beta.Lib", "1.0", ["gamma_sdist"]))])
    index.publish("Beta.Lib", "2.0rc1", [uploaded(wheel("Beta.Lib", "2.0rc1", ["gamma_sdist"]))])
    index.publish("gamma_sdist", "0.9", [uploaded(sdist("gamma_sdist", "0.9"))])
    twice = [uploaded(sdist("gamma_sdist", "1.0", zipped=zipped)) for zipped in (False, True)]
    index.publish("gamma_sdist", "1.0", twice)
    index.publish("zeta", "1!3.1", [uploaded(wheel("zeta", "1!3.1"))])
    signed = uploaded(wheel("signed", "1.0"))
    index.publish("signed", "1.0", [signed])
    index.set_provenance("signed", "1.0", signed.filename, provenance_for(signed))
    index.publish("late-metadata", "1.0", [uploaded(wheel("late-metadata", "1.0"), sidecar=None)])


def _lifecycle(index: Index) -> None:
    """What can happen to a project."""
    for version in ("1.0", "1.1", "1.2"):
        index.publish("yanked-releases", version, [uploaded(wheel("yanked-releases", version))])
    index.yank("yanked-releases", "1.1", 'bröken: <see> "issue" & more')
    index.yank("yanked-releases", "1.2")
    index.create("no-release")
    index.publish("no-files", "1.0")
    index.publish("files-deleted", "1.0", [uploaded(wheel("files-deleted", "1.0"))])
    index.release_files("files-deleted", "1.0")
    for version in ("1.0", "2.0"):
        index.publish("one-release-quarantined", version, [uploaded(wheel("one-release-quarantined", version))])
    index.quarantine_release("one-release-quarantined", "2.0")
    index.publish("quarantined", "1.0", [uploaded(wheel("quarantined", "1.0"))])
    index.quarantine("quarantined")
    index.publish("archived", "1.0", [uploaded(wheel("archived", "1.0"))])
    index.archive("archived")
    index.publish("came-back", "1.0", [uploaded(wheel("came-back", "1.0"))])
    index.remove_project("came-back")
    index.publish("Came_Back", "2.0", [uploaded(wheel("Came_Back", "2.0"))])
    index.publish("gone", "1.0", [uploaded(wheel("gone", "1.0"))])
    index.remove_project("gone")
    index.publish("vulnerable", "1.0", [uploaded(wheel("vulnerable", "1.0"))])
    index.set_vulnerabilities(
        "vulnerable",
        "1.0",
        [{"aliases": ["CVE-2026-0001"], "details": "d", "fixed_in": ["1.1"], "id": "X-1", "link": None,
          "source": "osv", "summary": None, "withdrawn": None}],
    )  # fmt: skip


def _odd(index: Index) -> None:
    """Odd names, old kinds of files, odd times."""
    odd = [
        UploadedFile(name, Virtual(200 + number, number), comment_text="<i>odd</i>" if number == 3 else "")
        for number, name in enumerate(ODD_FILENAMES)
    ]
    index.publish("Odd.._-Files", "1.0", odd, requires_python=">=2.7, !=3.0.*, <4")
    endings = ("-py2.5.egg", ".win32-py2.5.exe", ".win32-py2.5.msi", "-1.noarch.rpm", "-1.src.rpm", "-py2.5-macosx.dmg")
    old = [
        UploadedFile(f"old-0.1{ending}", Virtual(300 + number, number), upload_time=f"2007-05-01T10:20:{number:02}Z")
        for number, ending in enumerate(endings)
    ]
    old.append(UploadedFile("old-0.1.macosx-10.7-intel.tar.gz", Virtual(320, 5), packagetype="bdist_dumb"))
    old.append(UploadedFile("old-0.1.tar.bz2", Virtual(321, 6), upload_time="2007-05-01T10:20:34.000001Z"))
    index.publish("old", "0.1", old)
    index.publish("old", "unknown", [UploadedFile("old-unknown.zip", Virtual(10, 7))])
    index.publish("old", "1.0-alpha", [UploadedFile("old-1.0-alpha.tar.gz", Virtual(11, 8))])
    index.publish("old", ".9", [UploadedFile("old-.9.tar.gz", Virtual(12, 9))])
    index.publish("0-._.-._.-._.-0", "0.1", [UploadedFile("0-0-0.1.tar.gz", Virtual(13, 10))])
    for name in ("json", "simple", "packages", "con", "index.html"):
        index.publish(name, "1.0", [UploadedFile(f"{name}-1.0.tar.gz", Virtual(14, 11))])
    index.publish("l" + "o" * 200 + "ng", "1", [UploadedFile("long-1.tar.gz", Virtual(15, 12))])
    index.publish("empty-file", "1.0", [UploadedFile("empty-file-1.0.zip", b"")])
    twin = Virtual(500, 77)
    index.publish("twin-a", "1.0", [UploadedFile("twin-1.0.zip", twin)])
    index.publish("twin-b", "1.0", [UploadedFile("twin-1.0.zip", twin)])
    index.recase("archived", "ARCHIVED")
