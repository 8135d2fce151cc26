"""What a project's page, document and ledger row become once its files are there."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence

import msgspec

from heliostat import names
from heliostat.errors import Refused, printable
from heliostat.mirror.files import Ready
from heliostat.mirror.inventory import Inventory
from heliostat.mirror.metadata import Answers
from heliostat.model import DistFile, ProjectPage
from heliostat.pages.links import file_link
from heliostat.pages.render import project_html, project_json
from heliostat.state.rows import Published, Row
from heliostat.store.incoming import document_digest
from heliostat.store.tree import Publication

log = logging.getLogger(__name__)

#: The longest pause before a project accepted as it is is looked at again, in seconds.
_DAY = 86400.0


def fill(publication: Publication, page: ProjectPage, answers: Answers, inventory: Inventory) -> None:
    """Only what differs from what is shown is written."""
    shown = inventory.shown
    publication.fresh = shown is None
    json_page, html_page = project_json(page), project_html(page)
    if shown is None or shown.json_page != json_page:
        publication.json_page = json_page
    if shown is None or shown.html_page != html_page or not shown.html_is_one:
        publication.html_page = html_page
    if answers.document is None:
        publication.drop_document = shown is not None and (shown.document is not None or shown.link_right)
        return
    publication.staged_document = answers.staged
    if answers.body is not None and (shown is None or shown.document != answers.body):
        publication.document = answers.body
    publication.link_missing = shown is None or not shown.link_right


def shown_entry(one: Ready) -> DistFile:
    """The file as our page lists it: verified hashes, a relative link, and a sidecar only where there is one."""
    file = one.want.file
    hashes = dict(file.hashes)
    if one.sha256:
        hashes = {"sha256": one.sha256, **hashes}
    return msgspec.structs.replace(
        file,
        url=file_link(one.path),
        hashes=hashes,
        core_metadata=one.sidecar or file.core_metadata,
    )


def outcome_of(
    row: Row,
    answers: Answers,
    page: ProjectPage,
    ready: Sequence[Ready],
    inventory: Inventory,
    *,
    head: int | None,
    stuck_seconds: float,
) -> Published:
    """Its row.

    ``head`` is upstream's own serial, where it is known, ``stuck_seconds`` the first pause of a stuck project.
    """
    display = answers.document.display_name if answers.document else None
    return Published(
        name=row.name,
        display=display if display and _same_project(display, row.name) else row.display,
        wanted_serial=row.wanted_serial,
        # What a page claims beyond what upstream is known to have reached must not silence later events.
        accepted_serial=max(row.wanted_serial, min(answers.serial or 0, head or 0)),
        page_serial=answers.serial,
        state="quarantined" if page.quarantined else "retained" if answers.gone else "current",
        files=max(len(ready), len(page.files)),
        bytes=sum(one.want.size or 0 for one in ready),
        policy="",
        page_etag=answers.page_etag,
        document_etag=answers.document_etag,
        document_digest=_digest(answers, inventory),
        checked_at=time.time(),
        extra=any(not one.want.listed for one in ready),
        stuck=answers.stuck,
        # What our own tree says does not bring it up to date.
        due_at=_look_again(row, stuck_seconds) if answers.stuck else row.due_at if answers.own else None,
    )


def _look_again(row: Row, first: float) -> float:
    """Doubling pauses with jitter, from ``first`` seconds to a day."""
    pause = min(max(_DAY, first), first * 2.0 ** min(row.stuck_tries, 30))
    return time.time() + pause * random.uniform(0.75, 1.25)


def _digest(answers: Answers, inventory: Inventory) -> bytes | None:
    """That of the document that is shown from now on; None where there is none."""
    if answers.document is None or answers.staged is not None:
        return answers.staged_digest
    body = answers.body or (inventory.shown.document if inventory.shown is not None else None)
    return None if body is None else document_digest(body)


def _same_project(display: str, name: str) -> bool:
    try:
        return names.normalise(display) == name
    except Refused:
        log.warning("%s: the document calls it %s", name, printable(display))
        return False
