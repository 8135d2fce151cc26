"""What the mirror holds, by project: everything, or the projects that the configuration names."""

from __future__ import annotations

import hashlib

import msgspec

from heliostat.model import ProjectName


class Scope(msgspec.Struct, frozen=True):
    """A set of projects.  ``names`` is empty when ``everything`` is true; what is ``denied`` is never in it."""

    everything: bool
    names: frozenset[ProjectName] = frozenset()
    denied: frozenset[ProjectName] = frozenset()

    def __contains__(self, name: object) -> bool:
        return (self.everything or name in self.names) and name not in self.denied

    @property
    def empty(self) -> bool:
        """Nothing was chosen at all."""
        return not self.everything and not self.names

    @property
    def fingerprint(self) -> str:
        """Changes when the chosen projects do, so that a changed configuration takes effect on what is there.

        What is denied is not part of it: that takes effect by itself, see :mod:`heliostat.mirror.denials`.
        """
        if self.everything:
            return "everything"
        return "names:" + hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()[:32]
