"""The fake index as a process of its own, driven over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from heliostat.fakeindex import FakeIndex, Index, Options, faults
from heliostat.fakeindex.control import Control, ControlError
from heliostat.fakeindex.faults import Cut, Drip, Hang, Reset, Status, Wire
from heliostat.fakeindex.synthetic import many_projects, small_index
from heliostat.fakeindex.wheels import wheel
from support.recording import write_recording


@contextmanager
def running(*arguments: str) -> Iterator[list[str]]:
    """The process; gives the lines that it prints at its start."""
    command = [sys.executable, "-m", "heliostat.fakeindex", "--with-stdin", *arguments]
    lines = 2 if "--files-host" in arguments else 1
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield [process.stdout.readline().strip() for _ in range(lines)]
        process.stdin.close()
        assert process.wait(30) == 0


def ask(url: str) -> tuple[int, str | None, bytes]:
    """Status, ``Retry-After`` and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Retry-After"), answer.read()
    finally:
        connection.close()


def fetch(url: str) -> bytes:
    status, _, body = ask(url)
    assert status == 200
    return body


def test_the_small_index_is_what_it_holds_by_default() -> None:
    with running() as (url,):
        control = Control(url)
        state = control.state()
        assert (state["projects"], state["serial"]) == (len(small_index()), small_index().serial)
        assert state["url"] == url


def test_everything_can_be_driven_from_outside() -> None:
    with running("--empty") as (url,):
        control = Control(url)
        serial = control.publish("Demo", "1.0", wheel=True, sdist=True, requires=["other"], info={"summary": "s"})
        control.publish("other", "1.0", files=[{"filename": "other-1.0.zip", "size": 5, "seed": 1}])
        literal = {"filename": "other-1.1.zip", "content": msgspec.to_builtins(b"bytes"), "more": {"hashes": "md5"}}
        control.publish("other", "1.1", files=[literal])
        assert control("yank", "demo", "1.0", "why") > serial
        document = msgspec.json.decode(fetch(f"{url}/pypi/demo/json"))
        assert document["info"]["yanked_reason"] == "why"
        assert len(document["urls"]) == 2
        other = msgspec.json.decode(fetch(f"{url}/pypi/other/json"))
        assert fetch(other["urls"][0]["url"]) == b"bytes"
        control("add_late_sidecar", "other", "1.1", "other-1.1.zip", "Metadata-Version: 2.2\n")
        assert fetch(other["urls"][0]["url"] + ".metadata") == b"Metadata-Version: 2.2\n"
        control("remove_project", "demo")
        assert ask(f"{url}/simple/demo/")[0] == 404
        assert control.requests()[-1] == ["GET", "/simple/demo/", 404, None, 13]
        control.reset_log()
        assert control.requests() == []


def test_faults_from_outside() -> None:
    with running("--empty") as (url,):
        control = Control(url)
        control.publish("demo", "1.0", wheel=True)
        first = control.fault("/simple/demo/", Status(503, retry_after=2), times=1)
        assert ask(f"{url}/simple/demo/")[:2] == (503, "2")
        fetch(f"{url}/simple/demo/")
        second = control.fault("/packages/*", Cut(10))
        file = msgspec.json.decode(fetch(f"{url}/pypi/demo/json"))["urls"][0]["url"]
        with pytest.raises(http.client.IncompleteRead):
            fetch(file)
        assert control.fired() == [1, 1]
        control.remove(second)
        assert fetch(file) == wheel("demo", "1.0").data
        third = control.fault("/packages/*", Drip(step=1))
        control.grant(third, 5)
        control.release(third)
        assert fetch(file) == wheel("demo", "1.0").data
        control.fault("/simple/*", Hang())
        control.clear_faults()
        fetch(f"{url}/simple/demo/")
        assert first == 0


@pytest.mark.parametrize(
    ("operation", "arguments", "reason"),
    [
        ("yank", ("none", "1.0"), "KeyError"),
        ("yank", (), "TypeError"),
        ("get", ("x",), "no such operation"),
        ("__class__", (), "no such operation"),
    ],
)
def test_mistakes_are_answered_with_their_reason(operation: str, arguments: tuple[str, ...], reason: str) -> None:
    with running("--empty") as (url,), pytest.raises(ControlError, match=reason):
        Control(url)(operation, *arguments)


