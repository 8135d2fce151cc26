"""The documented exit codes, and which of them an outcome has.  Nothing outside ``cli`` knows them."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING

from heliostat.errors import (
    ConfigError,
    DaemonAnswer,
    DaemonLost,
    Held,
    HeliostatError,
    MirrorLocked,
    NoDaemon,
    Refused,
    StateError,
    StoreError,
    UpstreamChanged,
    UpstreamError,
)

if TYPE_CHECKING:
    from heliostat.mirror.report import Deletion, Plan, Summary


class ExitCode(enum.IntEnum):
    """What a command ends with; docs/exit-codes.md is the manual."""

    COMPLETE = 0
    UNEXPECTED = 1
    USAGE = 2
    INCOMPLETE = 3
    LOCKED = 4
    UPSTREAM = 5
    STORE = 6
    APPROVAL = 7
    INTERRUPTED = 130
    TERMINATED = 143


class Stopped(Exception):
    """A second signal ended the run at once; ``number`` is the first one."""

    text = "stopped at once; what was published stays, the next run resumes"

    def __init__(self, number: int | None) -> None:
        self.number = number
        super().__init__(self.text)


class Detached(Stopped):
    """A signal ended a command that a daemon carries out."""

    text = "the daemon goes on with it; heliostat status shows how far it is"


#: Looked at in order; the first class that fits decides.
_BY_ERROR: tuple[tuple[type[HeliostatError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (Refused, ExitCode.USAGE),
    (NoDaemon, ExitCode.USAGE),
    (DaemonLost, ExitCode.INCOMPLETE),
    (MirrorLocked, ExitCode.LOCKED),
    (StoreError, ExitCode.STORE),
    (StateError, ExitCode.STORE),
    (UpstreamChanged, ExitCode.APPROVAL),
    (UpstreamError, ExitCode.UPSTREAM),
    (Held, ExitCode.UPSTREAM),
)


def error_code(error: BaseException) -> ExitCode:
    """The exit code of an error that ended a command, here or in the daemon that carried it out."""
    if isinstance(error, DaemonAnswer):
        return next((code for kind, code in _BY_ERROR if kind.__name__ in error.kinds), ExitCode.UNEXPECTED)
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.UNEXPECTED)


def signal_code(number: int | None) -> ExitCode:
    """The exit code after the signal ``number`` stopped a command; SIGINT's when it is not known."""
    return ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED


def exit_code(summary: Summary, *, stopped_by: int | None = None) -> ExitCode:
    """The exit code of a pass: what the operator must do something about comes before what waits or repeats itself.

    A store failure counts most (6), then an interruption (130 or 143, as ``stopped_by`` says), then what waits for
    approval (7), an unreachable upstream (5), and whatever else makes the copy incomplete (3).
    """
    if summary.store_error is not None:
        return ExitCode.STORE
    if summary.interrupted:
        return signal_code(stopped_by)
    if summary.held or summary.owed_by_state.get("held"):
        return ExitCode.APPROVAL
    if summary.unreachable is not None:
        return ExitCode.UPSTREAM
    return ExitCode.COMPLETE if summary.complete else ExitCode.INCOMPLETE


def deletion_exit_code(result: Deletion, *, stopped_by: int | None = None) -> ExitCode:
    """The exit code of a delete or a restore, in the same order of precedence."""
    if result.store_error is not None:
        return ExitCode.STORE
    if result.interrupted:
        return signal_code(stopped_by)
    if result.unreachable is not None:
        return ExitCode.UPSTREAM
    return ExitCode.COMPLETE if result.complete else ExitCode.INCOMPLETE


def plan_exit_code(plan: Plan, *, stopped_by: int | None = None) -> ExitCode:
    """The exit code of a dry run: what the pass would end with, as far as that can be known beforehand."""
    if stopped_by is not None:
        return signal_code(stopped_by)
    if plan.missing_directory is not None:
        return ExitCode.STORE
    if plan.held:
        return ExitCode.APPROVAL
    if plan.unreachable is not None:
        return ExitCode.UPSTREAM
    return ExitCode.INCOMPLETE if plan.problems else ExitCode.COMPLETE
