"""When many projects are owed another process writes: the same tree, whoever writes it, and whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import heliostat
from heliostat.errors import DiskFull, PlaceTaken, StoreError
from heliostat.fakeindex import Index, UploadedFile
from heliostat.fakeindex.synthetic import many_projects
from heliostat.model import ProjectName
from heliostat.store.batch import Batch
from heliostat.store.disk import Disk
from heliostat.store.orders import (
    Failed,
    Look,
    Orders,
    be_patient,
    failed,
    look,
    put,
    receive_answer,
    send_answer,
    send_order,
)
from heliostat.store.tree import Body, Placement, Publication, Tree
from heliostat.store.writer import Writer
from support.equality import differences
from support.looping import daemon_of
from support.mirrors import following, listing

#: So many projects in such batches that another process writes them.
MANY: Any = {"batch_projects": 2, "projects_at_once": 4}
COUNT = 24


class Listener(logging.Handler):
    """Does something when a line of the mirror's log matches, before anything goes on."""

    def __init__(self, pattern: str, then: Callable[[re.Match[str]], None]) -> None:
        super().__init__(logging.DEBUG)
        self._pattern, self._then = re.compile(pattern), then
        self.times = 0

    def emit(self, record: logging.LogRecord) -> None:
        if found := self._pattern.search(record.getMessage()):
            self.times += 1
            self._then(found)


@pytest.fixture
def listen() -> Iterator[Callable[[str, Callable[[re.Match[str]], None]], Listener]]:
    log = logging.getLogger("heliostat")
    level, listeners = log.level, list[Listener]()

    def add(pattern: str, then: Callable[[re.Match[str]], None] = lambda _: None) -> Listener:
        log.setLevel(logging.DEBUG)
        listener = Listener(pattern, then)
        log.addHandler(listener)
        listeners.append(listener)
        return listener

    yield add
    for one in listeners:
        log.removeHandler(one)
    log.setLevel(level)


Listen = Callable[..., Listener]
BEGINS = r"process (\d+) writes"


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_many_projects_are_written_by_another_process_that_ends_with_the_pass(
    tmp_path: Path, listen: Listen
) -> None:
    processes: list[int] = []
    listen(BEGINS, lambda found: processes.append(int(found[1])))
    async with following(many_projects(COUNT, 2, 1, 2000), tmp_path, **MANY) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert len(processes) == 1
        assert not is_alive(processes[0])
        assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.parametrize(("batches", "worth"), [(1, 0), (3, 0), (4, 1)])
async def test_few_projects_are_not_worth_a_process(batches: int, worth: int, tmp_path: Path, listen: Listen) -> None:
    begun = listen(BEGINS)
    async with following(many_projects(6 * batches, 2, 1, 2000), tmp_path, batch_projects=6) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
    assert begun.times == worth


@pytest.mark.parametrize("step", [BEGINS, "writing documents", "placing files", "showing pages"])
async def test_a_process_that_is_killed_is_done_without(tmp_path: Path, listen: Listen, step: str) -> None:
    processes: list[int] = []
    batches: list[str] = []

    def kill(_: re.Match[str]) -> None:
        batches.append("")
        if len(batches) == (1 if step == BEGINS else 3):
            os.kill(processes[0], signal.SIGKILL)

    listen(BEGINS, lambda found: processes.append(int(found[1])))
    listen(step, kill)
    told = listen(r"the process that writes has ended \(signal 9\): going on without it")
    async with following(many_projects(COUNT, 2, 1, 2000), tmp_path, **MANY) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
        assert told.times == 1
        assert len(processes) == 1
        assert list((tmp_path / "partial").iterdir()) == []
        for number in range(COUNT):
            one.index.publish(f"another-{number}", "1.0", UploadedFile(f"another-{number}-1.0.tar.gz", b"another"))
        await one.sync()
        assert differences(one.index, tmp_path) == []