def test_options_can_change_while_it_runs() -> None:
    with running("--files-host") as (url, files_url):
        control = Control(url)
        assert control.state()["files_url"] == files_url
        assert control.options(xmlrpc=False, row_cap=3)["row_cap"] == 3
        for wrong in ({"nothing": 1}, {"xmlrpc": "yes"}, {"files_host": False}):
            with pytest.raises(ControlError, match="cannot be set"):
                control.options(**wrong)


def test_an_index_of_any_size_and_its_pace() -> None:
    arguments = (
        "--projects",
        "7",
        "--files",
        "2",
        "--sidecars",
        "1",
        "--size",
        "100",
        "--seed",
        "3",
        "--uvloop",
        "--warm",
    )
    with running(*arguments, "--no-log", "--description", "50") as (url,):
        same = many_projects(7, 2, 1, 100, seed=3, description=50)
        document = msgspec.json.decode(fetch(f"{url}/pypi/project-0000006/json"))
        expected = msgspec.json.decode(same.document_bytes("project-0000006") or b"")
        assert [file["digests"] for file in document["urls"]] == [file["digests"] for file in expected["urls"]]
        assert document["info"]["description"] == expected["info"]["description"] != ""
        control = Control(url)
        assert control.requests() == []
        assert control.state()["requests"] == 1
        control.fault("/packages/*", Reset(10))
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            fetch(document["urls"][0]["url"])


def test_files_without_room_for_the_sidecars_are_refused_and_the_default_gives_way() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heliostat.fakeindex", "--projects", "3", "--files", "2", "--sidecars", "3"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "3 sidecars, but only 2 files" in done.stderr
    with running("--projects", "3", "--files", "2") as (url,):
        page = msgspec.json.decode(fetch(f"{url}/pypi/project-0000002/json"))
        assert page["last_serial"] == Control(url).state()["serial"]


def test_recordings_can_be_served(tmp_path: Path) -> None:
    data = write_recording(str(tmp_path))
    with running("--recorded", str(tmp_path), "--static") as (url,):
        document = msgspec.json.decode(fetch(f"{url}/pypi/rec/json"))
        assert fetch(document["releases"]["1.0"][0]["url"]) == data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "heliostat.fakeindex", "--empty"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(30) == 0


async def test_within_one_process_there_is_no_control_unless_asked_for() -> None:
    async with FakeIndex(Index()) as closed, FakeIndex(Index(), options=Options(control=True)) as opened:
        with pytest.raises((ControlError, msgspec.DecodeError)):
            await asyncio.to_thread(Control(closed.url).state)
        assert (await asyncio.to_thread(Control(opened.url).state))["projects"] == 0
        assert opened.request_count == 0


def test_every_fault_that_can_be_asked_for_survives_the_way() -> None:
    decoder = msgspec.json.Decoder(Wire)
    for action in (Status(500, retry_after="x"), Reset(0.5), Cut(-1), Drip(3, 2.5), Hang(after=7)):
        assert decoder.decode(msgspec.json.encode(action)) == action


# -- the documentation ---------------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fake-index.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def test_the_documented_test_runs() -> None:
    done = subprocess.run([sys.executable, "-c", SNIPPETS[0]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("http://127.0.0.1:")


def test_the_documented_control_works() -> None:
    with running("--empty") as (url,):
        code = SNIPPETS[1].replace("http://127.0.0.1:8000", url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.endswith(" 0\n")


def test_every_documented_fault_exists_and_every_fault_is_documented() -> None:
    table = DOCUMENT.partition("| Action |")[2].partition("\n\n")[0]
    documented = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)\(", row.split("|")[1])}
    helpers = {"rate_limited", "method_removed"}
    assert documented - helpers == {action.__name__ for action in faults.Action.__subclasses__()}
    assert all(hasattr(faults, name) for name in helpers)


def test_every_documented_operation_exists() -> None:
    paragraph = DOCUMENT.partition("Its operations (")[2].partition("Its clock")[0]
    operations = set(re.findall(r"`([a-z_]+)`", paragraph))
    assert len(operations) > 20
    assert all(callable(getattr(Index, name)) for name in operations)
