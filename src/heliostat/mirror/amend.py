"""Where a project's page and document are to differ from upstream's: releases that are denied, files that are retained.

A file that upstream removed and that is retained is offered as yanked: who asks for just that release gets it, and
nobody else is led to it.  The document tells the same as the page.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from heliostat import names
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.metadata import Answers
from heliostat.mirror.rules import Rules
from heliostat.mirror.wanted import provenance_path
from heliostat.model import DistFile, Document, DocumentFile, ProjectName, ProjectPage
from heliostat.pages.document import parse_document
from heliostat.pages.links import file_link, local_document_url, package_of
from heliostat.policy.denials import Versions, release_of
from heliostat.policy.removal import MARK
from heliostat.state.rows import KeptFile
from heliostat.store.tree import Tree

_RELEASES = msgspec.json.Decoder(dict[str, list[msgspec.Raw] | None])
_ANY = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Named(msgspec.Struct):
    filename: str = ""


_NAMED = msgspec.json.Decoder(_Named)


class Lost(NamedTuple):
    """A file that upstream does not list and that is to be shown."""

    file: DistFile
    version: str | None
    #: Its entry in the document, as far as there is one.
    described: bytes | None


def amend(
    tree: Tree,
    rules: Rules,
    name: ProjectName,
    answers: Answers,
    inventory: Inventory,
    *,
    kept: Sequence[KeptFile],
    withheld: Collection[str],
) -> Answers:
    """Page and document as they are to be shown; ``answers`` itself where that is what upstream says.

    ``kept`` is what pages said of files that are among the paths ``withheld``.  Blocks.
    """
    if answers.gone:
        answers = msgspec.structs.replace(
            answers, page=msgspec.structs.replace(answers.page, status="archived", status_reason=MARK)
        )
    versions = Versions(rules.denials.releases.get(name, ()))
    described = {entry.filename: entry.version for entry in answers.document.files} if answers.document else {}
    denied = {
        filename
        for filename in {file.filename for file in answers.page.files} | described.keys()
        if versions and versions.has_file(filename, described.get(filename))
    }
    lost = [] if answers.page.quarantined else _lost(tree, rules, name, answers, inventory, kept, withheld)
    lost = [one for one in lost if not (versions and versions.has_file(one.file.filename, one.version))]
    listed = answers.page.versions or ()
    if not denied and not lost and not any(version in versions for version in listed):
        return answers
    page = _page(answers.page, denied, versions, lost)
    source = answers.body
    if source is None and answers.unchanged and inventory.shown is not None:
        source = inventory.shown.document
    if answers.document is None or source is None:
        return msgspec.structs.replace(answers, page=page, retained=frozenset(one.file.filename for one in lost))
    body = document_without(source, denied, versions, lost)
    document = None if body is None else _document(answers.document, denied, versions, lost)
    changed = body is None or body != source
    return msgspec.structs.replace(
        answers,
        page=page,
        body=body,
        document=document,
        unchanged=answers.unchanged and not changed,
        keep_document=answers.keep_document and body is not None,
        retained=frozenset(one.file.filename for one in lost),
        original=gzip.compress(source, 6, mtime=0) if changed and not answers.unchanged else None,
        amended=changed,
        original_kept=tree.disk.stat(names.original_path(name)) is not None,
    )


def original_of(tree: Tree, name: ProjectName) -> bytes | None:
    """Upstream's own document, where one is kept that can be read."""
    packed = tree.disk.read(names.original_path(name))
    try:
        return None if packed is None else gzip.decompress(packed)
    except (OSError, EOFError):
        return None


# -- what is retained ------------------------------------------------------------------------------------------


