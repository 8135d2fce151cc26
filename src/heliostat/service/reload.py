"""A configuration that is read anew: what changed, what takes effect, and what needs a restart."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from heliostat.config import SECTIONS, Config, keys

log = logging.getLogger(__name__)

#: (section, key) of what is used when the process starts, and not again.
AT_START = {("mirror", "directory"), ("mirror", "state"), ("logging", "format")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReloadResult:
    """What came of reading the configuration anew; keys are written like ``[mirror] interval``."""

    #: Why the new configuration is refused as a whole; the old one stays then.
    problems: tuple[str, ...] = ()
    #: Keys whose new value counts from the next pass on.
    changed: tuple[str, ...] = ()
    #: Keys that keep their old value until the daemon is started anew.
    restart: tuple[str, ...] = ()
    #: What was taken over and did not work, such as an address that cannot be opened; the next reload tries it again.
    failed: tuple[str, ...] = ()

    @property
    def concerns_passes(self) -> bool:
        """Whether a pass that runs does what the old configuration said."""
        return any(
            key.startswith(("[mirror]", "[upstream]", "[removal]")) and key != "[mirror] interval"
            for key in self.changed
        )


def compare(old: Config, new: Config) -> tuple[Config, ReloadResult]:
    """``new`` as far as it can take effect in a process that runs with ``old``, and what that means."""
    taken, changed, restart = new, [], []
    for section in SECTIONS:
        for key, field in keys(section).items():
            before = getattr(getattr(old, section), field.name)
            if before == getattr(getattr(new, section), field.name):
                continue
            if (section, key) in AT_START:
                restart.append(f"[{section}] {key}")
                kept = dataclasses.replace(getattr(taken, section), **{field.name: before})
                taken = dataclasses.replace(taken, **{section: kept})
            else:
                changed.append(f"[{section}] {key}")
    if old.mirrors != new.mirrors:
        changed.append("[mirrors]")
    return taken, ReloadResult(changed=tuple(changed), restart=tuple(restart))


def refuse(problems: Sequence[str]) -> ReloadResult:
    """A configuration cannot be used: say why, all of it."""
    for problem in problems:
        log.error("configuration not reloaded: %s", problem)
    log.error("the configuration is not taken over (%d problems); the one before stays", len(problems))
    return ReloadResult(problems=tuple(problems))


def say(result: ReloadResult, config: Config) -> None:
    """One line for what a reload did, and one for what it could not."""
    if result.restart:
        log.warning("%s: not changed while this runs; restart it for that", ", ".join(result.restart))
    if result.changed:
        log.info("%s: taken over: %s", config.source, ", ".join(result.changed))
    elif not result.restart:
        log.info("%s: nothing changed", config.source)
