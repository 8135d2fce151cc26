"""The ledger's rows as frozen values, and what a finished try writes back."""

from __future__ import annotations

import builtins
import json
from typing import Literal

import msgspec

from heliostat.model import ProjectName

State = Literal["current", "pending", "failing", "blocked", "held", "excluded", "quarantined", "gone", "retained"]
Kind = Literal["doomed", "withheld", "claimed", "extra", "waiting", "retained", "original"]
#: What is said of no project any more once it is gone; what is doomed still has to go.
CLEARED_WITH_PROJECT: tuple[Kind, ...] = ("withheld", "claimed", "extra", "waiting", "retained", "original")
#: What becomes of a doomed path; ``restored``: its bytes are offered again, only a copy out of reach goes;
#: ``keep``: like ``withhold``, but not for a quarantine, and not for ever.
Fate = Literal["unlink", "withhold", "keep", "restored"]
#: What a tombstone tells.
Buried = Literal["removed", "withheld", "retained", "restored", "expired"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One project as the ledger knows it; serials are upstream's, times seconds since the epoch."""

    name: ProjectName
    display: str
    wanted_serial: int
    accepted_serial: int
    owed_serial: int | None
    page_serial: int | None
    published: bool
    due_at: float | None
    why: str | None
    state: State
    attempts: int
    error: str | None
    files: int
    bytes: int
    hint: str | None
    hint_serial: int | None
    absent_serial: int | None
    missing_at: float | None
    missing_pass: int | None
    page_etag: str | None
    document_etag: str | None
    named: bool
    extra: bool
    quarantined_releases: str | None = None
    withdrawn: str | None = None
    behind_tries: int = 0
    behind_since: float | None = None
    stuck_since: float | None = None
    stuck_tries: int = 0
    #: Paths of it have an open fate.
    open_paths: bool = True

    @property
    def untouched(self) -> bool:
        """The ledger knows of nothing that this project has, or had, in the tree."""
        return not self.published and not self.open_paths

    @property
    def stuck(self) -> bool:
        """It was accepted as it is although upstream stayed behind, and nothing newer was announced."""
        return self.stuck_since is not None and self.owed_serial is None

    @property
    def releases_in_quarantine(self) -> frozenset[str]:
        """Versions that the feed says are in quarantine."""
        return frozenset(json.loads(self.quarantined_releases or "[]"))

    @property
    def removed_since(self) -> frozenset[str]:
        """Versions and names of files that the feed said were removed after the page was published."""
        return frozenset(json.loads(self.withdrawn or "[]"))


_OPEN_PATHS = (
    "(EXISTS (SELECT 1 FROM paths WHERE paths.project = projects.name)"
    " OR EXISTS (SELECT 1 FROM incoming WHERE incoming.project = projects.name))"
)
#: What to select of ``projects`` for a :class:`Row`.
ROW_COLUMNS = ", ".join(_OPEN_PATHS if field == "open_paths" else field for field in Row.__struct_fields__)


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A project whose tree is now as upstream's page of ``page_serial`` says."""

    name: ProjectName
    display: str
    #: The serial the try was for; a higher one may have been announced meanwhile.
    wanted_serial: int
    #: Satisfied up to here: at least ``wanted_serial``.
    accepted_serial: int
    page_serial: int | None
    state: State
    files: int
    bytes: int
    policy: str
    page_etag: str | None
    document_etag: str | None
    checked_at: float
    extra: bool
    #: That of the document that is published; see :func:`heliostat.store.incoming.document_digest`.
    document_digest: builtins.bytes | None = None
    #: Why it was accepted although upstream stayed behind; said in the row's error.
    stuck: str | None = None
    #: When to look again whether upstream has caught up.
    due_at: float | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A try that did not publish: the row stays owed, or is blocked or held."""

    name: ProjectName
    wanted_serial: int
    state: State
    error: str
    due_at: float | None
    missing_at: float | None = None
    missing_pass: int | None = None
    #: When upstream was found behind what it announced, if that is why.
    behind_at: float | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What only a ledger knows of projects, and a rebuild cannot read from the tree."""

    #: There was no ledger to ask.
    lost: bool = False
    #: Asked for by name, outside the configured scope.
    named: frozenset[str] = frozenset()
    #: Versions in quarantine by project, as the ledger writes them.
    quarantined_releases: dict[str, str] = {}


class PathRow(msgspec.Struct, frozen=True):
    """A path whose fate is open."""

    path: str
    project: str
    kind: Kind
    fate: Fate | None = None
    serial: int | None = None
    #: The release of the file, where that is known and matters.
    version: str | None = None
    #: Since when it is kept, with the fate ``keep``; seconds since the epoch.
    at: float | None = None


class KeptFile(msgspec.Struct, frozen=True):
    """What our page said of a file that was removed, and whose bytes are kept."""

    project: str
    path: str
    version: str | None
    #: In JSON: the file as the page's model has it, and its entry in the document.
    listed: str
    described: str | None


class Denied(msgspec.Struct, frozen=True):
    """What an operator does not want; ``version`` is empty for a whole project."""

    project: str
    version: str
    #: ``configuration``, or ``operator`` for what ``heliostat delete`` added.
    origin: str
    #: Seconds since the epoch.
    at: float
    reason: str
    #: Nothing of it is kept, whatever the policy says.
    purge: bool = False

    @property
    def entry(self) -> str:
        return f"{self.project}=={self.version}" if self.version else self.project


class Tombstone(msgspec.Struct, frozen=True):
    """What was removed, or became of it: of a project (``path`` and ``version`` null), a release, or a file."""

    at: float
    project: str
    path: str | None
    serial: int | None
    reason: str
    approved: bool = False
    version: str | None = None
    what: Buried = "removed"

    @property
    def values(self) -> tuple[object, ...]:
        """As the ledger's columns ``TOMBSTONE_COLUMNS`` have them."""
        return (
            self.at, self.project, self.path, self.serial, self.reason, self.approved, self.version, self.what,
        )  # fmt: skip


TOMBSTONE_COLUMNS = "at, project, path, serial, reason, approved, version, what"