def test_without_descriptors_it_is_done_without(tmp_path: Path, listen: Listen) -> None:
    told = listen("no process can be had to write: Too many open files")
    writer = Writer(prepared(tmp_path))
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), list[int]()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 1000), before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        writer.begin()
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert told.times == 1
    writer.put([one_page()], lambda _: None, apart=True)
    writer.rest()
    assert (tmp_path / "web/simple/one/index.v1_json").exists()


@pytest.mark.parametrize("size", [2000, 300_000], ids=["small", "more-than-a-socket-holds"])
@pytest.mark.parametrize("step", [BEGINS, "placing files"])
async def test_a_process_that_somebody_stopped_is_done_without(
    tmp_path: Path, listen: Listen, step: str, size: int
) -> None:
    processes: list[int] = []
    listen(BEGINS, lambda found: processes.append(int(found[1])))
    listen(step, lambda _: os.kill(processes[0], signal.SIGSTOP) if is_alive(processes[0]) else None)
    told = listen(r"the process that writes has ended \(it was stopped\): going on without it")
    async with following(many_projects(COUNT, 2, 1, size), tmp_path, **MANY) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
    assert told.times == 1
    assert not is_alive(processes[0])
    assert list((tmp_path / "partial").iterdir()) == []


async def test_signals_that_are_sent_to_everybody_do_not_end_it(tmp_path: Path, listen: Listen) -> None:
    processes: list[int] = []

    def send(_: re.Match[str]) -> None:
        for one in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(processes[0], one)

    listen(BEGINS, lambda found: processes.append(int(found[1])))
    sent = listen("placing files", send)
    lost = listen("the process that writes has ended")
    async with following(many_projects(COUNT, 2, 1, 2000), tmp_path, **MANY) as one:
        await one.sync()
        assert differences(one.index, tmp_path) == []
    assert sent.times == COUNT // 2
    assert lost.times == 0


def brought(index: Index) -> Index:
    for number in range(COUNT):
        index.publish(f"new-{number}", "1.0", UploadedFile(f"new-{number}-1.0.tar.gz", f"new {number}".encode()))
    return index


async def places_of(directory: Path, *names: str) -> list[str]:
    """Where the files of those projects lie in a mirror."""
    async with following(brought(Index()), directory, **MANY) as other:
        await other.sync()
        return [place.relative_to(directory).as_posix() for name in names for place in other.files(name).values()]


async def test_what_somebody_put_where_a_new_project_belongs_is_seen(tmp_path: Path, listen: Listen) -> None:
    """The same bytes are taken as they are, and other ones stay: nobody's file is replaced."""
    same, other = await places_of(tmp_path / "other", "new-3", "new-7")
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        for place, content in ((same, b"new 3"), (other, b"somebody's")):
            (one.directory / place).parent.mkdir(parents=True)
            (one.directory / place).write_bytes(content)
        before = listing(one.directory)
        brought(one.index)
        begun = listen(BEGINS)
        summary = await one.attempt()
        assert begun.times == 1
        assert [(owed.project, owed.state) for owed in summary.owed] == [("new-7", "blocked")]
        assert "other bytes lie at its place" in summary.owed[0].reason
        assert summary.added == COUNT - 1
        after = listing(one.directory)
        assert after[other] == before[other]
        assert after[same].inode == before[same].inode
        (one.directory / other).unlink()
        assert (await one.attempt(full=True)).complete
        assert differences(one.index, one.directory) == []


async def test_a_daemon_sees_it_as_well(tmp_path: Path, listen: Listen) -> None:
    (same,) = await places_of(tmp_path / "other", "new-3")
    async with following(Index(), tmp_path / "mirror", **MANY) as one:
        await one.sync()
        (one.directory / same).parent.mkdir(parents=True)
        (one.directory / same).write_bytes(b"new 3")
        before = listing(one.directory)
        begun = listen(BEGINS)
        brought(one.index)
        async with daemon_of(one) as running:
            await running.until(lambda: differences(one.index, one.directory) == [])
            await running.passes(1)
        assert begun.times == 1
        assert listing(one.directory)[same].inode == before[same].inode


