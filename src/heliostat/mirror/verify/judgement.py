"""What a judge is given of one project, and what it says."""

from __future__ import annotations

import msgspec

from heliostat.mirror.verify.findings import Finding
from heliostat.mirror.verify.ground import Known
from heliostat.mirror.verify.reading import Stamp
from heliostat.model import ProjectPage


class Found(msgspec.Struct, gc=False):
    """Where a name was met."""

    name: str
    simple: bool = False
    document: bool = False
    link: bool = False
    #: What the root pages show: -1 not at all, -2 that nobody looked; ``root_json`` 0 for an entry without serial.
    root_json: int = -2
    root_html: int = -2
    row: Known | None = None


class UpstreamDocument(msgspec.Struct, frozen=True):
    """What upstream serves as a project's document, as far as it is to be compared."""

    serial: int | None
    #: What it says of files, see :func:`heliostat.mirror.verify.differences.facts`; None where ours is to differ.
    facts: bytes | None


class Upstream(msgspec.Struct, frozen=True):
    """What upstream says of a project now; ``page`` is None for a project that it does not have."""

    page: ProjectPage | None
    serial: int | None
    #: None also where upstream says that it is still the one that was published here.
    document: UpstreamDocument | None = None


class Judgement(msgspec.Struct):
    """What was found of one project."""

    findings: list[Finding] = []
    claims: list[bytes] = []
    #: The pages in all forms could be read, so that nothing else can be claimed.
    readable: bool = True
    serial: int | None = None
    #: The states of the files that were read, to tell whether they changed meanwhile.
    stamps: list[Stamp] = []
