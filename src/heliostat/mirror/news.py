"""What the log says of a project: one line each time, and the same as fields for those who read JSON.

Nothing is built for a line that nobody sees.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("heliostat.mirror")


def published(project: str, serial: int | None) -> None:
    """Its pages and files are in the tree, durable and recorded."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s: published, serial %s", project, serial, extra=_fields("published", project, serial=serial))


def removed(project: str, reason: str) -> None:
    """It is not in the tree any more."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s: removed: %s", project, reason, extra=_fields("removed", project, reason=reason))


def failed(project: str, reason: object, *, known: bool) -> None:
    """It stays owed, and is tried again.  ``known``: for the same reason as the last time."""
    level = logging.DEBUG if known else logging.WARNING
    log.log(level, "%s: %s", project, reason, extra=_fields("failed", project))


def blocked(project: str, reason: str, *, known: bool) -> None:
    """It is refused; to try again would not help.  ``known``: for the same reason as the last time."""
    level = logging.DEBUG if known else logging.WARNING
    log.log(level, "%s: blocked: %s", project, reason, extra=_fields("blocked", project))


def _fields(event: str, project: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {"fields": {"event": event, "project": project, **more}}
