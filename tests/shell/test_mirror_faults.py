"""Every fault of an upstream, at every place it can strike: it heals, or concerns exactly one project."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, Options
from heliostat.fakeindex.faults import (
    Action,
    Body,
    Cut,
    Drip,
    Endless,
    GzipBomb,
    GzipJunk,
    Hang,
    Headers,
    Redirect,
    Reset,
    Status,
    Wrong,
    WrongLength,
    http_date,
)
from heliostat.fakeindex.synthetic import uploaded
from heliostat.fakeindex.wheels import wheel
from support import suffering
from support.mirrors import complete_pass, config_for, run_pass

METADATA = ("page", "document")
FILES = ("wheel", "sdist", "large")
SMALL = ("sidecar", "provenance")
EVERYWHERE = (*METADATA, *FILES, *SMALL)
#: For what is only another spelling of a fault that is tried everywhere.
SOME = ("page", "wheel", "provenance")
PAST = http_date(1_000_000_000)


class Case(NamedTuple):
    name: str
    action: Action
    #: Part of the reason that is told.
    says: str
    places: tuple[str, ...] = EVERYWHERE
    #: What is set for it.
    settings: Mapping[str, Any] = MappingProxyType({})


#: Where the fault is the whole story: with it for good the project is owed.
CASES = [
    Case("not found", Status(404), "404"),
    Case("too many requests", Status(429), "too many requests"),
    Case("forbidden", Status(403), "status 403", SOME),
    Case("server error", Status(500), "status 500"),
    Case("bad gateway", Status(502), "status 502", SOME),
    Case("unavailable", Status(503), "status 503"),
    Case("unavailable for a while", Status(503, retry_after=0), "status 503", SOME),
    Case("reset at once", Reset(-1), "the connection was"),
    Case("reset before the body", Reset(0), "http", ("page", "large", "sidecar")),
    Case("reset in mid-body", Reset(0.5), "http"),
    Case("closed at once", Cut(-1), "the connection was closed before an answer came", SOME),
    Case("cut short", Cut(0.5), "cut short"),
    Case("endless", Endless(), "larger than", METADATA, {"max_page": 1 << 20, "max_document": 1 << 20}),
    Case("endless", Endless(), "more than", FILES),
    Case("endless", Endless(), "larger than", ("sidecar",), {"max_sidecar": 1 << 20}),
    Case("endless", Endless(), "larger than", ("provenance",)),
    Case("endless nothing", Endless(honest=False), "larger than", METADATA, {"max_page": 1 << 20, "max_document": 1 << 20}),
    Case("endless nothing", Endless(honest=False), "http", FILES),
    Case("one byte wrong", Wrong(), "upstream declares", (*FILES, "sidecar")),
    Case("first byte wrong", Wrong(0), "http", ("page", "document", "provenance")),
    Case("one byte more", WrongLength(1), "upstream declares", (*FILES, "sidecar")),
    Case("one byte less", WrongLength(-1), "upstream declares", (*FILES, "sidecar")),
    Case("much less", WrongLength(-200), "http", ("page", "document", "provenance")),
    Case("nothing at all", Body(b""), "http"),
    Case("a web page", Body(b"<!DOCTYPE html><title>Log in</title>", content_type="text/html"), "http"),
    Case("hang", Hang(), "no byte for", ("page", "document", "wheel", "sidecar", "provenance"), {"stall_timeout": 0.5}),
    Case("hang in mid-body", Hang(after=0.5), "no byte for", ("page", "large", "sidecar"), {"stall_timeout": 0.5}),
    Case("redirect elsewhere", Redirect("http://elsewhere.invalid{path}"), "redirected elsewhere"),
    Case("redirect to a file", Redirect("file:///etc/passwd"), "redirected elsewhere", SOME),
    Case("redirect in a circle", Redirect("{path}"), "more than 5 redirects", SOME),
    Case("redirect to nothing", Redirect(""), "http", SOME),
    Case("not gzip", GzipJunk(), "cannot be unpacked", (*METADATA, *SMALL)),
    Case("half a gzip stream", GzipJunk(cut=True), "cut short", (*METADATA, *SMALL)),
    Case("another packing", Headers({"Content-Encoding": "br"}), "packed in a way", ("page", "sidecar")),
    Case("bomb", GzipBomb(64 << 20), "larger than", METADATA, {"max_page": 1 << 20, "max_document": 1 << 20}),
    Case("bomb", GzipBomb(64 << 20), "larger than", ("sidecar",), {"max_sidecar": 1 << 20}),
    Case("bomb", GzipBomb(64 << 20), "larger than", ("provenance",)),
]  # fmt: skip
EACH = [
    pytest.param(case, where, id=f"{case.name}-{where}".replace(" ", "-")) for case in CASES for where in case.places
]
#: Not tried again at once: a 404 or a 403 may be the truth, and only time can tell; so the next pass heals it.
NOT_AT_ONCE = {
    *(("not found", where) for where in ("page", *FILES, *SMALL)),
    *(("forbidden", where) for where in (*METADATA, *SMALL)),
}


def mirror_of(server: FakeIndex, directory: Path, case: Case) -> Config:
    return config_for(directory / "mirror", server, batch_seconds=0.0, **case.settings)


@pytest.mark.parametrize(("case", "where"), EACH)
async def test_on_an_update(case: Case, where: str, tmp_path: Path) -> None:
    """For a while: it heals by itself.  For good: the project is owed and its good copy stays; all others go on."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = mirror_of(server, tmp_path, case)
        await complete_pass(config)

        suffering.move_on(index)
        fault = server.fault(suffering.place(where, "2.0"), case.action, times=1)
        summary = await run_pass(config)
        assert fault.fired == 1
        if (case.name, where) in NOT_AT_ONCE:
            suffering.assert_owed(summary, "failing", case.says)
            summary = await run_pass(config)
        assert summary.complete, summary
        suffering.assert_equal(config, index)
        before = suffering.served(config)

        suffering.publish_victim(index, "3.0")
        index.publish("alpha", "3.0", uploaded(wheel("alpha", "3.0")))
        fault = server.fault(suffering.place(where, "3.0"), case.action)
        summary = await run_pass(config)
        assert fault.fired
        path = next(request.path for request in reversed(server.requests) if fault.takes(request))
        suffering.assert_owed(summary, "failing", case.says, f"{server.url}{path}")
        assert summary.cursor == index.serial
        assert summary.checkpoint == first_serial(index, "3.0") - 1
        assert suffering.served(config) == before
        suffering.assert_others_equal(config, index)
        suffering.assert_nothing_left(config)

        fault.remove()
        summary = await complete_pass(config)
        assert summary.checkpoint == index.serial
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("action", [Status(500), Cut(0.5), Body(b"")], ids=["error", "cut", "empty"])
async def test_for_good_on_the_first_run(action: Action, where: str, tmp_path: Path) -> None:
    """Nothing of the project is served, neither is it listed; all others are."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server)
        server.fault(suffering.place(where, "1.0"), action)

        summary = await run_pass(config)

        suffering.assert_owed(summary, "failing", f"{server.url}/")
        assert summary.cursor == index.serial > summary.checkpoint
        assert suffering.served(config) == {}
        assert "demo" not in (tmp_path / "mirror/web/simple/index.html").read_text()
        suffering.assert_others_equal(config, index)
        suffering.assert_nothing_left(config)
        server.clear_faults()
        await complete_pass(config)
        suffering.assert_equal(config, index)


def first_serial(index: Index, version: str) -> int:
    """The serial of the first row about a release of the victim."""
    return next(row.serial for row in index.rows() if row.display == suffering.VICTIM and row.version == version)


# Faults that pass, and are no more than a wait.


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("status", [429, 503])
async def test_upstream_asks_to_wait(status: int, where: str, tmp_path: Path) -> None:
    """Retry-After as seconds and as a date."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        pattern = suffering.place(where, "1.0")
        faults = [server.fault(pattern, Status(status, retry_after=after), times=1) for after in (0, PAST)]
        await complete_pass(config_for(tmp_path / "mirror", server))
        assert [fault.fired for fault in faults] == [1, 1]
        suffering.assert_equal(config_for(tmp_path / "mirror", server), index)