async def test_pages_that_lie_where_a_new_project_belongs_are_replaced(tmp_path: Path) -> None:
    async with following(Index(), tmp_path, **MANY) as one:
        await one.sync()
        (one.web / "simple/new-5").mkdir()
        for name in ("index.html", "index.v1_html", "index.v1_json"):
            (one.web / "simple/new-5" / name).write_bytes(b"left by somebody")
        (one.web / "json/new-6").write_bytes(b"{}")
        brought(one.index)
        await one.sync()
        assert differences(one.index, one.directory) == []


async def test_an_obstacle_holds_up_its_own_project_only(tmp_path: Path) -> None:
    async with following(Index(), tmp_path, **MANY) as one:
        await one.sync()
        (one.web / "simple/new-5").write_bytes(b"a file")
        brought(one.index)
        summary = await one.attempt()
        assert [(owed.project, owed.state) for owed in summary.owed] == [("new-5", "failing")]
        assert summary.added == COUNT - 1
        (one.web / "simple/new-5").unlink()
        await one.sync()
        assert differences(one.index, one.directory) == []


# -- the writer alone ------------------------------------------------------------------------------------------------

small = st.binary(max_size=2000)
files = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(small, st.none() | st.integers(0, 2**60)), max_size=4)
pages = st.none() | small


@st.composite
def publications(draw: st.DrawFn) -> list[Publication]:
    """New projects of all kinds."""
    made = []
    for name in draw(st.lists(st.sampled_from(["one", "two", "three", "four"]), unique=True, min_size=1)):
        bodies = [
            Body(data, f"web/packages/{key * 2}/{key * 2}/{key * 60}/{name}-{key}.whl", time)
            for key, (data, time) in draw(files).items()
        ]
        one = Publication(name=ProjectName(name), fresh=True, bodies=bodies, link_missing=draw(st.booleans()))
        one.document, one.original, one.json_page, one.html_page = (draw(pages) for _ in range(4))
        made.append(one)
    return made


