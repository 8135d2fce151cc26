"""What is to be verified, and how closely: of a tree on this machine, and of a site."""

from __future__ import annotations

import msgspec


class _Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    #: Presence and size only; of a site pages only.
    quick: bool = False
    #: Only these; empty: all.
    projects: tuple[str, ...] = ()
    #: Only projects whose page has a greater serial, or was written at this time or later (seconds since the epoch).
    since_serial: int | None = None
    since_time: float | None = None

    @property
    def whole(self) -> bool:
        """Everything is looked at: what nobody names can be told, and root lists can be compared."""
        return not self.projects and self.since_serial is None and self.since_time is None

    def key(self, place: str) -> str:
        """Tells one question about a web root, or a site, from another, for a position on disk."""
        return f"{place} {msgspec.json.encode(self).decode()}"


class Asked(_Asked, frozen=True, omit_defaults=True):
    """Of a tree."""

    #: Hash only this share of the files, or so many of them.
    sample_share: float | None = None
    sample_most: int | None = None
    #: Compare with upstream's pages.
    against_upstream: bool = False


class SiteAsked(_Asked, frozen=True, omit_defaults=True):
    """Of a site."""

    #: Read this share of the files, or so many of them, and compare digests.
    share: float = 0.0
    most: int = 0
    against_upstream: bool = False