def _lost(
    tree: Tree,
    rules: Rules,
    name: ProjectName,
    answers: Answers,
    inventory: Inventory,
    kept: Sequence[KeptFile],
    withheld: Collection[str],
) -> list[Lost]:
    """Files that upstream has not, that are to stay, and whose bytes are there; the order is that of our page."""
    wanted = rules.retained_versions(name)
    if wanted is not None and not wanted:
        return []
    versions = Versions(wanted or ())
    theirs = {file.filename for file in answers.page.files}
    found: list[Lost] = []
    page = inventory.page
    if page is not None and not page.quarantined:
        ours = {entry.filename: entry.version for entry in inventory.document.files} if inventory.document else {}
        missing = [file for file in page.files if file.filename not in theirs and package_of(file.url) is not None]
        entries = entries_in(inventory, {file.filename for file in missing})
        found += [
            Lost(_marked(tree, name, file, withheld), ours.get(file.filename) or release_of(file.filename),
                 entries.get(file.filename))
            for file in missing
        ]  # fmt: skip
    if name in rules.restored:
        known = theirs | {one.file.filename for one in found}
        for row in kept:
            one = kept_file(row)
            if one.file.filename not in known:
                found.append(one._replace(file=_marked(tree, name, one.file, withheld)))
    return [
        one
        for one in found
        if (wanted is None or versions.has_file(one.file.filename, one.version))
        and _is_there(tree, package_of(one.file.url) or "", withheld)
    ]


def _is_there(tree: Tree, path: str, withheld: Collection[str]) -> bool:
    return bool(path) and (
        tree.disk.stat(path) is not None or (path in withheld and tree.disk.stat(names.withheld_path(path)) is not None)
    )


def _marked(tree: Tree, name: ProjectName, file: DistFile, withheld: Collection[str]) -> DistFile:
    """Yanked, and without what nobody has any more: upstream cannot be asked for it."""
    changes: dict[str, Any] = {} if file.yanked else {"yanked": MARK}
    path = package_of(file.url)
    if path and file.core_metadata and not _is_there(tree, names.sidecar_path(path), withheld):
        changes["core_metadata"] = None
    if file.provenance:
        beside = provenance_path(name, file.provenance, file.filename)
        if not _is_there(tree, beside, withheld):
            changes["provenance"] = None
    return msgspec.structs.replace(file, **changes)


def kept_file(row: KeptFile) -> Lost:
    """What a page said of a file that was removed."""
    file = msgspec.json.decode(row.listed, type=DistFile)
    return Lost(
        msgspec.structs.replace(file, url=f"file:///{file_link(row.path).removeprefix('../../')}"),
        row.version,
        row.described.encode() if row.described is not None else None,
    )


def entries_in(inventory: Inventory, filenames: Collection[str]) -> dict[str, bytes]:
    """The entries of files in our own document."""
    body = inventory.shown.document if inventory.shown is not None else None
    if not filenames or body is None or inventory.document is None:
        return {}
    releases = _ANY.decode(body).get("releases")
    if releases is None:
        return {}
    found: dict[str, bytes] = {}
    for release in _RELEASES.decode(releases).values():
        for entry in release or ():
            if (filename := _NAMED.decode(entry).filename) in filenames:
                found[filename] = bytes(entry)
    return found


# -- the page --------------------------------------------------------------------------------------------------


def _page(page: ProjectPage, denied: Collection[str], versions: Versions, lost: Sequence[Lost]) -> ProjectPage:
    files = [file for file in page.files if file.filename not in denied] + [one.file for one in lost]
    listed = page.versions
    if listed is not None:
        more = [one.version for one in lost if one.version is not None and one.version not in listed]
        listed = tuple(dict.fromkeys([*(one for one in listed if one not in versions), *more]))
    return msgspec.structs.replace(page, files=tuple(files), versions=listed)


# -- the document ----------------------------------------------------------------------------------------------