def content(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything below but inodes and the times of pages, which are those of the moment."""
    found: dict[str, tuple[object, ...]] = {}
    for path, one in listing(directory).items():
        time = one.mtime_ns if path.endswith(".whl") and one.mtime_ns < 2**60 else None
        found[path] = (one.link,) if one.link else (one.size, time, (directory / path).read_bytes())
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(publications(), min_size=1, max_size=3))
def test_the_same_tree_whoever_writes_it(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Publication]]
) -> None:
    here, apart = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("apart")
    for directory, is_apart in ((here, False), (apart, True)):
        writer = Writer(prepared(directory))
        try:
            for number, batch in enumerate(batches):
                renamed = [renumbered(one, number) for one in batch]
                new: dict[str, list[str]] = {one.name: [body.target for body in one.bodies] for one in renamed}
                assert writer.met(new, apart=is_apart) == []
                writer.put(renamed, lambda _: None, apart=is_apart)
                there = [name for name in new if (directory / "web/simple" / name).exists()]
                assert set(there) <= set(writer.met(new, apart=is_apart))
        finally:
            writer.rest()
    assert content(here) == content(apart)


def renumbered(one: Publication, number: int) -> Publication:
    """The same for another project."""
    bodies = [Body(body.data, f"{body.target}-{number}.whl", body.mtime_ns) for body in one.bodies]
    fields = {
        field: getattr(one, field) for field in ("document", "json_page", "html_page", "original", "link_missing")
    }
    return Publication(name=ProjectName(f"{one.name}-{number}"), fresh=True, bodies=bodies, **fields)


def prepared(directory: Path) -> Tree:
    tree = Tree(Disk(str(directory)))
    tree.prepare()
    return tree


def one_page(name: str = "one") -> Publication:
    return Publication(name=ProjectName(name), fresh=True, json_page=b"{}")


def test_what_lies_in_the_way_is_told_as_if_it_were_met_here(tmp_path: Path) -> None:
    tree = prepared(tmp_path)
    (tmp_path / "web/simple/one/index.v1_json").mkdir(parents=True)
    for apart in (False, True):
        writer = Writer(tree)
        with pytest.raises(PlaceTaken, match=r"web/simple/one/index\.v1_json"):
            writer.put([one_page()], lambda _: None, apart=apart)
        writer.rest()
        assert list((tmp_path / "partial").iterdir()) == []


def test_a_stopped_process_that_takes_no_order_is_done_without(tmp_path: Path, listen: Listen) -> None:
    """One that is larger than what the system keeps for it."""
    processes: list[int] = []
    listen(BEGINS, lambda found: processes.append(int(found[1])))
    told = listen(r"the process that writes has ended \(it was stopped\)")
    writer = Writer(prepared(tmp_path))
    writer.put([one_page("first")], lambda _: None, apart=True)
    os.kill(processes[0], signal.SIGSTOP)
    large = one_page("large")
    large.bodies += [Body(bytes([number]) * 700_000, f"web/packages/aa/bb/{number}/file") for number in range(9)]
    writer.put([large], lambda _: None, apart=True)
    writer.rest()
    assert told.times == 1
    assert [(tmp_path / body.target).read_bytes() == body.data for body in large.bodies] == [True] * 9
    assert list((tmp_path / "partial").iterdir()) == []


def test_an_order_arrives_whole_however_late_it_is_taken() -> None:
    ours, theirs = socket.socketpair()
    be_patient(ours, 1)
    bodies = [Body(os.urandom(size), f"file-{size}") for size in (0, 1, 300_000, 0, 2_000_000, 77_777, 0)]
    sent = Publication(name=ProjectName("one"), bodies=bodies)
    arrived: list[Any] = []
    reader = threading.Thread(target=lambda: arrived.append(Orders(theirs).next()))
    begun: list[bool] = []

    def silent() -> None:
        if not begun:
            reader.start()
        begun.append(True)

    send_order(ours, *put([sent]), silent)
    reader.join()
    assert begun
    assert [(body.target, bytes(body.data)) for body in arrived[0][0].bodies] == [
        (body.target, body.data) for body in bodies
    ]
    for one in (ours, theirs):
        one.close()


def test_steps_are_told_in_their_order_whoever_writes(tmp_path: Path) -> None:
    told: dict[bool, list[str]] = {False: [], True: []}
    for apart, steps in told.items():
        writer = Writer(prepared(tmp_path))
        writer.put([one_page(f"one-{apart}".lower())], steps.append, apart=apart)
        writer.rest()
    assert told[False] == told[True] == ["writing documents and pages", "placing files", "showing pages"]


@pytest.mark.parametrize("last", ["writing documents and pages", "placing files", "showing pages"])
def test_what_a_killed_process_had_begun_is_done_to_the_end(tmp_path: Path, listen: Listen, last: str) -> None:
    """Also where a file was renamed already, which lies under ``partial/`` no more."""
    processes: list[int] = []
    listen(BEGINS, lambda found: processes.append(int(found[1])))

    def kill_at(step: str) -> None:
        if step == last and is_alive(processes[0]):
            os.kill(processes[0], signal.SIGKILL)

    tree = prepared(tmp_path)
    (tmp_path / "partial/staged").write_bytes(b"large")
    large = Placement("partial/staged", "web/packages/aa/bb/cc/large.whl")
    one = Publication(
        name=ProjectName("one"), fresh=True, json_page=b"{}", document=b"{}", link_missing=True, placements=[large]
    )
    one.bodies.append(Body(b"small", "web/packages/aa/bb/dd/small.whl"))
    writer = Writer(tree)
    writer.put([one], kill_at, apart=True)
    writer.rest()
    assert {path for path in listing(tmp_path) if path.startswith("web/")} == {
        "web/json/one", "web/packages/aa/bb/cc/large.whl", "web/packages/aa/bb/dd/small.whl", "web/pypi/one/json",
        "web/simple/one/index.v1_json",
    }  # fmt: skip


def test_a_path_in_no_encoding_at_all_is_written_here(tmp_path: Path) -> None:
    tree = prepared(tmp_path)
    (tmp_path / "partial/staged").write_bytes(b"content")
    odd = Publication(name=ProjectName("odd"), placements=[Placement("partial/staged", "web/packages/odd-\udcff")])
    writer = Writer(tree)
    writer.put([odd], lambda _: None, apart=True)
    writer.rest()
    assert os.listdir(os.fsencode(tmp_path / "web/packages")) == [b"odd-\xff"]


def another_heliostat(directory: Path, change: Callable[[Path], object]) -> Path:
    """A copy of the package that ours is, changed: what a process that is begun now may find after an upgrade."""
    package = directory / "heliostat"
    shutil.copytree(Path(heliostat.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    change(package)
    return directory


def of_another_version(package: Path) -> None:
    (package / "__init__.py").write_text('__version__ = "999.0"\n')


def that_talks_nonsense(package: Path) -> None:
    (package / "store/writer_process.py").write_text(
        "import socket, sys, time\nsocket.socket(fileno=int(sys.argv[1])).sendall(bytes([0, 0, 0, 2, 255, 255]))\n"
        "time.sleep(1000)\n"
    )


@pytest.mark.parametrize("change", [of_another_version, that_talks_nonsense])
def test_a_process_of_another_heliostat_is_done_without(
    tmp_path: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    processes: list[int] = []
    listen(BEGINS, lambda found: processes.append(int(found[1])))
    told = listen("going on without it")
    monkeypatch.syspath_prepend(str(another_heliostat(tmp_path / "other", change)))
    (tmp_path / "mirror").mkdir()
    writer = Writer(prepared(tmp_path / "mirror"))
    writer.put([one_page()], lambda _: None, apart=True)
    assert not is_alive(processes[0])
    writer.put([one_page("two")], lambda _: None, apart=True)
    writer.rest()
    assert (told.times, len(processes)) == (1, 1)
    for name in ("one", "two"):
        assert (tmp_path / "mirror/web/simple" / name / "index.v1_json").read_bytes() == b"{}"


def test_no_process_is_begun_on_what_is_no_real_disk(tmp_path: Path, listen: Listen) -> None:
    class Other(Disk):
        """A disk of another kind."""

    begun = listen(BEGINS)
    writer = Writer(Tree(Other(str(tmp_path))))
    writer.begin()
    writer.put([one_page()], lambda _: None, apart=True)
    writer.rest()
    assert begun.times == 0
    assert (tmp_path / "web/simple/one/index.v1_json").read_bytes() == b"{}"


@pytest.mark.parametrize("kind", [StoreError, PlaceTaken, DiskFull])
def test_an_error_comes_back_as_it_was(kind: type[StoreError]) -> None:
    batch = Batch([])
    batch.made, batch.files = ["partial/a"], [Placement("partial/a", "web/packages/a")]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_answer(theirs, failed(kind("write", "partial/a", "no"), batch))
        answer = receive_answer(ours)
    assert isinstance(answer, Failed)
    error = answer.error()
    assert (type(error), str(error)) == (kind, "cannot write partial/a: no")
    assert (answer.made, answer.files) == (batch.made, batch.files)


@settings(max_examples=50, deadline=None)
@given(
    orders=st.lists(publications() | st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5))), max_size=4)
)
def test_orders_arrive_as_they_were_sent(orders: list[list[Publication] | dict[str, list[str]]]) -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with ours:
            for order in orders:
                send_order(ours, *(look(order) if isinstance(order, dict) else put(order)))

    sending = threading.Thread(target=send)
    sending.start()
    with theirs:
        receiver = Orders(theirs)
        for order in orders:
            got = receiver.next()
            if isinstance(order, dict):
                assert isinstance(got, Look)
                assert got.new == order
            else:
                assert got == order
        with pytest.raises(EOFError):
            receiver.next()
    sending.join()
