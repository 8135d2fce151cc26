"""What one line, one target and one User-Agent of an access log tell; none of them can be an error."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.stats.agents import Agent, agent_of
from heliostat.stats.lines import Hit, hit_of
from heliostat.stats.targets import Target, release_of, target_of
from support.access_logs import DIGITS, PIP, PLACE, START, WHEEL, as_json, combined

DAY = START.date().toordinal() - 719163
WHOLE = Hit(DAY, "192.0.2.1", "GET", WHEEL, 200, 1000, whole=True, agent=PIP)


@pytest.mark.parametrize("line", [combined(), as_json()])
def test_both_formats_tell_the_same(line: bytes) -> None:
    assert hit_of(line.rstrip(b"\n")) == WHOLE


def test_only_the_json_tells_what_was_broken_off() -> None:
    hit = hit_of(as_json(complete=""))
    assert hit is not None
    assert not hit.whole


@pytest.mark.parametrize(
    ("time", "day"),
    [
        (b"25/Nov/2026:00:59:59 +0100", 20781),
        (b"25/Nov/2026:01:00:00 +0100", 20782),
        (b"25/Nov/2026:23:59:59 -0530", 20783),
        (b"25/Nov/2026:12:00:00 +0000", 20782),
    ],
)
def test_days_are_those_of_utc(time: bytes, day: int) -> None:
    hit = hit_of(b'::1 - - [%b] "GET / HTTP/1.1" 200 0 "-" "-"' % time)
    assert hit is not None
    assert hit.day == day
    clock, zone = time[12:20], time[21:]
    iso = b"2026-11-25T%b%b:%b" % (clock, zone[:3], zone[3:])
    again = hit_of(b'{"time":"%b","address":"::1","method":"GET","target":"/","status":200}' % iso)
    assert again is not None
    assert again.day == day


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"{",
        b"[]",
        b"{}",
        b'{"time":"2026-11-25T10:00:00+00:00","method":"GET","target":"/","status":"200"}',
        b'{"time":"2026-13-25T10:00:00+00:00","method":"GET","target":"/","status":200}',
        b'{"time":"2026-11-25T10:00:00+00:00","method":"GET","target":"/","status":200,"bytes":1e400}',
        b'{"time":"2026-11-25T10:00:00+00:00","method":"GET","target":"/","status":200,"bytes":99999999999999999999}',
        b'{"time":"2026-11-25T10:00:00+00:00","method":"GET","target":"/","status":200,"bytes":-1}',
        b'{"time":"2026-11-25T10:00:00+00:00","method":"GET","target":"/","status":200,"agent":' + b"[" * 100_000,
        b'::1 - - [99/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 0 "-" "-"',
        b'::1 - - [25/Nop/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 0 "-" "-"',
        b'::1 - - [25/Nov/0001:10:00:00 +0000] "GET / HTTP/1.1" 200 0 "-" "-"',
        b'::1 - - [25/Nov/2026:10:00:00 +0000] "\\x16\\x03\\x01" 400 157 "-" "-"',
        b'::1 - - [25/Nov/2026:10:00:00 +0000] "" 400 0 "-" "-"',
        b'::1 - - [25/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 99999999999999999 "-" "-"',
    ],
)
def test_what_is_no_request_is_nothing(line: bytes) -> None:
    assert hit_of(line) is None


def test_a_user_name_cannot_pass_for_the_time_or_the_request() -> None:
    forged = b"x [01/Jan/2020:00:00:00 +0000] \\x22GET /evil HTTP/1.1\\x22 200 1"
    hit = hit_of(b'::1 - %b [25/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 404 7 "-" "-"' % forged)
    assert hit is not None
    assert (hit.day, hit.target, hit.status) == (20782, "/", 404)


def test_quotes_of_apache_and_bytes_that_are_no_utf8() -> None:
    line = rb'::1 - - [25/Nov/2026:10:00:00 +0000] "GET /caf\xc3\xa9 HTTP/1.1" 200 1 "-" "a \"b\" \\c" 17'
    hit = hit_of(line)
    assert hit is not None
    assert (hit.target, hit.agent) == ("/café", 'a "b" \\c')
    odd = hit_of(as_json(agent="caf\xe9").replace("é".encode(), b"\xe9").rstrip(b"\n"))
    assert odd is not None
    assert odd.agent == "caf\ufffd"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hit_or_nothing(line: bytes) -> None:
    hit_of(line)
    hit_of(combined().rstrip(b"\n").replace(b"-", line))
    hit_of(as_json().rstrip(b"\n").replace(b"foo", line))


@pytest.mark.parametrize(
    ("header", "agent"),
    [
        (PIP, Agent("pip", "24.0", "3.11")),
        ("pip/24.0", Agent("pip", "24.0", "")),
        ("pip/1.5.6 CPython/2.7.9 Linux/3.16", Agent("pip", "1.5.6", "2.7")),
        ('uv/0.5.11 {"installer":{"name":"uv","version":"0.5.11"},"python":"3.12.1"}', Agent("uv", "0.5.11", "3.12")),
        ("uv/0.5.11", Agent("uv", "0.5.11", "")),
        ("poetry/1.8.3 CPython/3.11.2 Linux/6.1.0", Agent("poetry", "1.8.3", "3.11")),
        (
            'pdm/2.10.0 {"installer":{"name":"pdm","version":"2.10.0"},"python":"3.10.4"}',
            Agent("pdm", "2.10.0", "3.10"),
        ),
        ("Python-urllib/3.8 setuptools/41.0.1", Agent("setuptools", "41.0.1", "3.8")),
        ("bandersnatch/6.1.0 (cpython 3.11.2-final0, Linux x86_64)", Agent("bandersnatch", "6.1.0", "3.11")),
        ("python-requests/2.31.0", Agent("requests", "2.31.0", "")),
        ("curl/7.88.1", Agent("curl", "7.88.1", "")),
        ("Mozilla/5.0 (X11; Linux x86_64) Firefox/120.0", Agent("browser", "", "")),
        ("", Agent("other", "", "")),
        ("-", Agent("other", "", "")),
        ("evil/1.0 <script>", Agent("other", "", "")),
        ('pip/24.0 {"installer":{"name":"=cmd()","version":"<b>"},"python":"3.x"}', Agent("other", "", "")),
        ('pip/24.0 {"installer":{"name":7}}', Agent("pip", "24.0", "")),
        ('pip/24.0 {"installer":{"name":"pip","version":"24.0"},"python":"3.111111"}', Agent("pip", "24.0", "")),
        ("pip/24.0 {" + "[" * 100_000, Agent("pip", "24.0", "")),
        ("pip/99999999.1", Agent("pip", "", "")),
    ],
)
def test_agents(header: str, agent: Agent) -> None:
    assert agent_of(header) == agent


@given(st.text(max_size=200) | st.text(max_size=100).map(lambda text: f'pip/24.0 {{"python":"{text}"}}'))
def test_no_text_of_strangers_is_kept(header: str) -> None:
    agent = agent_of(header)
    assert re.fullmatch(r"[a-z_-]+[0-9]?", agent.installer)
    assert re.fullmatch(r"[0-9.]*", agent.version + agent.python, re.ASCII)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (WHEEL, Target("file", "foo-bar", "1.0", "foo_bar-1.0-py3-none-any.whl", DIGITS)),
        (WHEEL + "?x=1", Target("file", "foo-bar", "1.0", "foo_bar-1.0-py3-none-any.whl", DIGITS)),
        ("/pypi" + WHEEL, Target("file", "foo-bar", "1.0", "foo_bar-1.0-py3-none-any.whl", DIGITS)),
        (PLACE + "/a-1%2B2.tar.gz", Target("file", "a", "1+2", "a-1+2.tar.gz", DIGITS)),
        (WHEEL + ".metadata", Target("sidecar", "foo-bar")),
        ("/simple/Foo.Bar/", Target("page", "foo-bar")),
        ("/simple/foo/index.v1_json", Target("page", "foo")),
        ("/pypi/foo/json", Target("document", "foo")),
        ("/json/foo", Target("document", "foo")),
        ("/integrity/foo/1.0/foo-1.0.tar.gz/provenance", Target("provenance", "foo")),
        ("/simple/", Target("root")),
        ("/changes/head", Target("feed")),
        ("/last-modified", Target("feed")),
        ("/", Target("other")),
        ("/simple/../etc/passwd", Target("other")),
        ("/simple/../", Target("other")),
        ("/simple/%2e%2e%2f%2e%2e/", Target("other")),
        (PLACE + "/..", Target("other")),
        (PLACE + "/%2e%2e", Target("other")),
        (PLACE + "/..%2f..%2fevil-1.0.whl", Target("other")),
        (PLACE + "/a%00b-1.0.zip", Target("other")),
        (PLACE + "/a%0ab-1.0.zip", Target("other")),
        (PLACE + "/%ff-1.0.zip", Target("other")),
        (PLACE + "/" + "a" * 400 + "-1.0.zip", Target("other")),
        (PLACE + "/" + "a" * 5000, Target("other")),
    ],
)
def test_targets(raw: str, target: Target) -> None:
    assert target_of(raw) == target


@given(st.text(max_size=100))
def test_any_target_is_one_of_a_project_in_normal_form_or_nobodys(text: str) -> None:
    for raw in (text, f"/simple/{text}/", f"{PLACE}/{text}", f"/json/{text}"):
        target = target_of(raw)
        assert re.fullmatch(r"(?:[a-z0-9]+(?:-[a-z0-9]+)*)?", target.project)
        assert "/" not in target.filename


@pytest.mark.parametrize(
    ("filename", "release"),
    [
        ("foo_bar-1.0-py3-none-any.whl", ("foo-bar", "1.0")),
        ("foo-1.0-1-cp311-cp311-manylinux_2_17_x86_64.whl", ("foo", "1.0")),
        ("foo-1.0.tar.gz", ("foo", "1.0")),
        ("python-dateutil-2.8.2.tar.gz", ("python-dateutil", "2.8.2")),
        ("foo-2to3-1.0.tar.gz", ("foo-2to3", "1.0")),
        ("foo-1.0-beta.zip", ("foo", "1.0-beta")),
        ("foo-7.zip", ("foo", "7")),
        ("foo-1.0-py2.7.egg", ("foo", "1.0")),
        ("foo-1.0-py2.7-linux-x86_64.egg", ("foo", "1.0")),
        ("foo-1.0.win32-py2.7.exe", ("foo", "1.0")),
        ("foo-1.0.win-amd64-py3.4.msi", ("foo", "1.0")),
        ("foo.zip", ("foo", "")),
        ("zc.buildout-1.6.0.tgz", ("zc-buildout", "1.6.0")),
    ],
)
def test_releases(filename: str, release: tuple[str, str]) -> None:
    assert release_of(filename) == release
