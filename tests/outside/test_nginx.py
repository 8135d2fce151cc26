"""``configs/nginx.conf`` under the real nginx: the same table as ``heliostat serve``, and what only nginx does."""

import gzip
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.names import quote_filename
from support.nginx import CONFIG, SCRIPT, Nginx, compiled_in, executable, nginx_server
from support.places import open_directory
from support.rawhttp import Client, get
from support.served import static_server
from support.web_cases import (
    CASES,
    FORMATS,
    NEGOTIATION,
    ODD_NAMES,
    PIP,
    STORE,
    Case,
    write_small_tree,
)

pytestmark = pytest.mark.outside

#: The parity tests ask two running servers; nothing is left over between examples.
SHARED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    with open_directory() as root:
        write_small_tree(root)
        yield root / "web"


@pytest.fixture(scope="module")
def nginx(tree: Path) -> Iterator[Nginx]:
    with nginx_server(tree, unprivileged=True) as server:
        yield server


@pytest.fixture(scope="module")
def client(nginx: Nginx) -> Iterator[Client]:
    with Client(nginx.url) as client:
        yield client


@pytest.fixture(scope="module")
def other(tree: Path) -> Iterator[Client]:
    """``heliostat serve`` over the same tree."""
    with static_server(tree) as server, Client(server.url) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers(nginx: Nginx, case: Case) -> None:
    with Client(nginx.url) as client:
        case.check(client)


