"""Verifying a site over HTTP: each kind of damage is found, nothing else is; hostile sites cost little and are told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from heliostat.fakeindex import FakeIndex, Index, UploadedFile
from heliostat.fakeindex.faults import Body, Cut, Endless, GzipBomb, Redirect, Reset, Status
from heliostat.mirror.report import Counters
from heliostat.mirror.sites.site import Patience, client
from heliostat.mirror.verify.asked import SiteAsked
from heliostat.mirror.verify.findings import SITE_KINDS
from heliostat.mirror.verify.ground import bare_ground, mirror_ground
from heliostat.mirror.verify.position import Position, desk
from heliostat.mirror.verify.reading import Budget
from heliostat.mirror.verify.reference import LocalPages, Reference, UpstreamPages
from heliostat.mirror.verify.site import SiteVerification
from heliostat.upstream.client import Upstream
from support.mirrors import Followed, following
from support.scripted import Scripted, hang, reply
from support.served import static_server
from support.verified import Verified, rich_index, verify

PATIENCE = Patience(stall=20.0, total=60.0, tries=1, at_once=4, pause=0.0)


async def verify_site(
    url: str,
    one: Followed,
    *,
    bare: bool = False,
    folder: Path | None = None,
    stop: asyncio.Event | None = None,
    counters: Counters | None = None,
    patience: Patience = PATIENCE,
    **asked: Any,
) -> Verified:
    """A verify of the site at ``url``, held against the mirror on disk (``bare``: its web root alone), or upstream."""
    question = SiteAsked(**asked)
    ground = bare_ground(os.fspath(one.web), Budget()) if bare else mirror_ground(one.config, Budget())
    position = Position(asked=question.key(url), started=time.time(), seed=7)
    with desk(os.fspath(folder) if folder else None, position, restart=False) as opened:
        upstream = Upstream(one.config.upstream, version="0")
        async with upstream, client(url, patience, like=one.config.upstream, file_hosts=()) as site:
            reference: Reference = LocalPages(ground, opened.folder)
            if question.against_upstream:
                reference = UpstreamPages(upstream, None if bare else ground, opened.folder)
            verification = SiteVerification(
                site, reference, question, opened, counters or Counters(), stop or asyncio.Event(), at_once=4
            )
            result = await verification.run()
            return Verified(result, [] if result.interrupted else list(verification.findings()))


class Region:
    """A mirror, and a copy of its web root that ``heliostat serve`` serves."""

    def __init__(self, mirror: Followed, web: Path, url: str) -> None:
        self.mirror, self.web, self.url = mirror, web, url

    async def verify(self, **more: Any) -> Verified:
        return await verify_site(self.url, self.mirror, **more)

    async def found(self, **more: Any) -> set[tuple[str, str]]:
        """(kind, path) of each finding."""
        seen = await self.verify(**more)
        assert not seen.result.interrupted, seen.result
        assert {one.kind for one in seen.findings} <= set(SITE_KINDS)
        assert sum(seen.result.kinds.values()) == len(seen.findings)
        return {(one.kind, one.path) for one in seen.findings}

    def file(self, name: str, filename: str) -> Path:
        """Where a file of a project lies at the site."""
        return self.web / self.mirror.files(name)[filename].relative_to(self.mirror.web)

    def path(self, name: str, filename: str) -> str:
        return self.file(name, filename).relative_to(self.web).as_posix()

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Another JSON page of a project at the site."""
        path = self.web / f"simple/{name}/index.v1_json"
        page = json.loads(path.read_bytes())
        change(page)
        path.write_text(json.dumps(page))


@asynccontextmanager
async def region(folder: Path) -> AsyncIterator[Region]:
    with ExitStack() as stack:
        async with following(rich_index(), folder / "mirror") as one:
            await one.sync()
            shutil.copytree(one.web, folder / "site", symlinks=True)
            server = stack.enter_context(static_server(folder / "site"))
            yield Region(one, folder / "site", server.url)


WHEEL = "beta-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    "how", [{}, {"bare": True}, {"against_upstream": True}, {"bare": True, "against_upstream": True}]
)
@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_a_whole_copy(tmp_path: Path, how: dict[str, Any], share: float) -> None:
    async with region(tmp_path) as one:
        seen = await one.verify(share=share, **how)
    assert [(item.kind, item.path, item.problem) for item in seen.findings] == []
    files = sum(path.is_file() for path in (one.web / "packages").rglob("*"))
    assert (seen.result.projects, seen.result.files) == (6, files)
    assert seen.result.hashed == (files if share else 0)
    assert (seen.result.bytes > 0) == bool(share)


async def test_sizes_are_asked_for_without_bodies(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        with static_server(one.web) as server:
            await verify_site(server.url, one.mirror)
            asked = [line.split(" ") for line in server.requests()]
    assert {method for method, path, _ in asked if "/packages/" in path} == {"HEAD"}, asked


async def test_every_kind_of_damage(tmp_path: Path) -> None:
    """Each is found where it is, and nothing else."""
    async with region(tmp_path) as one:
        one.file("beta", WHEEL).unlink()
        sdist = one.file("beta", "beta-1.0.tar.gz")
        sdist.write_bytes(sdist.read_bytes() + b"x")
        changed = one.file("alpha", "alpha-1.0-py3-none-any.whl")
        changed.write_bytes(bytes(byte ^ 1 for byte in changed.read_bytes()))
        sidecar = Path(f"{one.file('alpha', 'alpha-1.1-py3-none-any.whl')}.metadata")
        sidecar.unlink()
        (one.web / "simple/bare/index.v1_json").write_text("{")
        shutil.rmtree(one.web / "simple/odd")
        shutil.copytree(one.web / "simple/empty", one.web / "simple/stray")
        expected = {
            ("missing", one.path("beta", WHEEL)),
            ("size", one.path("beta", "beta-1.0.tar.gz")),
            ("missing", sidecar.relative_to(one.web).as_posix()),
            ("page", "simple/bare/"),
            ("page", "simple/odd/"),
        }
        assert await one.found() == expected
        digest = ("digest", one.path("alpha", "alpha-1.0-py3-none-any.whl"))
        assert await one.found(share=1.0) == expected | {digest}
        assert await one.found(bare=True, share=1.0) == expected | {digest}
        assert await one.found(most=10_000) == expected | {digest}
        assert await one.found(quick=True) == {("page", "simple/bare/"), ("page", "simple/odd/")}
        assert await one.found(projects=("beta",)) == {item for item in expected if item[1].startswith("packages")} - {
            ("missing", sidecar.relative_to(one.web).as_posix())
        }


def drop_a_file(page: dict[str, Any]) -> None:
    del page["files"][0]


def other_digest(page: dict[str, Any]) -> None:
    page["files"][0]["hashes"]["sha256"] = "0" * 64


def unyank(page: dict[str, Any]) -> None:
    for file in page["files"]:
        file.pop("yanked", None)


def another_file(page: dict[str, Any]) -> None:
    page["files"].append({**page["files"][0], "filename": "alpha-9.9.zip"})


def other_status(page: dict[str, Any]) -> None:
    page["project-status"] = {"status": "quarantined"}


@pytest.mark.parametrize("change", [drop_a_file, other_digest, unyank, another_file, other_status])
async def test_pages_of_one_serial_that_say_other_things(tmp_path: Path, change: Callable[[Any], None]) -> None:
    async with region(tmp_path) as one:
        one.edit("alpha", change)
        assert await one.found(quick=True) == {("disagreement", "simple/alpha/")}


async def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    def elsewhere(page: dict[str, Any]) -> None:
        page["files"][0]["url"] = "https://evil.example/packages/x.whl"

    async with region(tmp_path) as one:
        one.edit("alpha", elsewhere)
        assert await one.found() == {("page", "simple/alpha/")}


async def test_a_site_that_is_behind_or_ahead(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        index = one.mirror.index
        index.publish("beta", "2.0", UploadedFile("beta-2.0.zip", b"n"))
        index.publish("fresh", "1.0", UploadedFile("fresh-1.0.zip", b"n"))
        index.remove_project("odd")
        assert await one.found() == set(), "it is as this mirror is"
        upstreams = await one.verify(against_upstream=True)
        assert {(item.kind, item.path) for item in upstreams.findings} == {
            ("behind", "simple/beta/"), ("unreferenced", "simple/odd/"),
        }  # fmt: skip
        await one.mirror.sync()
        seen = await one.verify()
        assert {(item.kind, item.path) for item in seen.findings} == {
            ("behind", "simple/beta/"), ("page", "simple/fresh/"), ("unreferenced", "simple/odd/"),
        }  # fmt: skip
        behind = next(item for item in seen.findings if item.kind == "behind")
        assert "1 files missing ('beta-2.0.zip')" in behind.problem
        assert behind.advice == "let the site catch up, or look why it does not"
        # The other way round: the site has what this mirror has not yet.
        shutil.rmtree(one.web)
        shutil.copytree(one.mirror.web, one.web, symlinks=True)
        index.publish("beta", "3.0", UploadedFile("beta-3.0.zip", b"n"))
        ahead = one.mirror.page("beta")["meta"]["_last-serial"] + 100

        def newer(page: dict[str, Any]) -> None:
            page["meta"]["_last-serial"] = ahead

        one.edit("beta", newer)
        (finding,) = (await one.verify()).findings
        assert (finding.kind, finding.path) == ("disagreement", "simple/beta/")
        assert "newer than this mirror has" in finding.problem


async def test_what_is_denied_here_is_not_to_be_at_a_site(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        await one.mirror.delete("alpha==1.1", "odd")
        still = {("disagreement", "simple/alpha/"), ("unreferenced", "simple/odd/")}
        assert await one.found(against_upstream=True) == still
        assert await one.found(against_upstream=True, projects=("odd",)) == {("unreferenced", "simple/odd/")}
        shutil.rmtree(one.web)
        shutil.copytree(one.mirror.web, one.web, symlinks=True)
        assert await one.found(against_upstream=True) == set()
        assert await one.found(against_upstream=True, projects=("odd",)) == set()


async def test_the_root_list(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        path = one.web / "simple/index.v1_json"
        root = json.loads(path.read_bytes())
        root["projects"] = [item for item in root["projects"] if item["name"] != "beta"] + [
            {"name": "ghost", "_last-serial": 1}
        ]
        path.write_text(json.dumps(root))
        assert await one.found() == {("root", "simple/")}
        assert {item.project for item in (await one.verify()).findings} == {"beta", "ghost"}
        root["meta"]["_last-serial"] = 1  # it is rewritten at intervals: an older one is not wrong
        path.write_text(json.dumps(root))
        assert await one.found() == set()
        path.write_text("<html>")
        assert await one.found() == {("root", "simple/")}


async def test_since(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        one.file("beta", WHEEL).unlink()
        serial = one.mirror.page("beta")["meta"]["_last-serial"]
        assert await one.found(since_serial=serial) == set()
        assert await one.found(since_serial=serial - 1) == {("missing", one.path("beta", WHEEL))}
        assert await one.found(since_time=time.time() + 3600) == set()
        assert await one.found(since_time=time.time() - 3600) == {("missing", one.path("beta", WHEEL))}


async def test_what_is_right_at_the_second_look_was_an_update(tmp_path: Path) -> None:
    async with region(tmp_path) as one, FakeIndex(one.mirror.index) as site:
        fault = site.fault("/simple/beta/", Status(404), times=1)
        seen = await verify_site(site.url, one.mirror, quick=True)
        assert fault.fired == 1
        assert seen.findings == []


# --- hostile, broken and absent sites -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Endless(), "page", "larger than"),
        (GzipBomb(1 << 22), "page", "larger than"),
        (Redirect("https://elsewhere.example/"), "page", "redirected elsewhere"),
        (Redirect("/simple/beta/"), "page", "more than 5 redirects"),
        (Body(b"<html></html>", "text/html"), "page", "HTML"),
        (Body(b"MZ", "application/octet-stream"), "page", "JSON was asked for"),
        (Body(b"[]", "application/vnd.pypi.simple.v1+json"), "page", ""),
        (Status(500), "unreadable", "status 500"),
        (Reset(), "unreadable", ""),
        (Cut(), "unreadable", "cut short"),
    ],
    ids=repr,
)
async def test_a_hostile_page_is_one_finding(tmp_path: Path, fault: Any, kind: str, said: str) -> None:
    async with region(tmp_path) as one, FakeIndex(one.mirror.index) as site:
        one.mirror.configure(max_page=1 << 20)
        site.fault("/simple/beta/", fault)
        seen = await verify_site(site.url, one.mirror, quick=True)
    assert {(item.kind, item.path) for item in seen.findings} == {(kind, "simple/beta/")}
    assert said in seen.findings[0].problem


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (reply(200, b"", Content_Length="99999999999"), "size", "its size is 99999999999"),
        (reply(302, Location="https://elsewhere.example/x"), "unreadable", "redirected elsewhere"),
        (reply(403), "unreadable", "status 403"),
        (reply(404), "missing", "not there"),
    ],
)
async def test_a_hostile_file_is_one_finding(tmp_path: Path, answer: bytes, kind: str, said: str) -> None:
    async with region(tmp_path) as one, Relaying(one) as site:
        path = "/" + one.path("beta", WHEEL)
        site.server.on(path, answer)
        for share in (0.0, 1.0):
            seen = await verify_site(site.server.url, one.mirror, share=share, projects=("beta",))
            assert {(item.kind, item.path) for item in seen.findings} == {(kind, path[1:])}
            assert said in seen.findings[0].problem


async def test_an_endless_file_costs_its_size(tmp_path: Path) -> None:
    """A body without a length goes on for ever: it is left as soon as it is longer than it may be."""

    async def endless(_: Any, wire: Any) -> None:
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\n")
        while True:
            await wire.write(b"x" * 65536)

    async with region(tmp_path) as one, Relaying(one) as site:
        path = "/" + one.path("beta", WHEEL)
        site.server.on(path, endless)
        seen = await verify_site(site.server.url, one.mirror, projects=("beta",))
    assert {(item.kind, item.path) for item in seen.findings} == {("size", path[1:])}
    assert seen.result.bytes < 1 << 20


async def test_a_server_without_head_is_read(tmp_path: Path) -> None:
    async with region(tmp_path) as one, Relaying(one) as site:
        path = one.path("beta", WHEEL)
        body = one.file("beta", WHEEL).read_bytes()

        async def no_head(seen: Any, wire: Any) -> None:
            await wire.write(
                b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n" if seen.method == "HEAD" else reply(200, body)
            )

        site.server.on("/" + path, no_head)
        seen = await verify_site(site.server.url, one.mirror, projects=("beta",))
        assert seen.findings == []
        assert seen.result.hashed == 1
        body = b"y" * len(body)
        seen = await verify_site(site.server.url, one.mirror, projects=("beta",))
        assert {(item.kind, item.path) for item in seen.findings} == {("digest", path)}


async def test_a_page_that_hangs_is_one_finding_and_a_site_that_hangs_is_unreachable(tmp_path: Path) -> None:
    patience = Patience(stall=0.1, total=60.0, tries=1, at_once=4, pause=0.0)
    async with region(tmp_path) as one, Relaying(one) as site:
        site.server.on("/simple/beta/", hang())
        seen = await verify_site(site.server.url, one.mirror, quick=True, patience=patience)
        assert {(item.kind, item.path) for item in seen.findings} == {("unreadable", "simple/beta/")}
        async with Scripted() as silent:
            for path in ("/changes/head", "/pypi", "/simple/"):
                silent.on(path, hang())
            dead = await verify_site(silent.url, one.mirror, patience=patience)
        assert "stalled" in (dead.result.unreachable or "")
        gone = await verify_site("http://127.0.0.1:9", one.mirror)
        assert "cannot connect" in (gone.result.unreachable or "")


class Relaying:
    """A scripted server that gives the files of a region, but for what a test puts in their place."""

    def __init__(self, one: Region) -> None:
        self._one, self.server = one, Scripted()

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        web = self._one.web
        for path in web.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self._serve("/" + path.relative_to(web).as_posix(), path)
        for page in (web / "simple").rglob("index.v1_json"):
            self._serve(f"/{page.parent.relative_to(web).as_posix()}/", page, "application/vnd.pypi.simple.v1+json")
        return self

    def _serve(self, target: str, path: Path, kind: str = "application/octet-stream") -> None:
        body = path.read_bytes()

        async def send(seen: Any, wire: Any) -> None:
            await asyncio.sleep(0.01)  # so that others come meanwhile
            whole = reply(200, body, kind=kind)
            await wire.write(whole[: len(whole) - len(body)] if seen.method == "HEAD" else whole)

        self.server.on(target, send)

    async def __aexit__(self, *error: object) -> None:
        await self.server.__aexit__(*error)


# --- cost, and going on ---------------------------------------------------------------------------------------------


async def test_requests_are_bounded(tmp_path: Path) -> None:
    async with region(tmp_path) as one, Relaying(one) as site:
        await verify_site(site.server.url, one.mirror, share=1.0)
        assert 1 < site.server.most_in_flight <= 8  # four for pages, four for files


def many(count: int) -> Index:
    index = Index()
    for number in range(count):
        index.publish(f"p{number:03}", "1", UploadedFile(f"p{number:03}-1.zip", b"%d" % number))
    return index


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped in the middle, the next one asks for no page twice, and finds the same as one that was not stopped."""
    async with following(many(60), tmp_path / "mirror") as one:
        await one.sync()
        for number in (3, 57):
            one.files(f"p{number:03}")[f"p{number:03}-1.zip"].write_bytes(b"other")
        with static_server(one.web) as server:
            stop, counters = asyncio.Event(), Counters()
            task = asyncio.create_task(
                verify_site(server.url, one, folder=tmp_path / "desk", stop=stop, counters=counters)
            )
            while counters.projects_done < 20 and not task.done():
                await asyncio.sleep(0)
            stop.set()
            first = await task
            assert first.result.interrupted
            done = first.result.projects
            assert 20 <= done < 60
            before = len(server.requests())
            second = await verify_site(server.url, one, folder=tmp_path / "desk")
            assert second.result.resumed
            assert second.result.projects == 60
            pages = set(re.findall(r"/simple/(p\d+)/", "\n".join(server.requests()[before:])))
            assert len(pages) <= 60 - done + 1  # and the one that is looked at again
            assert {item.project for item in second.findings} == {"p003", "p057"}
            assert {item.kind for item in second.findings} == {"size"}


async def test_a_sample_of_a_number_of_files(tmp_path: Path) -> None:
    async with following(many(30), tmp_path / "mirror") as one:
        await one.sync()
        with static_server(one.web) as server:
            seen = await verify_site(server.url, one, most=7)
    assert (seen.findings, seen.result.hashed) == ([], 7)


async def test_upstream_that_does_not_answer(tmp_path: Path) -> None:
    async with region(tmp_path) as one:
        one.mirror.server.fault("/simple/beta/", Status(500))
        seen = await one.verify(against_upstream=True)
        assert seen.findings == []
        assert "status 500" in (seen.result.unreachable or "")
        assert not seen.result.interrupted


async def test_what_a_mirror_keeps_of_what_upstream_removed_is_right_there(tmp_path: Path) -> None:
    async with following(rich_index(), tmp_path / "mirror", policy="retain") as one:
        await one.sync()
        one.index.remove_project("odd")
        one.index.remove_file("alpha", "1.0", "alpha-1.0-py3-none-any.whl")
        await one.sync()
        assert (await verify(one.config, against_upstream=True))[0].findings == []
        with static_server(one.web) as server:
            assert (await verify_site(server.url, one)).findings == []
            for bare in (False, True):
                seen = await verify_site(server.url, one, bare=bare, against_upstream=True)
                assert seen.findings == []
            page = one.web / "simple/odd/index.v1_json"
            page.write_bytes(page.read_bytes().replace(b"removed upstream", b"removed by whom"))
            seen = await verify_site(server.url, one, against_upstream=True)
            assert [(item.kind, item.path) for item in seen.findings] == [("unreferenced", "simple/odd/")]