def _document(document: Document, denied: Collection[str], versions: Versions, lost: Sequence[Lost]) -> Document:
    added = [
        DocumentFile(
            filename=one.file.filename, url=one.file.url, hashes=one.file.hashes, size=one.file.size,
            upload_time=one.file.upload_time, yanked=one.file.yanked, core_metadata=one.file.core_metadata,
            version=one.version,
        )
        for one in lost
        if one.described is not None and one.version is not None
    ]  # fmt: skip
    files = [file for file in document.files if file.filename not in denied]
    kept = [version for version in document.versions if version not in versions]
    more = [one.version for one in lost if one.described is not None and one.version and one.version not in kept]
    return msgspec.structs.replace(document, files=(*files, *added), versions=tuple(dict.fromkeys([*kept, *more])))


def document_without(
    body: bytes, denied: Collection[str], versions: Versions, lost: Sequence[Lost] = ()
) -> bytes | None:
    """A document without some files and releases, and with what is retained; None when no release is left.

    ``body`` itself where nothing changes.  What it says of the project as a whole is that of its newest release;
    where that one goes, the version is that of the newest one left, and what only the other one required is left out.
    """
    whole = _ANY.decode(body)
    raw = whole.get("releases")
    if raw is None:
        return body
    releases = dict(_RELEASES.decode(raw))
    kept: dict[str, list[msgspec.Raw]] = {}
    changed = False
    for version, release in releases.items():
        entries = release or []
        left = [entry for entry in entries if _NAMED.decode(entry).filename not in denied] if denied else entries
        if version in versions:
            changed = True
            continue
        changed |= len(left) < len(entries)
        kept[version] = left
    for one in lost:
        if one.described is not None and one.version is not None:
            kept.setdefault(one.version, []).append(_yanked(one))
            changed = True
    if not changed:
        return body
    if not kept:
        return None
    info = msgspec.json.decode(whole.get("info", b"{}"))
    newest = info.get("version") if isinstance(info, dict) else None
    if isinstance(info, dict) and newest not in kept:
        newest = _newest(kept)
        _describe(info, newest, kept[newest])
        whole["info"] = msgspec.Raw(msgspec.json.encode(info))
    if "urls" in whole and newest in kept:
        whole["urls"] = msgspec.Raw(msgspec.json.encode(kept[newest]))
    whole["releases"] = msgspec.Raw(msgspec.json.encode(kept))
    return msgspec.json.encode(whole)


def _yanked(one: Lost) -> msgspec.Raw:
    assert one.described is not None
    entry = msgspec.json.decode(one.described)
    if not entry.get("yanked"):
        entry |= {"yanked": True, "yanked_reason": MARK}
    if one.file.core_metadata is None:
        for key in ("core-metadata", "data-dist-info-metadata"):
            if entry.get(key):
                entry[key] = False
    return msgspec.Raw(msgspec.json.encode(entry))


def _newest(releases: Mapping[str, Sequence[msgspec.Raw]]) -> str:
    """The newest one that is no preview and has files; failing that, the newest."""
    from packaging.version import InvalidVersion, Version

    def rank(version: str) -> tuple[bool, bool, Version, str]:
        try:
            parsed = Version(version)
        except InvalidVersion:
            parsed = Version("0")
        return bool(releases[version]), not parsed.is_prerelease, parsed, version

    return max(releases, key=rank)


def _describe(info: dict[str, Any], version: str, files: Sequence[msgspec.Raw]) -> None:
    before, info["version"] = info.get("version"), version
    first = msgspec.json.decode(files[0]) if files else {}
    for key, value in (
        ("requires_dist", None), ("provides_extra", None), ("requires_python", first.get("requires_python")),
        ("yanked", bool(first.get("yanked"))), ("yanked_reason", first.get("yanked_reason")),
    ):  # fmt: skip
        if key in info:
            info[key] = value
    if isinstance(url := info.get("release_url"), str) and isinstance(before, str):
        info["release_url"] = url.replace(f"/{before}/", f"/{version}/")


def own_document(body: bytes, name: ProjectName) -> Document:
    """Raises Invalid."""
    return parse_document(body, url=local_document_url(name), name=name)
