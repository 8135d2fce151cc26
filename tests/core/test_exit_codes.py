"""The documented exit codes and their precedence."""

import itertools
import signal

import pytest

from heliostat import errors
from heliostat.cli.exit_codes import ExitCode, error_code, exit_code, signal_code
from heliostat.mirror.report import Summary

#: What makes a summary mean each code, worst first.
CAUSES: dict[int, dict[str, object]] = {
    6: {"store_error": "cannot write web/x: No space left on device"},
    143: {"interrupted": True},
    7: {"held": 3},
    5: {"unreachable": "connection refused"},
    3: {"owed_by_state": {"failing": 1}},
}


def summary(*codes: int) -> Summary:
    fields: dict[str, object] = {}
    for code in codes:
        fields |= CAUSES[code]
    return Summary(upstream="https://index.example", started=0.0, **fields)  # type: ignore[arg-type]


def test_a_summary_with_nothing_wrong_is_complete() -> None:
    assert exit_code(summary()) == 0
    assert exit_code(Summary(upstream="", started=0.0, owed_by_state={"failing": 0}, stuck=["slow"])) == 0


@pytest.mark.parametrize("size", range(1, len(CAUSES) + 1))
def test_of_several_causes_the_worst_counts(size: int) -> None:
    for codes in itertools.combinations(CAUSES, size):
        assert exit_code(summary(*codes), stopped_by=signal.SIGTERM) == codes[0]


def test_unknown_names_are_incomplete() -> None:
    assert exit_code(Summary(upstream="", started=0.0, unknown=["nothing"])) == 3


def test_held_rows_wait_for_approval() -> None:
    assert exit_code(Summary(upstream="", started=0.0, owed_by_state={"held": 2, "failing": 1})) == 7


def test_blocked_rows_are_incomplete() -> None:
    assert exit_code(Summary(upstream="", started=0.0, owed_by_state={"blocked": 1})) == 3


def test_interruption_says_by_which_signal() -> None:
    assert exit_code(summary(143), stopped_by=signal.SIGINT) == 130
    assert exit_code(summary(143), stopped_by=signal.SIGTERM) == 143
    assert (signal_code(None), signal_code(signal.SIGINT), signal_code(signal.SIGTERM)) == (130, 130, 143)


ERRORS = {
    errors.ConfigError(["x"]): 2,
    errors.Refused("project name", "x y", "no"): 2,
    errors.Occupied("web/packages/x"): 2,
    errors.InTheWay("web/packages/x", "web/packages/x", "a directory"): 2,
    errors.MirrorLocked("/x", "process 1"): 4,
    errors.StoreError("write", "/x", "full"): 6,
    errors.DiskFull("write", "/x", "full"): 6,
    errors.NoRoom("keep x in", "/x", "full", ever=True): 6,
    errors.Obstructed("/x", "a file"): 6,
    errors.PlaceTaken("read", "/x", "a directory"): 6,
    errors.StateError("damaged"): 6,
    errors.UpstreamChanged("another"): 7,
    errors.Unavailable("https://x", "refused"): 5,
    errors.RateLimited("https://x", "429"): 5,
    errors.Missing("https://x", "404"): 5,
    errors.PageMissing("https://x", "404"): 5,
    errors.Stale("https://x", 2, 1): 5,
    errors.Invalid("https://x", "not JSON"): 5,
    errors.TooLarge("https://x", "larger than 5 bytes"): 5,
    errors.NotNow("https://x", "larger than 5 bytes"): 5,
    errors.IntegrityError("https://x", "sha256", "a", "b"): 5,
    errors.FeedUnsupported("https://x", "no XML-RPC"): 5,
    errors.NoDaemon("nobody listens"): 2,
    errors.DaemonLost("it ended"): 3,
    errors.Held("x asks to wait"): 5,
    errors.DaemonAnswer("full", ("NoRoom", "StoreError", "HeliostatError", "Exception")): 6,
    errors.HeliostatError("x"): 1,
    ValueError("x"): 1,
}


@pytest.mark.parametrize(("error", "code"), ERRORS.items(), ids=lambda value: type(value).__name__)
def test_every_error_has_its_code(error: Exception, code: int) -> None:
    assert error_code(error) == code


def test_no_error_class_is_forgotten() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HeliostatError)
    }
    assert kinds - {type(error) for error in ERRORS} == {errors.UpstreamError}


def test_the_codes_are_the_documented_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "COMPLETE": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "INCOMPLETE": 3,
        "LOCKED": 4,
        "UPSTREAM": 5,
        "STORE": 6,
        "APPROVAL": 7,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }
