"""One project that suffers among others that must not: an index, what may go wrong where, and what must hold then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heliostat.config import Config
from heliostat.fakeindex import FakeIndex, Index, UploadedFile, Virtual
from heliostat.fakeindex.faults import Rewrite
from heliostat.fakeindex.synthetic import provenance_for, uploaded
from heliostat.fakeindex.wheels import sdist, wheel
from heliostat.mirror.report import Summary
from heliostat.model import DistFile
from support.equality import differences

#: The project that suffers.
VICTIM = "demo"
#: Where a fault can strike it: patterns of request paths; ``{version}`` is the release being fetched.
PLACES = {
    "page": "/simple/demo/",
    "document": "/pypi/demo/json",
    "wheel": "/packages/*/demo-{version}-py3-none-any.whl",
    "sidecar": "/packages/*/demo-{version}-py3-none-any.whl.metadata",
    "sdist": "/packages/*/demo-{version}.tar.gz",
    "large": "/packages/*/demo-{version}.zip",
    "provenance": "/integrity/demo/{version}/*/provenance",
}
#: More than is taken in memory (bytes).
LARGE = 3 << 19


def suffering_index() -> Index:
    """``demo`` with every kind of thing that is fetched, and neighbours."""
    index = Index()
    for name in ("alpha", "beta", "gamma"):
        index.publish(name, "1.0", [uploaded(wheel(name, "1.0")), uploaded(sdist(name, "1.0"))])
    publish_victim(index, "1.0")
    return index


def publish_victim(index: Index, version: str) -> None:
    """A release of ``demo``: wheel with sidecar and provenance, sdist, and a file that is not small."""
    built = wheel(VICTIM, version)
    first = uploaded(built, sidecar=built.metadata + b"\n")  # not what is in the wheel, so it has to be asked for
    first.provenance = provenance_for(first)
    large = UploadedFile(f"{VICTIM}-{version}.zip", Virtual(LARGE, seed=len(index.changes)))
    index.publish(VICTIM, version, [first, uploaded(sdist(VICTIM, version)), large])


def move_on(index: Index) -> None:
    """A new release of ``demo``, of a neighbour, and a new project."""
    index.publish("alpha", "2.0", uploaded(wheel("alpha", "2.0")))
    publish_victim(index, "2.0")
    index.publish("newcomer", "1.0", uploaded(wheel("newcomer", "1.0")))


def place(name: str, version: str) -> str:
    """The pattern for a fault at one of :data:`PLACES`."""
    return PLACES[name].format(version=version)


def assert_equal(config: Config, index: Index) -> None:
    """The mirror is what the index holds, and nothing else lies there."""
    assert differences(config.mirror.directory, index) == []


def assert_others_equal(config: Config, index: Index, *suffering: str) -> None:
    """Every other project is mirrored, and what is there without any page are files of those that suffer."""
    assert_others_equal_in(config.mirror.directory, index, *(suffering or (VICTIM,)))


def assert_others_equal_in(directory: str | os.PathLike[str], index: Index, *suffering: str) -> None:
    """The same for a mirror that another process made."""
    assert differences(directory, index, owed=suffering) == []


def assert_nothing_left(config: Config) -> None:
    """Only downloads that can be resumed lie in ``partial/``."""
    left = os.listdir(f"{config.mirror.directory}/partial")
    assert [name for name in left if not name.endswith((".part", ".etag"))] == []


def assert_owed(summary: Summary, state: str, *said: str, project: str = VICTIM) -> str:
    """Exactly ``project`` is owed, in ``state``, with one line that says all of ``said``; gives that line."""
    assert [(one.project, one.state) for one in summary.owed] == [(project, state)], summary
    assert summary.owed_by_state == {state: 1}
    assert not summary.complete
    reason = summary.owed[0].reason
    for text in said:
        assert text in reason, reason
    assert len(reason.splitlines()) == 1, reason
    assert reason.isprintable(), ascii(reason)
    return reason


def served(config: Config, name: str = VICTIM) -> dict[str, bytes]:
    """All that is served for a project: pages, document, link, and the files that its page names, by path."""
    web = Path(config.mirror.directory, "web")
    paths = [*(web / "simple" / name).glob("*"), web / "json" / name, web / "pypi" / name / "json"]
    found = {str(path.relative_to(web)): path.read_bytes() for path in paths if path.exists()}
    page = found.get(f"simple/{name}/index.v1_json")
    for file in json.loads(page)["files"] if page else ():
        path = (web / "simple" / name / file["url"]).resolve()
        found[str(path.relative_to(web.resolve()))] = path.read_bytes()
    return found


def offered(index: Index, name: str) -> tuple[DistFile, ...]:
    page = index.expected_page(name)
    assert page is not None
    return page.files


def rewrite(change: Callable[[Any], Any]) -> Rewrite:
    """The honest JSON, decoded, changed (in place, or into what is returned), and encoded again."""

    def apply(body: bytes) -> bytes:
        value = json.loads(body)
        changed = change(value)
        return json.dumps(value if changed is None else changed).encode()

    return Rewrite(apply)


def lie(server: FakeIndex, change: Callable[[Any], Any], *, where: str = "page", project: str = VICTIM) -> None:
    """From now on the project's page or document says something else."""
    path = f"/simple/{project}/" if where == "page" else f"/pypi/{project}/json"
    server.fault(path, rewrite(change))