async def test_a_wait_longer_than_anyone_waits_fails_the_project(tmp_path: Path) -> None:
    """A hostile Retry-After costs nobody a day; the pass ends without it."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, metadata_at_once=1)
        await complete_pass(config)
        suffering.publish_victim(index, "2.0")
        server.fault("/simple/demo/", Status(500, retry_after=86400))
        summary = await run_pass(config)
        suffering.assert_owed(summary, "failing", "status 500", f"{server.url}/simple/demo/")


@pytest.mark.parametrize("where", EVERYWHERE)
async def test_a_redirect_to_an_allowed_host_is_followed(where: str, tmp_path: Path) -> None:
    """The file host is allowed, upstream itself is; what is there is as good as at the first place."""
    index = suffering.suffering_index()
    async with FakeIndex(index, options=Options(files_host=True)) as server:
        config = config_for(tmp_path / "mirror", server)
        fault = server.fault(suffering.place(where, "1.0"), Redirect(server.url + "{path}", 307), times=1)
        summary = await complete_pass(config)
        assert fault.fired == 1
        assert summary.retries == 0
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", FILES)
async def test_a_drip_too_slow_to_end_is_given_up(where: str, tmp_path: Path) -> None:
    """Bytes come all the time, but it would take for ever: a stall, and nothing else waits for it."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, stall_timeout=0.4, retries=2)
        server.fault(suffering.place(where, "1.0"), Drip(step=1, per_second=50))
        summary = await run_pass(config)
        suffering.assert_owed(summary, "failing", "stalled: only")
        suffering.assert_others_equal(config, index)
        server.clear_faults()
        await complete_pass(config)
        suffering.assert_equal(config, index)


