"""How far sites are behind an index: serials, times, files; hostile and dead ones; lists of sites."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from heliostat.config import MirrorSite
from heliostat.errors import ConfigError, Invalid
from heliostat.fakeindex import FakeIndex, Index, Options, UploadedFile
from heliostat.mirror.sites.lag import Candidate, ProjectLag, Report, SiteLag, Tolerance, is_current, measure, rank
from heliostat.mirror.sites.listing import PATH, parse_listing, write_listing
from heliostat.mirror.sites.site import Patience, Standing, base_url, client
from heliostat.mirror.sites.wants import Want
from heliostat.model import ProjectName
from heliostat.store.disk import Disk
from support.mirrored import sample_index
from support.mirrors import Followed, following
from support.scripted import Scripted, hang, reply
from support.served import static_server

QUICK = Patience(stall=20.0, total=60.0, tries=2, pause=0.0)
NOTHING = Tolerance()


def wants(*names: str) -> list[Want]:
    return [Want(ProjectName(name), [], set(), everything=True) for name in names]


async def look(upstream: str, *sites: str, want: list[Want] | None = None, patience: Patience = QUICK) -> Report:
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(client(upstream, patience))
        candidates = [Candidate(url, await stack.enter_async_context(client(url, patience))) for url in sites]
        return await measure(index, candidates, want or [], now=lambda: 1_790_100_000.0)


@asynccontextmanager
async def copied(index: Index, folder: Path) -> AsyncIterator[tuple[Followed, str]]:
    """A mirror of ``index``, complete, and the URL at which ``heliostat serve`` has it."""
    async with following(index, folder) as one:
        await one.sync()
        with static_server(one.web) as site:
            yield one, site.url


def only(found: Report) -> SiteLag:
    assert found.unreachable is None
    (site,) = found.sites
    return site


def project(site: SiteLag, name: str) -> ProjectLag:
    return next(one for one in site.projects if one.project == name)


async def test_a_current_mirror(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url):
        found = await look(one.server.url, url, want=wants("alpha", "beta"))
    site = only(found)
    assert (site.serial, site.serials, site.seconds, site.unreachable) == (one.index.serial, 0, 0.0, None)
    assert [item.state for item in site.projects] == ["current", "current"]
    assert is_current(site, NOTHING, asked=True)
    assert is_current(site, NOTHING, asked=False)


async def test_what_a_mirror_is_behind_by(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url):
        before, shown = one.index.serial, one.page("beta")["meta"]["_last-serial"]
        (one.web / "last-modified").write_text("20260922T00:00:00\n")  # 1_790_035_200
        uploaded = UploadedFile("beta-2.0.zip", b"new", upload_time="2026-09-22T12:00:00.000000Z")
        one.index.publish("beta", "2.0", uploaded)
        newer = one.index.serial
        one.index.yank("odd", "1.0+local.1", "broken")
        one.index.remove_project("bare")
        one.index.publish("fresh", "1.0", UploadedFile("fresh-1.0.zip", b"f"))
        names = ("alpha", "beta", "odd", "bare", "fresh", "nowhere")
        found = await look(one.server.url, url, want=wants(*names))
        serial = one.index.serial
    site = only(found)
    assert (site.serial, site.serials) == (before, serial - before)
    assert site.seconds == 1_790_100_000.0 - 1_790_035_200.0
    assert {item.project: item.state for item in site.projects} == {
        "alpha": "current", "beta": "behind", "odd": "behind", "bare": "removed", "fresh": "absent",
    }  # fmt: skip
    assert found.unknown == ["nowhere"]
    beta = project(site, "beta")
    assert (beta.missing_files, beta.missing_versions) == (["beta-2.0.zip"], ["2.0"])
    assert (beta.serial, beta.upstream_serial) == (shown, newer)
    assert beta.seconds == 1_790_100_000.0 - (1_790_035_200.0 + 12 * 3600)
    assert len(project(site, "odd").changed_files) == 1
    assert project(site, "fresh").missing_files == ["fresh-1.0.zip"]
    assert not is_current(site, NOTHING, asked=True)


async def test_only_the_files_that_are_wanted_count(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url):
        one.index.publish("beta", "2.0", UploadedFile("beta-2.0.zip", b"new"))
        pinned = [Want(ProjectName("beta"), [SpecifierSet("<2")], set())]
        assert project(only(await look(one.server.url, url, want=pinned)), "beta").state == "older"
        free = [Want(ProjectName("beta"), [SpecifierSet(">=1")], set())]
        assert project(only(await look(one.server.url, url, want=free)), "beta").state == "behind"
        digest = one.index.expected_files("beta")[0].file.content.digests.sha256
        locked = [Want(ProjectName("beta"), [], {f"sha256:{digest}"})]
        site = only(await look(one.server.url, url, want=locked))
        assert project(site, "beta").state == "older"
        assert is_current(site, NOTHING, asked=True)


@pytest.mark.parametrize("options", [Options(), Options.static()], ids=["public", "static"])
async def test_any_index_that_speaks_simple_json(options: Options) -> None:
    """With XML-RPC, or with nothing but a list; the rest of a long list is not read."""
    index = sample_index()
    async with FakeIndex(index) as right, FakeIndex(index, options=options) as other:
        site = only(await look(right.url, other.url, want=wants("alpha")))
    assert (site.serial, site.seconds) == (index.serial, 0.0)
    assert project(site, "alpha").state == "current"


async def test_serials_of_the_root_list_come_from_its_beginning() -> None:
    """A list that never ends is left as soon as its serial is known."""
    async with Scripted() as server, FakeIndex(sample_index()) as right:
        body = b'{"meta":{"_last-serial":7,"api-version":"1.4"},"projects":[' + b'{"name":"a"},' * 1000
        kind = "application/vnd.pypi.simple.v1+json"
        server.on("/simple/", hang(reply(200, body, kind=kind, Content_Length="99999999")))
        site = only(await look(right.url, server.url))
    assert (site.serial, site.unreachable) == (7, None)
    assert site.serials == sample_index().serial - 7


async def test_a_site_that_is_down_or_hostile_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url), Scripted() as server:
        for path in ("/changes/head", "/pypi", "/simple/"):
            server.on(path, reply(302, Location=f"https://elsewhere.example{path}"))
        endless = [f"http://127.0.0.1:9/{n}" for n in range(2)]
        found = await look(one.server.url, endless[0], server.url, url, want=wants("alpha"))
    dead, lying, good = found.sites
    assert "cannot connect" in (dead.unreachable or "")
    assert "redirected elsewhere" in (lying.unreachable or "")
    assert good.unreachable is None
    assert rank(found.sites, NOTHING, asked=True)[0].url == url


async def test_a_site_that_hangs(tmp_path: Path) -> None:
    async with FakeIndex(sample_index()) as right, Scripted() as server:
        for path in ("/changes/head", "/pypi", "/simple/"):
            server.on(path, hang())
        patience = Patience(stall=0.05, total=60.0, tries=1, pause=0.0)
        site = (await look(right.url, server.url, patience=patience)).sites[0]
    assert "stalled" in (site.unreachable or "")


async def test_upstream_that_is_down(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url):
        found = await look("http://127.0.0.1:9", url, want=wants("alpha"))
    assert "cannot connect" in (found.unreachable or "")
    assert found.sites[0].serial == one.index.serial


async def test_pages_that_cannot_be_read_are_no_lag(tmp_path: Path) -> None:
    async with copied(sample_index(), tmp_path / "m") as (one, url):
        (one.web / "simple/alpha/index.v1_json").write_text("{")
        site = only(await look(one.server.url, url, want=wants("alpha", "beta")))
    assert [item.state for item in site.projects] == ["unchecked", "current"]
    assert "JSON" in (site.unchecked[0].reason or "")


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://127.0.0.1:9", "http://localhost", "http://[::1]:80/x", "https://a.example"):
        client(url, QUICK)
    with pytest.raises(
        ConfigError, match=r"http://a\.example' is not encrypted; use https, or allow it with --allow-http"
    ):
        client("http://user:secret@a.example", QUICK)
    client("http://a.example", QUICK, allow_http=True)
    assert base_url("https://a.example/x/simple/") == "https://a.example/x"
    with pytest.raises(ConfigError, match="not an http or https URL"):
        base_url("ftp://a.example")


def site(url: str, **more: Any) -> SiteLag:
    return SiteLag(
        url, **{"serial": 10, "upstream_serial": 10, "seconds": 0.0, "answered": 1.0, "projects": [], **more}
    )


def test_ranking() -> None:
    behind = [ProjectLag("a", "behind")]
    sites = [
        site("down", unreachable="x"), site("old", serial=1, seconds=50.0, projects=behind),
        site("older", serial=1, seconds=500.0, projects=behind), site("slow", answered=2.0), site("fast"),
    ]  # fmt: skip
    assert [one.url for one in rank(sites, NOTHING, asked=True)] == ["fast", "slow", "old", "older", "down"]


def test_what_is_borne_with() -> None:
    one = site("x", serial=5, seconds=100.0)
    assert not is_current(one, NOTHING, asked=False)
    assert is_current(one, Tolerance(serials=5), asked=False)
    assert not is_current(one, Tolerance(serials=4), asked=False)
    assert is_current(one, Tolerance(seconds=100), asked=False)
    assert not is_current(one, Tolerance(seconds=99), asked=False)
    held = site("x", projects=[ProjectLag("a", "behind", 1, 9, seconds=1000.0)])
    assert is_current(held, Tolerance(seconds=1000), asked=True), "the project's own time counts, where it is known"
    assert not is_current(held, Tolerance(seconds=999), asked=True)
    assert not is_current(site("x", seconds=None, serial=5), Tolerance(seconds=1e9), asked=False), "nobody knows"


# --- mirrors.json ------------------------------------------------------------------------------------------------


def test_the_list_keeps_what_was_measured_and_is_not_rewritten_without_need(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    disk = Disk(str(tmp_path))
    sites = [MirrorSite("fra", "https://fra.example"), MirrorSite("sin", "https://sin.example")]
    assert write_listing(disk, sites, "https://user:secret@pypi.example")
    assert not write_listing(disk, sites, "https://user:secret@pypi.example")
    found = {sites[0].url: Standing(7, 1_790_000_000.0), sites[1].url: Standing(error="down")}
    first = (tmp_path / PATH).stat().st_mtime_ns
    assert write_listing(disk, sites, "https://pypi.example", found, 1_790_000_100.0)
    assert (tmp_path / PATH).stat().st_mtime_ns // 10**9 > first // 10**9
    assert not write_listing(disk, sites, "https://pypi.example")
    told = json.loads((tmp_path / PATH).read_bytes())
    assert told == {
        "format": 1,
        "upstream": "https://pypi.example",
        "mirrors": [
            {
                "name": "fra", "url": "https://fra.example", "serial": 7, "last-modified": "2026-09-21T14:13:20Z",
                "last-checked": "2026-09-21T14:15:00Z", "error": None,
            },
            {
                "name": "sin", "url": "https://sin.example", "serial": None, "last-modified": None,
                "last-checked": "2026-09-21T14:15:00Z", "error": "down",
            },
        ],
    }  # fmt: skip
    assert write_listing(disk, sites, "https://pypi.example", {sites[0].url: Standing(error="x")}, 1_790_000_200.0)
    kept = parse_listing((tmp_path / PATH).read_bytes(), url="x").mirrors[0]
    assert (kept.serial, kept.error, kept.last_checked) == (7, "x", "2026-09-21T14:16:40Z")
    assert list((tmp_path / "partial").iterdir()) == []


async def test_a_pass_writes_the_list(tmp_path: Path) -> None:
    async with following(sample_index(), tmp_path / "m") as one:
        await one.sync()
        assert not (one.web / "mirrors.json").exists()
        one.config = dataclasses.replace(one.config, mirrors=(MirrorSite("fra", "https://fra.example"),))
        await one.sync()
        assert parse_listing((one.web / "mirrors.json").read_bytes(), url="x").mirrors[0].name == "fra"
        before = (one.web / "mirrors.json").stat()
        await one.sync()
        assert (one.web / "mirrors.json").stat() == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not a list of mirrors"),
        (b'{"format":2,"upstream":"x","mirrors":[]}', "format 2"),
        (b'{"format":1,"upstream":"x","mirrors":[{"name":"a","url":"https://x/$(id)"}]}', "no plain http"),
        (b'{"format":1,"upstream":"x","mirrors":[{"name":"a","url":"file:///etc/passwd"}]}', "no plain http"),
        (b'{"format":1,"upstream":"x","mirrors":[{"name":"a","url":"https://u:p@x.example"}]}', "no plain http"),
    ],
)
def test_lists_that_are_refused(body: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said.replace("(", r"\(")):
        parse_listing(body, url="https://x.example/mirrors.json")
