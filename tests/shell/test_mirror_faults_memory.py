"""Endless bodies, bombs and absurd JSON cost bounded memory: measured in a process of its own, on top of an idle one."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heliostat.fakeindex import FakeIndex, Index, Options
from heliostat.fakeindex.faults import Action, Body, Endless, GzipBomb, Hang, XmlBomb
from heliostat.fakeindex.synthetic import many_projects
from support import suffering

MIB = 1 << 20
JSON = "application/vnd.pypi.simple.v1+json"
#: One pass over the mirror in argv[2] of the index argv[1], with settings argv[3]; tells what it used (KiB).
CHILD = """
import asyncio, json, re, sys
from support.mirrors import config_for, run_pass
config = config_for(sys.argv[2], sys.argv[1], **json.loads(sys.argv[3]))
summary = asyncio.run(run_pass(config))
# Not ru_maxrss: that one remembers what the parent had.
peak = int(re.search(r"VmHWM:\\s*([0-9]+) kB", open("/proc/self/status").read())[1])
print(json.dumps({"peak": peak, "owed": [[one.project, one.reason] for one in summary.owed],
                  "unreachable": summary.unreachable, "projects": summary.projects}))
"""


class Used(msgspec.Struct):
    peak: int
    owed: list[tuple[str, str]]
    unreachable: str | None
    projects: int


async def used(server: FakeIndex, directory: Path, **settings: Any) -> Used:
    """What a pass in a process of its own tells."""
    tests = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent / 'src'}"}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, server.url, str(directory), msgspec.json.encode(settings).decode(),
        stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    output, _ = await child.communicate()
    assert child.returncode == 0
    return msgspec.json.decode(output, type=Used)


async def extra(server: FakeIndex, directory: Path, **settings: Any) -> tuple[int, Used]:
    """Bytes that a pass needs beyond what one without faults needs, and what it told."""
    faults, server.faults[:] = list(server.faults), []
    honest = await used(server, directory / "honest", **settings)
    assert honest.owed == []
    server.faults[:] = faults
    found = await used(server, directory / "mirror", **settings)
    return (found.peak - honest.peak) << 10, found


def entries(count: int) -> bytes:
    return b",".join([b'{"filename":"a","url":"b"}'] * count)


def absurd() -> list[bytes]:
    """Some 4 MiB of JSON each, that grows when it is parsed, or that parsers choke on."""
    return [
        b'{"name":"demo","files":[' + entries(150_000) + b"]}",
        b'{"name":"demo","files":[],"versions":[' + b",".join([b'"1"'] * MIB) + b"]}",
        b'{"name":"demo","files":[{"filename":"a","url":"b","hashes":{'
        + b",".join(b'"%d":""' % number for number in range(400_000))
        + b"}}]}",
        b'{"name":"demo","files":' + b"[" * (4 * MIB),
        b'{"name":' * (MIB // 2),
        b'{"name":"demo","files":[],"more":' + b'[{"a":' * (MIB // 2),
        b'{"name":"demo","files":[],"meta":{"_last-serial":' + b"9" * (4 * MIB) + b"}}",
        b'{"name":"' + b"x" * (4 * MIB) + b'","files":[]}',
        b'{"releases":{' + b",".join(b'"%d":[]' % number for number in range(300_000)) + b"}}",
        b'{"urls":[' + entries(150_000) + b"]}",
    ]


@pytest.mark.parametrize("name", ["page", "document"])
async def test_absurd_json(name: str, tmp_path: Path) -> None:
    """Many projects at once, each with a few megabytes that become many: one after the other, not all together."""
    bodies = 2 * absurd()
    index = many_projects(len(bodies) + 5, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index) as server:
        suffer = [f"project-{number:07}" for number in range(len(bodies))]
        for project, body in zip(suffer, bodies, strict=True):
            path = f"/simple/{project}/" if name == "page" else f"/pypi/{project}/json"
            server.fault(path, Body(body.replace(b'"demo"', f'"{project}"'.encode())))
        grown, found = await extra(server, tmp_path, max_page=8 * MIB, max_document=8 * MIB)
        assert len(found.owed) >= len(suffer) - 4
        assert grown < 300 * MIB
        suffering.assert_others_equal_in(tmp_path / "mirror", index, *suffer)


async def test_large_pages_whose_files_hang(tmp_path: Path) -> None:
    """Only so many bytes of pages are held together, however many projects wait for their files; small ones go on."""
    index = many_projects(24, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index, options=Options(documents=False)) as server:
        suffer = [f"project-{number:07}" for number in range(20)]
        for project in suffer:
            files = ",".join(
                f'{{"filename":"{project}-{number}.zip","url":"/packages/{project}-{number}.zip",'
                f'"hashes":{{"sha256":"{number:064x}"}},"size":2000000}}'
                for number in range(25_000)
            )
            page = f'{{"meta":{{"api-version":"1.0","_last-serial":99999}},"name":"{project}","files":[{files}]}}'
            server.fault(f"/simple/{project}/", Body(page.encode(), JSON))
        server.fault("/packages/project-*.zip", Hang(0))
        grown, found = await extra(server, tmp_path, stale_tries=1, retries=1, stall_timeout=1.0)
        assert sorted(project for project, _ in found.owed) == suffer
        assert all("/packages/" in reason for _, reason in found.owed)
        assert grown < 450 * MIB


#: What is large is made for the test that has it: every process that takes part in a run reads this file.
Make = Callable[[], Action]

ENDLESS: list[tuple[str, str, Make]] = [
    ("page", "/simple/demo/", Endless),
    ("page, packed", "/simple/demo/", lambda: GzipBomb(1 << 30)),
    ("document", "/pypi/demo/json", Endless),
    ("document, packed", "/pypi/demo/json", lambda: GzipBomb(1 << 30)),
    ("sidecar", "/packages/*.metadata", Endless),
    ("sidecar, packed", "/packages/*.metadata", lambda: GzipBomb(1 << 30)),
    ("provenance", "/integrity/*", Endless),
    ("provenance, packed", "/integrity/*", lambda: GzipBomb(1 << 30)),
    ("small file", "/packages/*.whl", Endless),
    ("large file", "/packages/*.zip", Endless),
    ("redirect", "/simple/demo/", lambda: Body(b"x" * (64 * MIB), status=302, headers={"Location": "/elsewhere"})),
    ("error", "/simple/demo/", lambda: Body(b"x" * (64 * MIB), status=500)),
    ("headers", "/simple/demo/", lambda: Body(b"", headers={"X-Long": "x" * (4 * MIB)})),
]


@pytest.mark.parametrize(("name", "path", "make"), ENDLESS, ids=[name for name, _, _ in ENDLESS])
async def test_endless_bodies_of_a_project(name: str, path: str, make: Make, tmp_path: Path) -> None:
    """No more than twice what is allowed of it."""
    index = Index()
    suffering.publish_victim(index, "1.0")
    async with FakeIndex(index) as server:
        server.fault(path, make())
        limits = {"max_page": 8 * MIB, "max_document": 8 * MIB, "max_sidecar": 8 * MIB}
        grown, found = await extra(server, tmp_path, **limits)
        assert [project for project, _ in found.owed] == ["demo"]
        assert grown < 48 * MIB, name


@pytest.mark.parametrize("honest", [True, False])
async def test_an_endless_root_list(honest: bool, tmp_path: Path) -> None:
    """It is never held as a whole: memory stays far below what is allowed of it."""
    index = many_projects(5, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index, options=Options(xmlrpc=False)) as server:
        server.fault("/simple/", Endless(b" " if honest else b"[", honest=honest))
        grown, found = await extra(server, tmp_path, max_root=128 * MIB, retries=1)
        assert found.unreachable is not None
        assert found.projects == 0
        assert grown < 32 * MIB


ROW = (
    b"<value><array><data><value>project-0000001</value><value><nil/></value><value><int>1</int></value>"
    b"<value>create</value><value><int>5</int></value></data></array></value>"
)
FEEDS: dict[str, Make] = {
    "white-space": Endless,
    "rows": lambda: Body(
        b"<methodResponse><params><param><value><array><data>" + ROW * 250_000, content_type="text/xml"
    ),
    "entities": lambda: XmlBomb("entities"),
    "nesting": lambda: XmlBomb("nesting"),
    "bomb": lambda: GzipBomb(1 << 30),
    "text": lambda: Body(b"<methodResponse>" + b"x" * (60 * MIB), content_type="text/xml"),
    "attributes": lambda: Body(b"<methodResponse " + b'a="x" ' * (4 * MIB), content_type="text/xml"),
    "tag": lambda: Body(b"<" + b"x" * (30 * MIB), content_type="text/xml"),
}


@pytest.mark.parametrize("make", FEEDS.values(), ids=FEEDS)
async def test_an_endless_feed(make: Make, tmp_path: Path) -> None:
    """The list is read instead."""
    index = many_projects(5, files_per_project=1, sidecars=0, size=100)
    async with FakeIndex(index) as server:
        await used(server, tmp_path / "mirror")
        for name in list(index.projects()):
            index.touch(name)
        fault = server.fault("/pypi", make(), method="POST", skip=1)
        grown, found = await extra(server, tmp_path, retries=1)
        assert fault.fired == 1
        assert found.owed == []
        assert found.unreachable is None
        assert grown < 160 * MIB
        suffering.assert_others_equal_in(tmp_path / "mirror", index)
