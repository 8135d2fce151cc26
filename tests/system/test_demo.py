"""The demonstration, for real."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from support.cli import SOURCE, command, environment, run


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demonstration puts its temporary directory."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def test_the_demonstration_shows_everything_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    done = run("demo", cwd=tmp_path, timeout=600, env={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nThat was all of it, and every step was verified.\n")
    assert done.stdout.count("\n   ok ") == 11
    assert "$ heliostat mirror --once" in done.stdout
    assert "\x1b" not in done.stdout  # no colours where there is no terminal
    assert list(temporary.iterdir()) == []


def test_what_is_kept_is_a_mirror(tmp_path: Path) -> None:
    done = run("demo", "--json", "--keep", "kept", cwd=tmp_path, timeout=600)
    result = json.loads(done.stdout)
    assert (done.returncode, result["kept"], len(result["verified"])) == (0, str(tmp_path / "kept"), 11)
    status = json.loads(run("status", "--json", "--config", "kept/heliostat.toml", cwd=tmp_path).stdout)
    assert status["states"]["current"] == 3
    again = run("demo", "--keep", "kept", cwd=tmp_path)
    assert again.returncode == 2
    assert "kept: cannot be made: File exists" in again.stderr


def test_a_step_that_fails_is_told_and_ends_it(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "venv.py").write_text("raise SystemExit('no environments today')")
    env = {"TMPDIR": str(temporary), "PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    done = run("demo", cwd=tmp_path, timeout=600, env=env)
    assert done.returncode == 1
    assert "the demonstration failed: " in done.stderr
    assert "no environments today" in done.stderr
    assert "Traceback" not in done.stderr
    assert "every step was verified" not in done.stdout
    assert list(temporary.iterdir()) == []


def test_an_interrupt_leaves_nothing_either(tmp_path: Path, temporary: Path) -> None:
    with subprocess.Popen(
        command("demo"),
        cwd=tmp_path,
        env=environment(tmp_path, TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        while "$ python -m venv" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []
