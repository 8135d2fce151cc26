"""Every request is counted once, under what it was for and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from heliostat.errors import UpstreamError
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.fakeindex.faults import Action, Body, Cut, Hang, Redirect, Reset, Status, Wrong, XmlFault
from heliostat.fakeindex.synthetic import small_index
from heliostat.mirror.report import Counters
from heliostat.mirror.run import Mirror
from heliostat.names import normalise
from heliostat.upstream.traffic import Fault, Kind, Traffic
from support.mirrors import Followed, config_for, following
from support.served import static_server
from support.upstreams import SHORT, upstream


async def run(mirror: Mirror) -> None:
    await mirror.run(counters=Counters(), stop=asyncio.Event())


def answers(traffic: Traffic) -> dict[str, dict[int, int]]:
    """Counts by kind and status, without those that are nothing."""
    found = {kind.name: {status: n for status, n in enumerate(traffic.answers[kind]) if n} for kind in Kind}
    return {name: counts for name, counts in found.items() if counts}


def faults(counts: list[list[int]]) -> dict[tuple[str, str], int]:
    return {(kind.name, fault.name): counts[kind][fault] for kind in Kind for fault in Fault if counts[kind][fault]}


def one_project() -> Index:
    index = Index()
    index.publish("demo", "1.0", UploadedFile("demo-1.0-py3-none-any.whl", b"x" * 1000, sidecar=b"Name: demo\n"))
    index.publish("demo", "1.0", UploadedFile("demo-1.0.tar.gz", b"y" * 3_000_000))
    return index


async def test_a_whole_pass(tmp_path: Path) -> None:
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        await run(mirror)
        traffic = mirror.traffic
        assert sum(sum(counts.values()) for counts in answers(traffic).values()) == len(one.server.requests)
        found = answers(traffic)
        assert found["PAGE"] == {200: 1}
        assert found["DOCUMENT"] == {200: 1}
        assert found["FILE"] == {200: 2}
        assert found["SIDECAR"] == {200: 1}
        assert found["ROOT_LIST"] == {200: 1}
        assert faults(traffic.unanswered) == faults(traffic.broken) == {}
        assert traffic.received[Kind.FILE] == 3_001_000
        assert traffic.received[Kind.SIDECAR] == len(b"Name: demo\n")
        assert all(traffic.received[kind] for kind in (Kind.PAGE, Kind.DOCUMENT, Kind.ROOT_LIST))
        for kind in Kind:
            assert sum(traffic.waits[kind].counts) == sum(traffic.answers[kind])
        assert [sum(counts.counts) for counts in (traffic.projects, traffic.files, traffic.sizes)] == [1, 3, 3]
        assert traffic.sizes.sum == 3_001_011
        assert sum(traffic.batches.counts) >= 1
        assert mirror.done().added == 1


async def test_counts_go_on_from_pass_to_pass(tmp_path: Path) -> None:
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        await run(mirror)
        one.index.publish("other", "1.0", UploadedFile("other-1.0.tar.gz", b"z"))
        await run(mirror)
        await run(mirror)
        assert mirror.traffic.answers[Kind.PAGE][200] == 2
        assert mirror.traffic.answers[Kind.CHANGELOG][200] == one.server.count("/pypi")
        assert (mirror.done().added, mirror.done().files_added) == (2, 4)
        assert mirror.traffic.pace is not None
        assert mirror.traffic.pace().metadata.most == one.config.upstream.metadata_at_once


async def test_provenance_is_told_apart_from_sidecars(tmp_path: Path) -> None:
    async with following(small_index(), tmp_path) as one, Mirror.open(one.config) as mirror:
        await run(mirror)
        asked = one.server.count("/integrity/*")
        assert asked > 0
        assert sum(mirror.traffic.answers[Kind.PROVENANCE]) == asked


@pytest.mark.parametrize(
    ("fault", "expected", "broken"),
    [
        (Status(503), {503: 3}, {}),
        (Status(404), {404: 1}, {}),
        (Reset(after=-1), {}, {}),
        (Reset(after=0.5), {200: 3}, {("DOCUMENT", "RESET"): 3}),
        (Cut(after=0.5), {200: 3}, {("DOCUMENT", "RESET"): 3}),
        (Redirect("/pypi/demo/json?again", 302), {200: 1, 302: 1}, {}),
    ],
    ids=str,
)
async def test_what_came_of_a_document(
    fault: Action, expected: Mapping[int, int], broken: Mapping[tuple[str, str], int]
) -> None:
    traffic = Traffic()
    async with FakeIndex(one_project()) as server:
        server.fault("/pypi/demo/json", fault, times=1 if isinstance(fault, Redirect) else None)
        async with upstream(server.url, traffic=traffic) as index:
            try:
                await index.document(normalise("demo"))
            except UpstreamError:
                pass
    assert answers(traffic).get("DOCUMENT", {}) == expected
    assert faults(traffic.broken) == broken
    assert faults(traffic.unanswered) == ({} if expected else {("DOCUMENT", "RESET"): 3})
    assert traffic.retries == (2 if sum(expected.values()) in (0, 3) else 0)


async def test_no_answer_in_time() -> None:
    traffic = Traffic()
    async with FakeIndex(one_project()) as server:
        server.fault("/simple/demo/", Hang())
        async with upstream(server.url, traffic=traffic, retries=1, stall_timeout=SHORT) as index:
            with pytest.raises(UpstreamError):
                await index.page(normalise("demo"))
    assert faults(traffic.unanswered) == {("PAGE", "TIMEOUT"): 1}
    assert answers(traffic) == {}


async def test_nobody_there() -> None:
    traffic = Traffic()
    async with upstream("http://127.0.0.1:1", traffic=traffic, retries=2) as index:
        with pytest.raises(UpstreamError):
            await index.last_serial()
    assert faults(traffic.unanswered) == {("CHANGELOG", "UNREACHABLE"): 2}


async def test_an_answer_that_says_that_too_much_was_asked() -> None:
    traffic = Traffic()
    async with FakeIndex(one_project()) as server:
        server.fault("/pypi", XmlFault(-32500, "HTTPTooManyRequests: limit may reset in 1 seconds"))
        async with upstream(server.url, traffic=traffic, retries=1) as index:
            with pytest.raises(UpstreamError):
                await index.last_serial()
    assert answers(traffic) == {"CHANGELOG": {200: 1}}
    assert faults(traffic.broken) == {("CHANGELOG", "LIMITED"): 1}
    assert traffic.rate_limited == 1


async def test_the_feed_of_another_heliostat(tmp_path: Path) -> None:
    async with following(one_project(), tmp_path / "parent") as parent:
        await parent.sync()
        with static_server(parent.web) as served:
            async with Mirror.open(config_for(tmp_path / "child", served.url)) as mirror:
                await run(mirror)
                before = mirror.traffic.received[Kind.CHANGES]
                parent.index.publish("other", "1.0", UploadedFile("other-1.0.tar.gz", b"z"))
                await parent.sync()
                await run(mirror)
                assert mirror.done().added == 2
                assert mirror.traffic.received[Kind.CHANGES] > before
                assert 200 in answers(mirror.traffic)["CHANGES"]
                assert faults(mirror.traffic.broken) == {}
                (parent.web / "changes" / "head").write_bytes(b"nonsense\n")
                await run(mirror)
                assert faults(mirror.traffic.broken)["CHANGES", "INVALID"] >= 1


async def test_an_index_without_a_feed_is_no_fault() -> None:
    traffic = Traffic()
    async with (
        FakeIndex(one_project(), options=Options(xmlrpc=False)) as server,
        upstream(server.url, traffic=traffic) as index,
    ):
        with pytest.raises(UpstreamError):
            await index.last_serial()
    assert faults(traffic.broken) == {}


@pytest.mark.parametrize("name", ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"])
async def test_wrong_bytes_of_a_file(tmp_path: Path, name: str) -> None:
    """A large file, and a small one: checked at different places."""
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        one.server.fault(f"*/{name}", Wrong())
        await run(mirror)
        assert faults(mirror.traffic.broken) == {("FILE", "INTEGRITY"): one.server.count(f"*/{name}")}


async def test_wrong_bytes_of_a_sidecar(tmp_path: Path) -> None:
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        one.server.fault("*.metadata", Wrong())
        await run(mirror)
        assert faults(mirror.traffic.broken) == {("SIDECAR", "INTEGRITY"): one.server.count("*.metadata")}


async def test_a_small_file_of_another_size(tmp_path: Path) -> None:
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        one.server.fault("*.whl", Body(b"x" * 999))
        await run(mirror)
        assert faults(mirror.traffic.broken) == {("FILE", "INTEGRITY"): one.server.count("*.whl")}


@pytest.mark.parametrize("name", ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"])
async def test_a_file_that_is_cut_short(tmp_path: Path, name: str) -> None:
    async with following(one_project(), tmp_path) as one, Mirror.open(one.config) as mirror:
        one.server.fault(f"*/{name}", Cut(after=0.5), times=1)
        await run(mirror)
        assert faults(mirror.traffic.broken) == {("FILE", "RESET"): 1}
        assert _sum(one, mirror) == len(one.server.requests)


def _sum(one: Followed, mirror: Mirror) -> int:
    assert one.config.upstream.retries > 1
    return sum(sum(counts.values()) for counts in answers(mirror.traffic).values())
