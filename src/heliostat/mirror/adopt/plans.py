"""What is to be done about one project, once all its files were looked at."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from heliostat import names
from heliostat.errors import Refused
from heliostat.mirror.adopt.catalogue import JSON, PYPI
from heliostat.mirror.adopt.drafts import Draft
from heliostat.mirror.adopt.eye import Eye
from heliostat.mirror.adopt.files import Seen, places_of
from heliostat.mirror.adopt.report import Finding
from heliostat.model import DistFile, Document, ProjectName, ProjectPage
from heliostat.pages.links import file_link, package_of
from heliostat.pages.render import project_html, project_json
from heliostat.store.tree import Publication


class Relocation(msgspec.Struct, frozen=True):
    """A file that is to get its content-addressed places: one for each digest that an upstream may name it by."""

    source: str
    targets: tuple[str, ...]
    #: None for a sidecar, which any other one of the same file may stand in for.
    sha256: str | None = None


class Plan(msgspec.Struct, kw_only=True):
    """One project; applied in the order of the fields."""

    name: ProjectName
    in_the_way: list[str] = []
    relocations: list[Relocation] = []
    modes: list[str] = []
    publication: Publication | None = None
    #: What is published from now on; None where nothing could be read.
    page: ProjectPage | None = None
    document: Document | None = None
    row: dict[str, object] | None = None
    aside: list[str] = []
    #: Bytes at old places: doomed when the page does not name them any more.
    doomed: list[str] = []
    leftovers: list[str] = []
    findings: list[Finding] = []
    files: int = 0
    bytes: int = 0
    hashed: int = 0


def plan_for(eye: Eye, draft: Draft, looks: Iterable[Seen], *, tool: str, elsewhere: bool) -> Plan:
    """What to do.  ``elsewhere``: a mirror without files, so that none is missing."""
    plan = Plan(
        name=draft.name, in_the_way=draft.in_the_way, leftovers=list(draft.leftovers), findings=list(draft.findings)
    )
    files: list[DistFile] = []
    same = draft.in_place
    for seen in looks:
        plan.hashed += seen.hashed
        if not seen.there and seen.entry.file.url.startswith(("http://", "https://")):  # as good as it was before
            files.append(seen.entry.file)
            plan.findings += [] if elsewhere else seen.findings
            continue
        plan.findings += seen.findings
        plan.aside += seen.aside
        plan.leftovers += seen.leftovers
        if not seen.right or seen.entry.path is None:
            same = False
            continue
        file, as_it_was = _settle(plan, seen)
        same = same and as_it_was
        files.append(file)
        plan.files += 1
        plan.bytes += seen.size
        plan.modes += seen.modes
    plan.findings += [Finding("mode", path, plan.name, "made readable") for path in plan.modes]
    plan.findings += [Finding("removed", path, plan.name, f"left by {tool}") for path in plan.leftovers]
    if draft.page is not None:
        same = same and len(files) == len(draft.page.files)
        plan.document = draft.document
        plan.page = msgspec.structs.replace(draft.page, files=tuple(files))
        plan.publication = _publication(eye, draft, plan.page, same=same)
        plan.row = _row(draft, plan, tool)
    return plan


def _settle(plan: Plan, seen: Seen) -> tuple[DistFile, bool]:
    """The file as our page lists it, and whether that is what the old one says."""
    entry, file = seen.entry, seen.entry.file
    path = entry.path
    assert path is not None
    hashes = file.hashes
    if seen.digests is not None:
        source = path
        targets = places_of(entry, seen.digests)
        path = targets[0]
        hashes = {"sha256": seen.digests["sha256"], **hashes}
        plan.relocations.append(Relocation(source, targets, seen.digests["sha256"]))
        plan.doomed.append(source)
        if seen.sidecar:
            plan.relocations.append(Relocation(names.sidecar_path(source), tuple(map(names.sidecar_path, targets))))
            plan.doomed.append(names.sidecar_path(source))
        plan.findings.append(Finding("renamed", source, plan.name, f"to {targets[0]}"))
    elif "sha256" not in hashes and "sha256" in entry.hashes:
        hashes = {"sha256": entry.hashes["sha256"], **hashes}
    sidecar = seen.sidecar if file.core_metadata else file.core_metadata
    as_it_was = package_of(file.url) == path and sidecar == file.core_metadata and hashes == file.hashes
    settled = msgspec.structs.replace(
        file, url=file_link(path), hashes=hashes, core_metadata=sidecar, provenance=None, size=file.size
    )
    return settled, as_it_was


def _publication(eye: Eye, draft: Draft, page: ProjectPage, *, same: bool) -> Publication:
    name = draft.name
    described = draft.document is not None
    wrong = eye.link(f"{PYPI}/{name}/json") != names.document_link_target(name) or f"{PYPI}/{name}" in draft.in_the_way
    return Publication(
        name=name,
        json_page=None if same else project_json(page),
        html_page=None if same else project_html(page),
        document=draft.body,
        link_missing=described and wrong and (draft.body is not None or eye.lstat(f"{JSON}/{name}") is not None),
    )


def _row(draft: Draft, plan: Plan, tool: str) -> dict[str, object]:
    """Owed, whatever the old page says of its serial: it is another tool's word, perhaps about another upstream."""
    now, page = time.time(), plan.page
    assert page is not None
    return {
        "name": plan.name,
        "display": _display(draft),
        "wanted_serial": 0,
        "accepted_serial": 0,
        "owed_serial": 1,  # nothing was announced, and yet the checkpoint is not to pass it
        "page_serial": None,
        "published": 1,
        "hidden": page.quarantined,
        "due_at": now,
        "why": "changed",
        "state": "pending",
        "error": f"adopted from {tool}; its page and document are to be read from upstream once",
        "files": len(page.files),
        "bytes": plan.bytes,
        "checked_at": now,
    }


def _display(draft: Draft) -> str:
    display = draft.document.display_name if draft.document else None
    try:
        return display if display and names.normalise(display) == draft.name else draft.name
    except Refused:
        return draft.name
