"""What a web server over a heliostat tree must answer: one table, asked of every server that we ship.

The tree is made by hand and small; contents name their own path, so that a wrong file shows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from support.rawhttp import Answer, Client

JSON, V1_HTML, HTML = (
    "application/vnd.pypi.simple.v1+json",
    "application/vnd.pypi.simple.v1+html",
    "text/html; charset=utf-8",
)
LATEST_JSON, LATEST_HTML = "application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.latest+html"
PIP = f"{JSON}, {V1_HTML}; q=0.1, text/html; q=0.01"
UV = f"{JSON}, {V1_HTML};q=0.2, text/html;q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

#: Accept header (None: not sent) -> media type of the answer.
NEGOTIATION: list[tuple[str | None, str]] = [
    (None, HTML),
    ("", HTML),
    ("*/*", HTML),
    (PIP, JSON),
    (UV, JSON),
    (BROWSER, HTML),
    (JSON, JSON),
    (V1_HTML, V1_HTML),
    ("text/html", HTML),
    (LATEST_JSON, JSON),
    (LATEST_HTML, V1_HTML),
    (JSON.upper(), JSON),
    (f"{JSON};q=0.5, {V1_HTML};q=0.6", V1_HTML),
    (f"{JSON};q=0.5, {V1_HTML};q=0.4", JSON),
    (f"{JSON};q=0.5,text/html;q=0.51", HTML),
    (f"{JSON};q=0.5,text/html;q=0.509", HTML),
    (f"{JSON};q=0.509,text/html;q=0.51", HTML),
    (f"{JSON};q=0.511,text/html;q=0.51", JSON),
    (f"{JSON};q=0.9,text/html;q=0.10", JSON),
    (f"{JSON};q=0.001,text/html;q=0", JSON),
    (f"{V1_HTML};q=0.3, text/html;q=0.2, {JSON};q=0.1", V1_HTML),
    (f"{V1_HTML};q=0.1, text/html;q=0.2, {JSON};q=0.05", HTML),
    # equal weights: JSON before HTML, v1 HTML before plain, a name before a wildcard
    (f"text/html, {JSON}", JSON),
    (f"text/html, {V1_HTML}", V1_HTML),
    (f"text/html;q=0.5, {JSON};q=0.5", JSON),
    (f"text/html;q=0.50, {JSON};q=0.5", JSON),
    (f"{JSON}, */*", JSON),
    (f"*/*, {V1_HTML}", V1_HTML),
    (f"{V1_HTML};q=0.5, */*;q=0.5", V1_HTML),
    (f"{V1_HTML};q=0.5, */*", HTML),
    (f"{JSON};q=0.1, text/*", HTML),
    ("application/*", V1_HTML),
    ("application/*, text/*;q=0.5", V1_HTML),
    ("application/*;q=0.5, text/*", HTML),
    ("application/*, text/*", HTML),
    (f"*/*;q=0.5, {V1_HTML};q=0.3", HTML),
    (f"*/*;q=0.3, {V1_HTML};q=0.5", V1_HTML),
    (f"text/*;q=0.5, {JSON};q=0.4", HTML),
    (f"text/*;q=0.4, {JSON};q=0.5", JSON),
    ("application/*;q=0.6, text/html;q=0.5", V1_HTML),
    ("application/*;q=0.5, text/html;q=0.6", HTML),
    # refused, or nothing acceptable: never 406
    (f"{JSON};q=0", HTML),
    (f"{JSON};q=0.0, {V1_HTML}", V1_HTML),
    (f"{JSON};q=0.000, */*;q=0.1", HTML),
    (f"text/html;q=0, {V1_HTML};q=0, */*", JSON),
    ("*/*;q=0", HTML),
    ("image/png", HTML),
    ("application/json", HTML),
    # writing: parameters, white space, empty entries, what is no weight
    (f"{JSON} ; q=0.2 , text/html ; q=0.1", JSON),
    (f"{JSON};charset=utf-8;q=0.1, text/html;q=0.2", HTML),
    (f"{JSON};q=0.3;ext=1, text/html;q=0.2", JSON),
    (f"text/html;Q=0.2,,{JSON};Q=0.3,", JSON),
    (f"{JSON};q=1.000, text/html;q=0.999", JSON),
    (f"{JSON};q=much, text/html;q=0.1", HTML),
    (f"{JSON};q=2, text/html;q=0.1", HTML),
    (f"{JSON};q=0.1, x{JSON}, text/html;q=0.2", HTML),
    (f"{JSON}x, text/html;q=0.2", HTML),
    # `latest` is another name of the same type
    (f"{LATEST_JSON};q=0.2, text/html;q=0.1", JSON),
    (f"{LATEST_JSON};q=0.1, text/html;q=0.2", HTML),
]

#: Query string -> media type, with an Accept header that asks for plain HTML.
FORMATS: list[tuple[str, str]] = [
    ("format=" + JSON, JSON),
    ("format=" + JSON.replace("+", "%2B"), JSON),
    ("format=application%2fvnd.pypi.simple.v1%2bhtml", V1_HTML),
    ("format=" + LATEST_JSON, JSON),
    ("format=text/html", HTML),
    ("x=1&format=" + V1_HTML + "&y=2", V1_HTML),
    ("xformat=" + JSON, HTML),
    ("format=json", HTML),
    ("format=", HTML),
    ("format=text/plain&format=" + JSON, HTML),
]

ODD_NAMES = [
    "x-1.0+cu118-py3-none-any.whl",
    "x-1!3.1.0-py3-none-any.whl",
    "100%-1.0.tar.gz",
    "x%2B-1.0.tar.gz",
    "a#b-1.0.tar.gz",
    "a&b;c=d,e@f:g-1.0.tar.gz",
    "scikit-highs-('0.6.0',).tar.gz",
    'quoted"-1.0.tar.gz',
    "pyfurby-0.1 (1).tar.gz",
    "föö-1.0-py3-none-any.whl",
    "what?-1.0.tar.gz",
    "[x]-{1}~$*<>|^`.zip",
]
STORE = "/packages/aa/bb/" + "c" * 60 + "/"
#: Bytes of the file that ranges are asked of, and the mtime of everything.
WHEEL = bytes(range(256)) * 8
MTIME = 1_700_000_000
ETAG = f'"{MTIME:x}-{len(WHEEL):x}"'
MODIFIED = formatdate(MTIME, usegmt=True)
IMMUTABLE = "max-age=365000000, immutable, public"
LONGEST = "n" * 255
OTHER_TYPES = {
    "css": "text/css",
    "html": "text/html; charset=utf-8",
    "js": "application/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "bz2": "application/octet-stream",
}


@dataclass(frozen=True)
class Case:
    """One request and what every answer to it must show; ``None`` as a header's value: it must be absent.

    ``Vary`` may name more than what is wanted here (nginx adds Accept-Encoding).
    """

    target: str
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    send: dict[str, str] = field(default_factory=dict)
    method: str = "GET"

    def __str__(self) -> str:
        sent = "".join(f" {name}:{value}" for name, value in self.send.items())
        return f"{self.method} {self.target[:80]}{sent}"

    def check(self, client: Client) -> Answer:
        answer = client.get(self.target, self.send, method=self.method)
        shown = {name: answer.headers.get(name.lower()) for name in self.headers}
        if "Vary" in self.headers:
            shown["Vary"] = "Accept" if "accept" in answer.vary else None
        assert (answer.status, shown) == (self.status, self.headers), f"{self}: {answer}"
        assert self.body is None or answer.body == self.body, f"{self}: {answer}"
        return answer


def file(path: str, **headers: str | None) -> Case:
    """The file at ``path`` comes, with these headers (underscores for hyphens)."""
    wanted = {name.replace("_", "-"): value for name, value in headers.items()}
    return Case(path, 200, path.encode(), wanted)


def moved(target: str, location: str) -> Case:
    return Case(target, 301, headers={"Location": location})


def absent(target: str) -> Case:
    return Case(target, 404, b"404 Not Found\n", {"Location": None, "Content-Type": "text/plain; charset=utf-8"})


def part(sent: str, status: int, start: int, stop: int, **send: str) -> Case:
    """``Range: sent`` gives the bytes from ``start`` to before ``stop``."""
    headers: dict[str, str | None] = {"Content-Length": str(stop - start), "ETag": ETAG}
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(WHEEL)}" if status == 206 else None
    extra = {name.replace("_", "-"): value for name, value in send.items()}
    return Case(STORE + "wheel", status, WHEEL[start:stop], headers, {"Range": sent, **extra})


CASES: list[Case] = [
    file("/simple/foo/index.v1_json", Content_Type=JSON, Vary="Accept", Cache_Control="max-age=600, public"),
    file("/simple/foo/index.v1_html", Content_Type=V1_HTML),
    file("/simple/foo/index.html", Content_Type=HTML),
    file("/simple/index.v1_json", Content_Type=JSON),
    file("/json/foo", Content_Type="application/json", Cache_Control="max-age=900, public", Vary=None),
    Case("/pypi/foo/json", 200, b"/json/foo", {"Content-Type": "application/json", "Access-Control-Allow-Origin": "*"}),
    file("/last-modified", Content_Type="text/plain; charset=utf-8", Cache_Control="max-age=10, public"),
    file("/changes/head", Content_Type="text/plain; charset=utf-8", Cache_Control="max-age=10, public"),
    file("/changes/1.html", Content_Type="text/plain; charset=utf-8"),
    file("/integrity/foo/1.0/foo-1.0.tar.gz/provenance", Content_Type="application/vnd.pypi.integrity.v1+json"),
    file("/index.html", Content_Type=HTML),
    Case("/", 200, b"/index.html", {"Content-Type": HTML}),
    *(file(f"/static/file.{suffix}", Content_Type=media_type) for suffix, media_type in OTHER_TYPES.items()),
    Case("/project/foo/", 200, b"/project/foo/index.html", {"Content-Type": HTML}),
    Case("/simple/foo/?format=text/html", 200, b"/simple/foo/index.html", {"Content-Type": HTML}, {"Accept": JSON}),
    # redirects: the missing slash, and every other spelling, in one step
    moved("/simple", "/simple/"),
    moved("/simple/foo", "/simple/foo/"),
    moved("/simple/foo?format=x&y=%0d%0a", "/simple/foo/?format=x&y=%0d%0a"),
    moved("/simple/absent", "/simple/absent/"),
    moved("/simple/FOO/", "/simple/foo/"),
    moved("/simple/FOO", "/simple/foo/"),
    moved("/simple/Foo.-_Bar/?format=text/html", "/simple/foo-bar/?format=text/html"),
    moved("/simple/%46oo", "/simple/foo/"),
    moved("/simple/f%2Eo/", "/simple/f-o/"),
    moved("/simple/0-._.-._.-0/", "/simple/0-0/"),
    moved("/simple/Not-Here/", "/simple/not-here/"),
    moved("/simple/" + LONGEST.upper() + "/", f"/simple/{LONGEST}/"),
    moved("/pypi/Foo/json", "/pypi/foo/json"),
    moved("/pypi/foo/json/", "/pypi/foo/json"),
    moved("/pypi/Foo.Bar/json/?x", "/pypi/foo-bar/json?x"),
    # 404, never 403: absent, directories, what is no name, what may not be followed
    absent("/simple/bar/"),
    absent("/simple/foo/index.v1_xml"),
    absent("/simple/foo/foo-1.0.tar.gz"),
    absent("/simple/foo/bar/"),
    absent("/simple/-foo/"),
    absent("/simple/foo_"),
    absent("/simple/f%20oo/"),
    absent("/simple/f%C3%B6o/"),
    absent("/simple/" + "N" * 256 + "/"),
    absent("/simple/foo%0a"),
    absent("/simple/Foo%0a"),
    absent("/simple/foo%0d%0aX-Injected:%20yes"),
    absent("/simple/Foo%0d%0aX-Injected:%20yes/"),
    absent("/simple/foo/%0a"),
    absent("/simple/Foo%5c.."),
    absent("/pypi/bar/json"),
    absent("/pypi/foo/"),
    absent("/pypi/foo"),
    absent("/pypi/"),
    absent("/pypi/foo/1.0/json"),
    absent("/json/"),
    absent("/json/bar"),
    absent("/packages/"),
    absent("/packages"),
    absent("/packages/aa/"),
    absent("/packages/aa"),
    absent(STORE),
    absent(STORE + "absent"),
    absent(STORE + "wheel/"),
    absent(STORE + "wheel/more"),
    absent(STORE + "x" * 300),
    absent("/static/"),
    absent("/static"),
    absent("/integrity/foo/"),
    absent("/integrity/foo"),
    absent("/changes/directory"),
    absent("/json/directory"),
    absent("/nothing"),
    absent(STORE + "outside"),
    absent("/json/escaped"),
    absent(STORE + "loop"),
    absent(STORE + "fifo"),
    # one directory cannot be left, however it is spelled
    *(
        Case(target, 400)
        for target in (
            "/../secret",
            "/%2e%2e/secret",
            "/simple/../../secret",
            "/..%2fsecret",
            "/%00",
            "/simple/%zz",
            "/%4",
        )
    ),
    absent("/packages/%2e%2e/secret"),
    absent("/packages/..%2f/secret"),
    absent("/..%5csecret"),
    absent("/packages/aa/..%5c..%5csecret"),
    absent("/%2f%2fsecret"),
    absent("/%252e%252e/secret"),
    Case("//simple//foo/./index.html", 200, b"/simple/foo/index.html"),
    Case("/packages/aa/../../json/foo", 200, b"/json/foo"),
    Case("/packages/..%2fjson%2ffoo", 200, b"/json/foo"),
    # ranges and conditions
    Case(STORE + "wheel", 200, WHEEL, {"Cache-Control": IMMUTABLE, "Content-Type": "application/octet-stream"}),
    Case(STORE + "wheel", 200, WHEEL, {"Accept-Ranges": "bytes", "ETag": ETAG, "Last-Modified": MODIFIED}),
    Case(STORE + "wheel", 200, b"", {"Accept-Ranges": "bytes", "Content-Length": str(len(WHEEL))}, method="HEAD"),
    part("bytes=0-0", 206, 0, 1),
    part("bytes=10-19", 206, 10, 20),
    part("bytes=2000-", 206, 2000, len(WHEEL)),
    part("bytes=2000-9999999", 206, 2000, len(WHEEL)),
    part("bytes=-5", 206, len(WHEEL) - 5, len(WHEEL)),
    part("bytes=-99999", 206, 0, len(WHEEL)),
    part("lines=1-2", 200, 0, len(WHEEL)),
    part("bytes=10-", 206, 10, len(WHEEL), If_Range=ETAG),
    part("bytes=10-", 206, 10, len(WHEEL), If_Range=MODIFIED),
    part("bytes=10-", 200, 0, len(WHEEL), If_Range='"other"'),
    part("bytes=10-", 200, 0, len(WHEEL), If_Range="W/" + ETAG),
    part("bytes=10-", 200, 0, len(WHEEL), If_Range=formatdate(MTIME - 1, usegmt=True)),
    Case(STORE + "wheel", 416, headers={"Content-Range": f"bytes */{len(WHEEL)}"}, send={"Range": "bytes=2048-"}),
    Case(STORE + "wheel", 416, headers={"Content-Range": f"bytes */{len(WHEEL)}"}, send={"Range": "bytes=-0"}),
    Case(STORE + "wheel", 304, b"", {"ETag": ETAG}, {"If-None-Match": ETAG}),
    Case(STORE + "wheel", 304, b"", {"ETag": ETAG}, {"If-None-Match": f'"x", W/{ETAG}'}),
    Case(STORE + "wheel", 304, b"", {"ETag": ETAG}, {"If-None-Match": "*"}),
    Case(STORE + "wheel", 304, b"", {}, {"If-None-Match": ETAG, "Range": "bytes=0-1"}),
    Case(STORE + "wheel", 200, WHEEL, {}, {"If-None-Match": '"x"'}),
    Case(STORE + "wheel", 304, b"", {}, {"If-Modified-Since": MODIFIED}),
    Case(STORE + "wheel", 200, WHEEL, {}, {"If-Modified-Since": formatdate(MTIME - 1, usegmt=True)}),
    Case(STORE + "wheel", 304, b"", {"Cache-Control": IMMUTABLE}, {"If-None-Match": ETAG}, "HEAD"),
    Case("/simple/foo/", 304, b"", {"Vary": "Accept"}, {"If-None-Match": f'"{MTIME:x}-16"'}),
    Case("/simple/foo/", 200, b"", {"Content-Type": JSON, "Vary": "Accept"}, {"Accept": PIP}, "HEAD"),
    Case("/simple/bar/", 404, b"", {}, {}, "HEAD"),
    # a tar is not answered from the tar.gz beside it, and nothing is compressed again
    Case(STORE + "x-1.0.tar", 404, send={"Accept-Encoding": "gzip, br"}),
    Case(STORE + "y-1.0.tar", 200, b"plain", {"Content-Encoding": None}, {"Accept-Encoding": "gzip, br"}),
    Case(STORE + "y-1.0.tar.gz", 200, b"zipped", {"Content-Encoding": None}, {"Accept-Encoding": "gzip"}),
    Case("/simple/foo/", 405, method="POST"),
    Case(STORE + "wheel", 405, method="DELETE"),
]


def write_small_tree(root: Path) -> None:
    """The tree that :data:`CASES` are about, in the empty directory ``root/web``; ``root/secret`` must stay out of reach."""
    web = root / "web"
    for directory in ("/simple/", "/simple/foo/"):
        for page in ("index.html", "index.v1_html", "index.v1_json"):
            _write(web, directory + page)
    for path in (
        "/json/foo",
        "/last-modified",
        "/changes/head",
        "/changes/1.html",
        "/changes/directory/file",
        "/json/directory/file",
        "/integrity/foo/1.0/foo-1.0.tar.gz/provenance",
        "/index.html",
        *(f"/static/file.{suffix}" for suffix in OTHER_TYPES),
        "/project/foo/index.html",
    ):
        _write(web, path)
    _write(web, STORE + "wheel", WHEEL)
    _write(web, STORE + "x-1.0.tar.gz", b"zipped")
    _write(web, STORE + "y-1.0.tar.gz", b"zipped")
    _write(web, STORE + "y-1.0.tar", b"plain")
    for name in ODD_NAMES:
        _write(web, STORE + name)
    (web / "pypi" / "foo").mkdir(parents=True)
    (web / "pypi" / "foo" / "json").symlink_to("../../json/foo")
    _write(root, "/secret", b"secret")
    store = str(web) + STORE
    # Links out of the web root have another owner than their target, as those have that came from elsewhere.
    strange = root / "secret" if os.geteuid() == 0 else Path("/etc/passwd")
    for link in (Path(store) / "outside", web / "json" / "escaped"):
        link.symlink_to(strange if link.name == "outside" else os.path.relpath(strange, link.parent.resolve()))
        if os.geteuid() == 0:
            os.chown(link, 12345, 12345, follow_symlinks=False)
    os.symlink("loop", store + "loop")
    os.mkfifo(store + "fifo")


def _write(root: Path, path: str, content: bytes | None = None) -> None:
    target = str(root) + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(path.encode() if content is None else content)
    os.utime(target, (MTIME, MTIME))
