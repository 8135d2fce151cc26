"""An environment in which variables may be missing, for commands that need no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: What stands for a variable that is not set, where that is put up with.
_NOT_SET = "the-variable-{}-is-not-set"
_STANDS_IN = re.compile(r"the-variable-(\w+)-is-not-set", re.ASCII)


class Environment(dict[str, str]):
    """An environment in which every variable has a value: one that is not set is noted in ``missing``.

    What stands for it is never sent anywhere: see :func:`missing_in`.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.missing: dict[str, None] = {}

    def __missing__(self, name: str) -> str:
        self.missing[name] = None
        return _NOT_SET.format(name)


def missing_in(value: str) -> str | None:
    """The variable that is not set, when something in ``value`` stands for one."""
    found = _STANDS_IN.search(value)
    return found[1] if found else None


def not_set(name: str) -> str:
    """What is wrong, and what to do."""
    return f"the environment variable {name} is not set; set it, or write the value itself"