@pytest.mark.parametrize("where", METADATA)
async def test_a_dripping_answer_ends_in_time(where: str, tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        config = config_for(tmp_path / "mirror", server, metadata_timeout=0.5, retries=2)
        server.fault(suffering.place(where, "1.0"), Drip(step=1, per_second=50))
        summary = await run_pass(config)
        suffering.assert_owed(summary, "failing", "not complete after 0.5 s")
        suffering.assert_others_equal(config, index)


# Files whose size upstream does not say.


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (Endless(), "larger than [upstream] max-file allows"),
        (Endless(honest=False), "larger than [upstream] max-file allows"),
        (WrongLength(5 << 20), "more than [upstream] max-file allows"),
    ],
)
async def test_undeclared_size_is_bounded(action: Action, says: str, tmp_path: Path) -> None:
    """Neither page nor document says how large a file is: what is configured bounds it."""
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        suffering.lie(server, without_sizes)
        suffering.lie(server, without_sizes, where="document")
        config = config_for(tmp_path / "mirror", server, max_file=4 << 20)
        fault = server.fault(suffering.place("large", "1.0"), action)
        summary = await run_pass(config)
        suffering.assert_owed(summary, "blocked", says)
        suffering.assert_others_equal(config, index)
        suffering.assert_nothing_left(config)
        assert largest(tmp_path / "mirror/partial") <= 4 << 20

        fault.remove()
        await complete_pass(config, full=True)
        assert len(suffering.served(config)) == 8


@pytest.mark.parametrize("action", [Cut(0.5), Reset(0.5), Wrong()])
async def test_undeclared_size_and_a_passing_fault(action: Action, tmp_path: Path) -> None:
    index = suffering.suffering_index()
    async with FakeIndex(index) as server:
        suffering.lie(server, without_sizes)
        suffering.lie(server, without_sizes, where="document")
        fault = server.fault(suffering.place("large", "1.0"), action, times=1)
        await complete_pass(config_for(tmp_path / "mirror", server))
        assert fault.fired == 1


def without_sizes(body: Any) -> None:
    for file in body["files"] if "files" in body else [file for files in body["releases"].values() for file in files]:
        del file["size"]


def largest(directory: Path) -> int:
    return max((path.stat().st_size for path in directory.iterdir()), default=0)