@pytest.mark.parametrize("page", ["/simple/", "/simple/foo/"])
@pytest.mark.parametrize(("accept", "media_type"), NEGOTIATION)
def test_negotiates(client: Client, page: str, accept: str | None, media_type: str) -> None:
    answer = client.get(page, {} if accept is None else {"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert "accept" in answer.vary


@pytest.mark.parametrize(("query", "media_type"), FORMATS)
def test_format_in_the_query_wins(client: Client, query: str, media_type: str) -> None:
    answer = client.get("/simple/foo/?" + query, {"Accept": "text/html"})
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names(client: Client, name: str) -> None:
    answer = client.get(STORE + quote_filename(name))
    assert (answer.status, answer.body) == (200, (STORE + name).encode())
    assert answer.headers["content-type"] == "application/octet-stream"


# --- the same as `heliostat serve` --------------------------------------------------------------------------------

_types = st.sampled_from(
    [
        *("application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.latest+json"),
        *("application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+html"),
        *("text/html", "Text/HTML", "text/*", "application/*", "*/*", "application/json", "text/htm", "xtext/html", ""),
    ]
)
_weights = st.one_of(
    st.sampled_from(
        ["1", "1.0", "1.", "0", "0.0", "0.", "1.1", "2", "", "x", "0.5x", " 0.5", "0.5 ", "00.5", ".5", "-0"]
    ),
    st.decimals(0, 1, places=3).map(str),
    st.from_regex(r"0\.[0-9]{1,5}", fullmatch=True),
)
_space = st.sampled_from(["", "", " ", "\t ", "  "])
_weight = st.builds("{}{}={}".format, _space, st.sampled_from(["q", "Q"]), _weights)
_parameter = st.one_of(_weight, st.sampled_from(["charset=utf-8", " level=1", "", "q", "xq=1", " q =0.3"]))
_entry = st.builds(
    lambda before, name, after, parameters: ";".join([before + name + after, *parameters]),
    _space,
    _types,
    _space,
    st.lists(_parameter, max_size=3),
)
accept_headers = st.lists(_entry, max_size=5).map(",".join)


@SHARED
@given(accept=accept_headers)
def test_negotiates_any_header_as_serve_does(client: Client, other: Client, accept: str) -> None:
    shown = [server.get("/simple/foo/", {"Accept": accept}) for server in (client, other)]
    assert [answer.status for answer in shown] == [200, 200]
    assert shown[0].headers["content-type"] == shown[1].headers["content-type"]


_pieces = st.one_of(
    st.sampled_from(
        ["", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "%00", "%0a", "%", "%4", "%zz", "%c3%bc", "%ff", "+", "%20"]
    ),
    st.sampled_from(
        ["simple", "Simple", "foo", "Foo", "f.oo", "_", "-", "json", "pypi", "packages", "aa", "index.html"]
    ),
    st.text(string.ascii_letters + string.digits + "._-~!$'()*+,;=:@", max_size=4),
)
paths = st.lists(st.builds("".join, st.lists(_pieces, min_size=1, max_size=3)), max_size=6).map(
    lambda segments: "/" + "/".join(segments)
)


@SHARED
@given(path=paths)
def test_answers_any_path_as_serve_does(nginx: Nginx, other: Client, path: str) -> None:
    ours, theirs = other.get(path), get(nginx.url, path)  # nginx closes the connection after a 400
    assert theirs.status == ours.status != 403
    assert theirs.headers.get("location") == ours.headers.get("location")
    if ours.status == 200:
        assert theirs.body == ours.body


@pytest.mark.parametrize("case", [case for case in CASES if case.status in (200, 206, 304)], ids=str)
def test_sends_the_same_headers_as_serve(client: Client, other: Client, case: Case) -> None:
    ours, theirs = (server.get(case.target, case.send, method=case.method) for server in (other, client))
    assert theirs.headers["server"] == "nginx"
    for headers in (ours.headers, theirs.headers):
        for about_the_server in ("date", "server", "connection"):
            headers.pop(about_the_server, None)
    if ours.status == 206:
        del ours.headers["accept-ranges"]  # nginx leaves it out there
    assert theirs.vary - {"accept-encoding"} == ours.vary  # nginx could have compressed it
    for headers in (ours.headers, theirs.headers):
        headers.pop("vary", None)
    assert theirs.headers == ours.headers


# --- nginx itself -------------------------------------------------------------------------------------------------


def test_a_replaced_page_shows_at_once(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    with nginx_server(tmp_path / "web") as server:
        before = get(server.url, "/json/foo")
        (tmp_path / "new").write_text("replaced")
        (tmp_path / "new").replace(tmp_path / "web" / "json" / "foo")
        after = get(server.url, "/json/foo", {"If-None-Match": before.headers["etag"]})
    assert (after.status, after.body) == (200, b"replaced")


def test_what_may_not_be_read_is_absent() -> None:
    with open_directory() as root:
        write_small_tree(root)
        (root / "web" / "json" / "foo").chmod(0)
        (root / "web" / "changes").chmod(0)
        with nginx_server(root / "web", unprivileged=True) as server:
            asked = [get(server.url, target).status for target in ("/json/foo", "/changes/head", "/last-modified")]
    assert asked == [404, 404, 200]


def test_a_compressed_copy_of_a_page_is_sent_where_it_lies(tmp_path: Path) -> None:
    write_small_tree(tmp_path)
    page = tmp_path / "web" / "simple" / "foo" / "index.v1_json"
    Path(f"{page}.gz").write_bytes(gzip.compress(b"the compressed copy"))
    with nginx_server(tmp_path / "web") as server:
        packed = get(server.url, "/simple/foo/", {"Accept": PIP, "Accept-Encoding": "gzip"})
        plain = get(server.url, "/simple/foo/", {"Accept": PIP})
    assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", b"the compressed copy")
    assert packed.headers["content-type"] == plain.headers["content-type"] == "application/vnd.pypi.simple.v1+json"
    assert packed.vary == {"accept", "accept-encoding"}
    assert plain.body == b"/simple/foo/index.v1_json"


@pytest.mark.parametrize(
    ("path", "target"), [("simple/foo/index.v1_json", "/simple/foo/"), ("json/foo", "/pypi/foo/json")]
)
def test_large_metadata_is_compressed_and_revalidates(tmp_path: Path, path: str, target: str) -> None:
    write_small_tree(tmp_path)
    (tmp_path / "web" / path).write_bytes(b"x" * 100_000)
    wish = {"Accept": PIP, "Accept-Encoding": "gzip"}
    with nginx_server(tmp_path / "web") as server:
        packed = get(server.url, target, wish)
        again = get(server.url, target, wish | {"If-None-Match": packed.headers["etag"]})
    assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", b"x" * 100_000)
    assert again.status == 304


SPELLINGS = [case for case in CASES if case.status == 301 or "Foo%0" in case.target or "/-foo" in case.target]


@pytest.mark.parametrize("case", SPELLINGS, ids=str)
def test_spellings_by_heliostat_behind_the_named_location(without_njs: Client, case: Case) -> None:
    case.check(without_njs)


@pytest.fixture(scope="module")
def without_njs(tree: Path) -> Iterator[Client]:
    with static_server(tree) as behind:
        replace = {
            "js_import heliostat from heliostat.js;": "",
            "js_content heliostat.redirect;": "",
            "#proxy_pass http://127.0.0.1:8080;": f"proxy_pass {behind.url};",
        }
        with nginx_server(tree, unprivileged=True, replace=replace, njs=False) as server, Client(server.url) as client:
            yield client
        # It was heliostat that answered, and it was asked for nothing else.
        assert any(line.startswith("GET /simple/FOO ") for line in behind.requests())
        assert not any(" 200" in line for line in behind.requests())


def test_spellings_by_neither_are_absent(tree: Path) -> None:
    replace = {
        "js_import heliostat from heliostat.js;": "",
        "js_content heliostat.redirect;": "",
        "#return 404;": "return 404;",
    }
    with nginx_server(tree, unprivileged=True, replace=replace, njs=False) as server, Client(server.url) as client:
        assert client.get("/simple/Foo/").status == 404
        assert client.get("/simple/foo").status == 301
        assert client.get("/simple/foo/").status == 200


def test_only_two_lines_are_to_be_edited() -> None:
    marked = [line.split()[0] for line in CONFIG.read_text().splitlines() if "# EDIT" in line]
    assert marked == ["server_name", "root"]


@pytest.mark.parametrize("place", ["conf.d/heliostat.conf", "sites-enabled/heliostat"])
def test_the_files_fit_where_the_documentation_puts_them(place: str) -> None:
    """The distribution's own nginx.conf and modules-enabled, with our two files added."""
    with open_directory() as root:
        config = root / "nginx"
        shutil.copytree(compiled_in("conf-path").parent, config, ignore=shutil.ignore_patterns("default"))
        (config / place).write_text(CONFIG.read_text().replace("listen 80;", f"listen unix:{root}/socket;"))
        shutil.copy(SCRIPT, config / "heliostat.js")
        main = (config / "nginx.conf").read_text()
        for path in ("/etc/nginx/", "/run/", "/var/log/nginx/"):
            main = main.replace(path, f"{config}/")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {root};" for kind in kinds)
        (config / "nginx.conf").write_text(main.replace("http {", "http {" + temporary))
        command = [executable(), "-t", "-c", str(config / "nginx.conf"), "-g", "error_log stderr;"]
        tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    warnings = [line for line in tested.stderr.splitlines() if "[warn]" in line]
    # Without root's rights nginx says that it ignores the distribution's "user".
    assert [line for line in warnings if '"user" directive' not in line] == []
