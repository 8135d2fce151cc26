"""What of upstream's this mirror does not show, and what of its own it keeps: configuration and ledger together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from heliostat.config import Config
from heliostat.mirror.places import scope_of
from heliostat.model import ProjectName
from heliostat.names import normalise
from heliostat.policy.denials import Denials, Entry, Versions, parse_entry
from heliostat.policy.removal import Policy, RemovalPolicy
from heliostat.policy.scope import Scope
from heliostat.state.ledger import Ledger
from heliostat.state.rows import Denied

#: What a tombstone says of what the configuration denies.
DENIED = "denied by the configuration"


class Rules(msgspec.Struct, frozen=True, dict=True):
    """As they were when they were read."""

    scope: Scope
    denials: Denials = Denials()
    removal: RemovalPolicy = RemovalPolicy()
    #: Why something is denied, by entry.
    reasons: Mapping[Entry, str] = {}
    #: Of which nothing is kept: versions by project, an empty one for all of it.
    purged: Mapping[str, frozenset[str]] = {}
    #: What was restored although upstream removed it: versions by project, an empty one for all of it.
    restored: Mapping[str, frozenset[str]] = {}

    @cached_property
    def _amending(self) -> frozenset[str]:
        return frozenset(self.denials.releases) | frozenset(self.restored)

    def amend(self, name: str) -> bool:
        """Whether a project's page may have to be another one than upstream's."""
        return name in self._amending or self.removal.of(name) == "retain"

    def retains(self, name: str) -> bool:
        """Whether a whole project stays when upstream removes it."""
        return self.removal.of(name) == "retain" or "" in self.restored.get(name, ())

    def retained_versions(self, name: str) -> frozenset[str] | None:
        """The releases that stay when upstream removes them; None for all."""
        return None if self.retains(name) else self.restored.get(name, frozenset())

    def keeps(self, name: str, version: str = "") -> bool:
        """Whether the bytes of what is removed are kept for a while."""
        purged = self.purged.get(name)
        if purged and ("" in purged or version in Versions(purged)):
            return False
        return self.removal.of(name) == "withhold"

    def why_denied(self, name: ProjectName, version: str | None) -> str | None:
        """Why a project is denied, or a release of it; None when it is not."""
        if name in self.denials.projects:
            return self.reasons.get(Entry(name), DENIED)
        for denied in self.denials.releases.get(name, ()) if version else ():
            if version in Versions([denied]):
                return self.reasons.get(Entry(name, denied), DENIED)
        return None


def configured_denials(config: Config) -> list[Entry]:
    """``[mirror] deny``."""
    return [parse_entry(text) for text in config.mirror.deny]


def removal_policy(config: Config) -> RemovalPolicy:
    """``[removal]``."""
    removal = config.removal
    lists: tuple[tuple[Policy, Iterable[str]], ...] = (
        ("propagate", removal.propagate), ("withhold", removal.withhold), ("retain", removal.retain),
    )  # fmt: skip
    by_name: dict[ProjectName, Policy] = {normalise(name): policy for policy, names in lists for name in names}
    return RemovalPolicy(removal.policy, by_name)


def rules_of(config: Config, ledger: Ledger) -> Rules:
    """What counts now; belongs to the keeper's thread."""
    return _rules(config, ledger.denied(), ledger.denials.retained())


def _rules(config: Config, denied: list[Denied], retained: list[tuple[str, str]]) -> Rules:
    by_operator = [row for row in denied if row.origin == "operator"]
    added = {Entry(ProjectName(row.project), row.version): f"deleted: {row.reason}" for row in by_operator}
    denials = Denials.of([*configured_denials(config), *added])
    return Rules(
        msgspec.structs.replace(scope_of(config), denied=denials.projects),
        denials,
        removal_policy(config),
        added,
        _by_project((row.project, row.version) for row in by_operator if row.purge),
        _by_project(retained),
    )


def _by_project(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for project, version in pairs:
        found.setdefault(project, set()).add(version)
    return {project: frozenset(versions) for project, versions in found.items()}
