"""What counts: statuses, parts, clients, days; and what is published of it."""

from __future__ import annotations

import bz2
import csv
import os
from fractions import Fraction
from pathlib import Path

import pytest

from heliostat.errors import MirrorLocked, StateError, StoreError
from heliostat.names import package_path
from heliostat.stats.database import opened
from heliostat.stats.days import publish_days
from heliostat.stats.listing import write_list
from heliostat.stats.summary import Period, traffic
from heliostat.store.disk import Disk
from support.access_logs import DIGITS, PIP, PLACE, START, TODAY, WHEEL, as_json, combined, count, downloads, summary

DAY = 86400
NAME = "foo_bar-1.0-py3-none-any.whl"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "statistics.db"


def log(folder: Path, *lines: bytes, name: str = "access.log") -> Path:
    path = folder / name
    path.write_bytes(b"".join(lines))
    return path


def days_in(directory: Path) -> dict[str, list[list[str]]]:
    """What local-stats/days/ says, by date."""
    return {
        path.name.removesuffix(".bz2"): list(csv.reader(bz2.decompress(path.read_bytes()).decode().splitlines()))
        for path in sorted((directory / "web/local-stats/days").iterdir())
    }


def publish(database: Path, directory: Path) -> list[str]:
    with opened(str(database)) as connection:
        return publish_days(connection, Disk(str(directory)))


# --- downloads and requests ---------------------------------------------------------------------------------------


def test_each_whole_answer_is_a_download(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, combined(0), combined(1), as_json(2), combined(3, client="192.0.2.2")))
    assert downloads(database) == {NAME: 4}


@pytest.mark.parametrize(
    ("line", "requests"),
    [
        (combined(status=304, sent=0), 1),
        (combined(method="HEAD", sent=0), 0),
        (combined(method="POST"), 0),
        (combined(status=404), 0),
        (combined(status=403), 0),
        (combined(status=416), 0),
        (combined(status=301), 0),
        (combined(status=499), 0),
        (combined(target=WHEEL + ".metadata"), 1),
        (combined(target="/simple/foo-bar/"), 1),
        (combined(target="/pypi/foo-bar/json"), 1),
        (combined(target="/simple/"), 0),
        (combined(target="/"), 0),
        (as_json(complete=""), 1),
        (combined(status=206, sent=10), 1),
    ],
)
def test_what_is_no_download(tmp_path: Path, database: Path, line: bytes, requests: int) -> None:
    count(database, log(tmp_path, line))
    assert downloads(database) == {}
    assert sum(row.requests for row in summary(database).projects) == requests
    assert summary(database).requests == 1


def test_each_look_whether_a_file_changed_is_a_request(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, *(combined(n, status=304, sent=0) for n in range(3))))
    assert downloads(database) == {}
    assert [row.requests for row in summary(database).projects] == [3]


def test_parts_of_one_client_are_one_download_when_they_have_the_files_bytes(tmp_path: Path, database: Path) -> None:
    path = log(tmp_path, combined(0, client="192.0.2.9"), *(combined(n, status=206, sent=300) for n in range(1, 4)))
    count(database, path)
    assert downloads(database) == {NAME: 1}
    with path.open("ab") as file:
        file.write(combined(5, status=206, sent=100))
    count(database, path)
    assert downloads(database) == {NAME: 2}
    with path.open("ab") as file:
        file.writelines(combined(n, status=206, sent=1000) for n in range(6, 10))
    count(database, path)
    assert downloads(database) == {NAME: 2}
    (row,) = summary(database).projects
    assert (row.requests, row.bytes) == (2, 6000)


def test_parts_of_different_clients_and_installers_are_not_added_up(tmp_path: Path, database: Path) -> None:
    parts = (
        combined(1, status=206, sent=600, client="192.0.2.1"),
        combined(2, status=206, sent=600, client="192.0.2.2"),
        combined(3, status=206, sent=600, client="192.0.2.2", agent="uv/0.5.1"),
    )
    count(database, log(tmp_path, combined(0, client="192.0.2.9"), *parts))
    assert downloads(database) == {NAME: 1}
    assert summary(database).projects[0].requests == 4


def test_a_download_that_was_broken_off_and_resumed_is_one(tmp_path: Path, database: Path) -> None:
    lines = as_json(0, client="::9"), as_json(1, sent=400, complete=""), as_json(2, status=206, sent=600)
    count(database, log(tmp_path, *lines))
    assert downloads(database) == {NAME: 2}


def test_the_mirror_knows_how_large_a_file_is(tmp_path: Path, database: Path) -> None:
    path = log(tmp_path, combined(0, status=206, sent=500), combined(1, status=206, sent=499))
    count(database, path, directory=tmp_path)
    assert downloads(database) == {}
    place = tmp_path / package_path(DIGITS, NAME)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x" * 999)
    publish(database, tmp_path)
    count(database, path, directory=tmp_path)
    assert downloads(database) == {NAME: 1}
    assert publish(database, tmp_path) == ["web/local-stats/days/2026-11-20.bz2"]


def test_the_summary_by_project_version_installer_and_python(tmp_path: Path, database: Path) -> None:
    uv = 'uv/0.5.11 {"installer":{"name":"uv","version":"0.5.11"},"python":"3.12.1"}'
    count(
        database,
        log(
            tmp_path,
            combined(0),
            combined(1, PLACE + "/foo_bar-2.0.tar.gz", agent=uv),
            combined(2, PLACE + "/foo_bar-2.0.tar.gz"),
            combined(3, "/simple/other/", agent="curl/8.0", client="192.0.2.7"),
            combined(4, "/nowhere", status=404),
        ),
    )
    found = summary(database)
    assert [(row.name, row.downloads, row.requests) for row in found.projects] == [
        (("foo-bar",), 3, 3),
        (("other",), 0, 1),
    ]
    assert [(row.name, row.downloads) for row in found.versions] == [(("foo-bar", "2.0"), 2), (("foo-bar", "1.0"), 1)]
    assert [(row.name, row.downloads) for row in found.installers] == [
        (("pip", "24.0"), 2), (("uv", "0.5.11"), 1), (("curl", "8.0"), 0),
    ]  # fmt: skip
    assert [(row.name, row.downloads) for row in found.pythons] == [(("3.11",), 2), (("3.12",), 1), (("",), 0)]
    assert (found.requests, found.statuses, found.kinds) == (
        5, {"200": 4, "404": 1}, {"file": 3, "other": 1, "page": 1},
    )  # fmt: skip
    assert [day.clients for day in found.days] == [2]
    assert [row.name for row in summary(database, top=1).projects] == [("foo-bar",)]


def test_days_and_periods(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, combined(0), combined(7199), combined(7200), combined(2 * DAY)))
    assert [(day.date, day.downloads) for day in summary(database).days] == [
        ("2026-11-20", 2), ("2026-11-21", 1), ("2026-11-22", 1),
    ]  # fmt: skip
    first = START.date().toordinal() - 719163
    assert summary(database, Period(first + 1, first + 1)).downloads == 1
    assert summary(database, Period(first + 1)).downloads == 2
    nothing = summary(database, Period(first + 5))
    assert (nothing.first, nothing.downloads, nothing.projects) == (None, 0, [])


def test_lines_of_days_to_come_are_not_believed(tmp_path: Path, database: Path) -> None:
    reading = count(database, log(tmp_path, combined(0), combined(400 * DAY), combined(1)))
    assert (reading.odd, reading.lines) == (1, 3)
    assert downloads(database) == {NAME: 2}


def test_days_that_are_not_kept_any_more_are_not_begun_anew(tmp_path: Path, database: Path) -> None:
    path = log(tmp_path, combined(0), combined(3 * DAY))
    count(database, path, keep=3)
    assert publish(database, tmp_path) == ["web/local-stats/days/2026-11-23.bz2"]
    assert [day.date for day in summary(database).days] == ["2026-11-23"]
    reading = count(database, log(tmp_path, combined(1), combined(3 * DAY + 1), name="late.log"), keep=3)
    assert reading.odd == 1
    assert [(day.date, day.downloads) for day in summary(database).days] == [("2026-11-23", 2)]


# --- who was there ------------------------------------------------------------------------------------------------


def everything_in(database: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(database.parent.glob(database.name + "*")))


def test_addresses_are_kept_nowhere_and_their_stand_ins_go_with_the_day(tmp_path: Path, database: Path) -> None:
    lines = [combined(n, client=f"198.51.100.{n % 50}", status=206 if n % 2 else 200) for n in range(100)]
    count(database, log(tmp_path, *lines), today=TODAY)
    assert b"198.51.100." not in everything_in(database)
    with opened(str(database)) as connection:
        stand_ins = [bytes(row[0]) for row in connection.execute("SELECT client FROM clients")]
        (key,) = connection.execute("SELECT key FROM days").fetchone()
    assert len(set(stand_ins)) == 50
    assert all(one in everything_in(database) for one in stand_ins)
    count(database, log(tmp_path, combined(3 * DAY), name="later.log"))
    left = everything_in(database)
    assert not [one for one in (*stand_ins, key) if one in left]
    assert [day.clients for day in summary(database).days] == [50, 1]


def test_a_client_of_two_hosts_is_one_client(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, combined(0), name="a.log"))
    count(database, log(tmp_path, combined(5), combined(6, client="::7"), name="b.log"))
    assert [day.clients for day in summary(database).days] == [2]


def test_logs_without_addresses(tmp_path: Path, database: Path) -> None:
    line = as_json(0).replace(b'"address":"192.0.2.1",', b"")
    count(database, log(tmp_path, line))
    assert downloads(database) == {NAME: 1}
    assert [day.clients for day in summary(database).days] == [0]


def test_nobody_else_can_read_the_database(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, combined()))
    assert os.stat(database).st_mode & 0o777 == 0o600


# --- what is published --------------------------------------------------------------------------------------------


def test_files_of_days_have_the_form_of_pep_381(tmp_path: Path, database: Path) -> None:
    count(
        database,
        log(
            tmp_path,
            combined(0),
            combined(1),
            combined(2, PLACE + "/a-1.0%2Clocal.zip", agent="curl/8.0"),
            combined(3, agent='Evil\n"Agent, 1'),
            combined(4, "/simple/foo-bar/"),
            combined(DAY, "/simple/foo-bar/"),
        ),
    )
    written = publish(database, tmp_path)
    assert written == ["web/local-stats/days/2026-11-20.bz2", "web/local-stats/days/2026-11-21.bz2"]
    text = bz2.decompress((tmp_path / written[0]).read_bytes()).decode()
    assert text == (
        "# package,filename,useragent,count\n"
        'a,"a-1.0,local.zip",curl/8.0,1\n'
        f"foo-bar,{NAME},other,1\n"
        f"foo-bar,{NAME},pip/24.0,2\n"
    )
    assert bz2.decompress((tmp_path / written[1]).read_bytes()) == b"# package,filename,useragent,count\n"


def test_what_did_not_change_is_not_written_again(tmp_path: Path, database: Path) -> None:
    path = log(tmp_path, combined(0))
    count(database, path)
    (name,) = publish(database, tmp_path)
    before = os.stat(tmp_path / name)
    assert publish(database, tmp_path) == []
    with path.open("ab") as file:
        file.write(combined(1, "/simple/foo-bar/"))
    count(database, path)
    assert publish(database, tmp_path) == []
    assert os.stat(tmp_path / name) == before
    with path.open("ab") as file:
        file.write(combined(2))
    count(database, path)
    assert publish(database, tmp_path) == [name]
    after = os.stat(tmp_path / name)
    assert after.st_mtime_ns >= before.st_mtime_ns + 10**9
    assert list((tmp_path / "partial").iterdir()) == []
    assert days_in(tmp_path)["2026-11-20"][1:] == [["foo-bar", NAME, "pip/24.0", "2"]]


def test_a_day_that_could_not_be_written_is_written_the_next_time(tmp_path: Path, database: Path) -> None:
    count(database, log(tmp_path, combined(0)))
    (tmp_path / "web").write_bytes(b"in the way")
    with pytest.raises(StoreError):
        publish(database, tmp_path)
    (tmp_path / "web").unlink()
    assert len(publish(database, tmp_path)) == 1


def busy(folder: Path, database: Path) -> None:
    """Requests: c 6, a and b 2 each."""
    names = ["c"] * 6 + ["b"] * 2 + ["a"] * 2
    count(database, log(folder, *(combined(n, f"/simple/{name}/") for n, name in enumerate(names))))


@pytest.mark.parametrize(
    ("share", "names"),
    [("1/100", "c"), ("60/100", "c"), ("61/100", "ca"), ("80/100", "ca"), ("81/100", "cab"), ("1", "cab")],
)
def test_the_fewest_projects_that_make_up_a_share(tmp_path: Path, database: Path, share: str, names: str) -> None:
    busy(tmp_path, database)
    with opened(str(database)) as connection:
        assert [one.project for one in traffic(connection, Period(), Fraction(share))] == list(names)


def test_the_list_is_replaced_when_it_differs_and_never_by_an_empty_one(tmp_path: Path, database: Path) -> None:
    busy(tmp_path, database)
    path = tmp_path / "popular.txt"
    with opened(str(database)) as connection:
        assert write_list(connection, str(path), Period(), Fraction(1))
        assert path.read_text() == "c\na\nb\n"
        before = os.stat(path)
        assert write_list(connection, str(path), Period(), Fraction(1))
        assert os.stat(path) == before
        assert not write_list(connection, str(path), Period(0, 1), Fraction(1))
        assert os.stat(path) == before
        assert write_list(connection, str(path), Period(), Fraction(1, 2))
        assert path.read_text() == "c\n"
    assert [name for name in os.listdir(tmp_path) if "popular" in name] == ["popular.txt"]


# --- the database -------------------------------------------------------------------------------------------------


def test_one_at_a_time(database: Path) -> None:
    with opened(str(database)), pytest.raises(MirrorLocked, match="another heliostat stats"), opened(str(database)):
        pass


def test_what_is_no_database_of_ours_is_refused(database: Path) -> None:
    database.write_bytes(b"x" * 5000)
    with pytest.raises(StateError, match="move it away"), opened(str(database)):
        pass
    assert database.read_bytes() == b"x" * 5000


def test_nothing_is_kept_of_a_database_for_the_moment(tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path))
    with opened(None) as connection:
        assert connection.execute("SELECT count(*) FROM days").fetchone() == (0,)
    assert set(os.listdir(tmp_path)) == before


def test_agents_are_parsed_once_escaped_as_nginx_does(tmp_path: Path, database: Path) -> None:
    assert b"\\x22installer\\x22" in combined(agent=PIP)
    count(database, log(tmp_path, combined(agent=PIP)))
    assert summary(database).installers[0].name == ("pip", "24.0")


def test_lines_that_come_late_open_their_day_again(tmp_path: Path, database: Path) -> None:
    """They count; only who was there may be counted twice."""
    count(database, log(tmp_path, combined(0), combined(4 * DAY)))
    count(database, log(tmp_path, combined(1), combined(2, client="::2"), name="late.log"))
    first = summary(database).days[0]
    assert (first.date, first.downloads, first.clients) == ("2026-11-20", 3, 3)
    with opened(str(database)) as connection:
        assert connection.execute("SELECT count(*) FROM clients JOIN days USING (day)").fetchone() == (1,)
