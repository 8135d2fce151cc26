"""What becomes of what upstream removed, or the operator deleted: for all projects, and for some by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from heliostat.model import ProjectName, ProjectPage

#: ``propagate``: it goes here too.  ``withhold``: the same, but its bytes are kept out of reach for a while.
#: ``retain``: what upstream removed stays.
Policy = Literal["propagate", "withhold", "retain"]

#: What pages say of what upstream removed and is retained; it is also how such a page, or file, is known again.
MARK = "removed upstream; kept by this mirror"


def is_retained(page: ProjectPage) -> bool:
    """Whether the page is that of a project which upstream removed, and which is kept."""
    return page.status == "archived" and page.status_reason == MARK


class RemovalPolicy(msgspec.Struct, frozen=True):
    """The policy of each project."""

    default: Policy = "propagate"
    by_name: Mapping[ProjectName, Policy] = {}

    def of(self, name: str) -> Policy:
        return self.by_name.get(ProjectName(name), self.default)

    @property
    def fingerprint(self) -> str:
        """Changes when the policy of any project does."""
        return f"{self.default} {sorted(self.by_name.items())}"
