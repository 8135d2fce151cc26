"""Where a mirror's parts lie, and what it holds, as its configuration says."""

from __future__ import annotations

from heliostat.config import Config
from heliostat.names import normalise
from heliostat.policy.scope import Scope

DATABASE = "heliostat.db"
LOCK = ".lock"
#: What an adoption found, beside the ledger.
ADOPTION = "adoption.jsonl"
#: Where files that were found damaged wait until the right ones are in place.
DAMAGED = "withheld/damaged"


def state_directory(config: Config) -> str:
    """Where lock and ledger lie."""
    return config.mirror.state or config.mirror.directory


def scope_of(config: Config) -> Scope:
    """What the configuration says this mirror holds."""
    return Scope(config.mirror.everything, frozenset(normalise(name) for name in config.mirror.projects))
