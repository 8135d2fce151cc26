"""Which answer belongs to which request: the public index's URLs, statuses and headers."""

from __future__ import annotations

import base64
import hashlib
import re
import xmlrpc.client
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from urllib.parse import parse_qs, unquote
from xml.parsers.expat import ExpatError

from heliostat.fakeindex import render
from heliostat.fakeindex.http import Answer, Headers, Request
from heliostat.fakeindex.index import Index
from heliostat.fakeindex.options import Options
from heliostat.fakeindex.project import Project, UploadedFile, normal_form
from heliostat.fakeindex.root import RootList

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
TEXT_HTML = "text/html"
_OFFERED = {
    JSON: JSON,
    HTML: HTML,
    TEXT_HTML: TEXT_HTML,
    "application/vnd.pypi.simple.latest+json": JSON,
    "application/vnd.pypi.simple.latest+html": HTML,
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CORS = ("Access-Control-Allow-Origin", "*")
#: Rendered bodies are kept up to so many bytes.
_KEPT_BYTES = 128 << 20
_GONE = "RuntimeError: PyPI no longer supports the XMLRPC {} method. Use JSON or Simple API instead."
_WITHDRAWN = frozenset(
    {"search", "list_packages", "package_releases", "release_urls", "release_data", "package_roles", "user_packages"}
)


class Site:
    """Answers for one index; rendered bodies are kept until their project changes."""

    def __init__(self, index: Index, options: Options) -> None:
        self.index, self.options = index, options
        self.root = RootList(index)
        self._kept: OrderedDict[tuple[str, ...], tuple[object, Answer]] = OrderedDict()
        self._kept_bytes = 0

    def answer(self, request: Request) -> Answer:
        """What the index answers now; conditions (ETag) are the caller's, see :meth:`conditional`."""
        path, method = request.path, request.method
        if method == "POST":
            return self._xmlrpc(request) if path in ("/pypi", "/pypi/", "/RPC2") else _plain(405, "Method Not Allowed")
        if method not in ("GET", "HEAD"):
            return _plain(405, "Method Not Allowed")
        if path.startswith("/simple"):
            return self._simple(request)
        if path.startswith("/pypi/") and path.rstrip("/").endswith("/json"):
            return self._document(request)
        if path.startswith("/integrity/") and self.options.provenance:
            return self._provenance(path)
        return self.file(request)

    def conditional(self, request: Request, answer: Answer) -> Answer:
        """304 where the request's ``If-None-Match`` says so; files never give one."""
        asked = request.headers.get("if-none-match")
        if not asked or answer.status != 200 or answer.content is not None:
            return answer
        etag = answer.header("ETag")
        known = [one.strip().removeprefix("W/") for one in asked.split(",")]
        if etag is None or (etag not in known and "*" not in known):
            return answer
        return Answer(304, b"", tuple(pair for pair in answer.headers if pair[0] != "Content-Type"))

    # -- the Simple API ----------------------------------------------------------------------------------------

    def _simple(self, request: Request) -> Answer:
        path = request.path
        if path == "/simple/":
            return self._root(self._kind(request))
        if path == "/simple":
            return _redirect("/simple/")
        name = unquote(path.removeprefix("/simple/").removesuffix("/"))
        if not path.startswith("/simple/") or "/" in name:
            return _plain(404, "404 Not Found")
        normal = normal_form(name)
        if normal != name or not path.endswith("/"):
            return _redirect(f"/simple/{normal}/")
        project = self.index.get(normal)
        return self.page(project, self._kind(request)) if project else _plain(404, "404 Not Found")

    def page(self, project: Project, kind: str) -> Answer:
        """The page of a project, or of a copy of an earlier state of it."""
        text = self.options.serial_as_string
        relative = self.options.relative_urls
        bases = replace(self.index.bases, relative=relative) if relative else self.index.bases

        def make() -> Answer:
            if kind == JSON:
                body = render.page_json(project, bases, serial_as_text=text)
            else:
                body = render.page_html(project, bases)
            return self._metadata(body, kind, project.last_serial)

        return self._keep(("page", project.name, kind), (project.revision, project.last_serial, bases, text), make)

    def _root(self, kind: str) -> Answer:
        text = self.options.serial_as_string

        def make() -> Answer:
            body = self.root.json(serial_as_text=text) if kind == JSON else self.root.html()
            return self._metadata(body, kind, self.index.serial)

        return self._keep(("root", kind), (self.index.serial, len(self.index.changes), text), make)

    def _kind(self, request: Request) -> str:
        if not self.options.simple_json:
            return TEXT_HTML
        if not self.options.simple_html:
            return JSON
        if request.query:
            asked = parse_qs(request.query.replace("+", "%2B")).get("format", [""])[0]
            if asked in _OFFERED:
                return _OFFERED[asked]
        return negotiated(request.headers.get("accept", ""))

    # -- documents and provenance ------------------------------------------------------------------------------

    def _document(self, request: Request) -> Answer:
        parts = [unquote(part) for part in request.path.removeprefix("/pypi/").split("/")]
        if request.path.endswith("/"):
            return _redirect(request.path.rstrip("/"))
        if not self.options.documents or len(parts) not in (2, 3):
            return _not_found()
        project = self.index.get(parts[0])
        if project is None:
            return _not_found()
        return self.document(project, parts[1] if len(parts) == 3 else None)

    def document(self, project: Project, version: str | None = None) -> Answer:
        """The document of a project, or of a copy of an earlier state of it."""
        bases = self.index.bases

        def make() -> Answer:
            body = render.document(project, bases, version)
            if body is None:
                return _not_found()
            return self._metadata(body, "application/json", project.last_serial)

        return self._keep(
            ("document", project.name, version or ""), (project.revision, project.last_serial, bases), make
        )

    def _provenance(self, path: str) -> Answer:
        parts = [unquote(part) for part in path.removeprefix("/integrity/").split("/")]
        if len(parts) == 4 and parts[3] == "provenance":
            project = self.index.get(parts[0])
            file = project.find(parts[1], parts[2]) if project else None
            if file is not None and file.provenance is not None:
                body = provenance_bytes(file)
                return self._metadata(body, "application/vnd.pypi.integrity.v1+json", None, max_age=600)
        body = b'{"message": "No provenance available for %b"}' % parts[-2].encode() if len(parts) > 1 else b"{}"
        return Answer(404, body, (("Content-Type", "application/json"),))

    def _metadata(self, body: bytes, kind: str, serial: int | None, *, max_age: int | None = None) -> Answer:
        simple = kind in _OFFERED
        headers = [
            ("Content-Type", kind),
            ("Cache-Control", f"max-age={max_age or (600 if simple else 900)}, public"),
            ("Vary", "Accept, Accept-Encoding" if simple else "Accept-Encoding"),
            _CORS,
            ("Access-Control-Expose-Headers", "X-PyPI-Last-Serial"),
        ]
        if serial is not None and self.options.serial_header:
            headers.append(("X-PyPI-Last-Serial", str(serial)))
        if self.options.etags:
            headers.append(("ETag", etag(body)))
        return Answer(200, body, tuple(headers), compress=self.options.gzip)

    # -- files -------------------------------------------------------------------------------------------------

    def file(self, request: Request) -> Answer:
        """A file, a part of it, or its sidecar."""
        file = self.index.file_at(request.path)
        if file is not None:
            return self._file(request, file)
        if request.path.endswith(".metadata"):
            file = self.index.file_at(request.path.removesuffix(".metadata"))
            if file is not None and file.sidecar is not None:
                return Answer(200, file.sidecar, self._file_headers(file, hashlib.md5(file.sidecar).hexdigest()))  # noqa: S324
        return _plain(404, "404 Not Found")

    def _file(self, request: Request, file: UploadedFile) -> Answer:
        content = file.content
        headers = self._file_headers(file, content.digests.md5)
        asked = request.headers.get("range") if self.options.ranges else None
        condition = request.headers.get("if-range")
        if asked is None or (condition is not None and condition != f'"{content.digests.md5}"'):
            return Answer(200, b"", headers, content=content)
        found = _RANGE.fullmatch(asked)
        if not found or not (found[1] or found[2]):
            return Answer(200, b"", headers, content=content)
        start, stop = _part(found[1], found[2], content.size)
        if start >= stop:
            return Answer(416, b"", (("Content-Range", f"bytes */{content.size}"), *headers))
        part = ("Content-Range", f"bytes {start}-{stop - 1}/{content.size}")
        return Answer(206, b"", (part, *headers), content=content, start=start, stop=stop)

    def _file_headers(self, file: UploadedFile, digest: str) -> Headers:
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Cache-Control", "max-age=365000000, immutable, public"),
            ("Last-Modified", _stored(file.upload_time)),
            _CORS,
        ]
        if self.options.ranges:
            headers.append(("Accept-Ranges", "bytes"))
        if self.options.etags:
            headers.append(("ETag", f'"{digest}"'))
        return tuple(headers)

    # -- XML-RPC -----------------------------------------------------------------------------------------------

    def _xmlrpc(self, request: Request) -> Answer:
        if not self.options.xmlrpc:
            return _plain(404, "404 Not Found")
        if not request.headers.get("content-type", "").startswith("text/xml"):
            return Answer(200, b"<!DOCTYPE html>\n<title>A web page</title>\n", (("Content-Type", "text/html"),))
        try:
            parameters, method = xmlrpc.client.loads(request.body)
        except (ExpatError, xmlrpc.client.Error, TypeError, ValueError) as exc:
            return xml(render.xml_fault(-32700, f"parse error; not well formed: {exc}"))
        return xml(self._call(str(method), parameters))

    def _call(self, method: str, parameters: tuple[object, ...]) -> bytes:
        if method == "changelog_last_serial" and not parameters:
            return render.xml_answer(render.xml_int(self.index.serial))
        if method == "changelog_since_serial" and len(parameters) == 1:
            since = parameters[0]
            if not isinstance(since, int) or isinstance(since, bool):
                return render.xml_fault(-32602, "client error; serial: Input should be a valid integer")
            return render.xml_answer(render.xml_rows(self.index.rows(since, self.options.row_cap)))
        if method == "list_packages_with_serial" and not parameters:
            entries = ((display, serial) for _, display, serial, _ in self.index.entries())
            return render.xml_answer(render.xml_serials(entries))
        if method in _WITHDRAWN:
            return render.xml_fault(-32500, _GONE.format(method))
        return render.xml_fault(-32601, "server error; requested method not found")

    # -- keeping -----------------------------------------------------------------------------------------------

    def _keep(self, key: tuple[str, ...], stamp: object, make: Callable[[], Answer]) -> Answer:
        """The answer made for the same key and stamp before, or a new one."""
        stamp = (stamp, self.options.serial_header, self.options.etags, self.options.gzip)
        found = self._kept.get(key)
        if found is not None and found[0] == stamp:
            self._kept.move_to_end(key)
            return found[1]
        answer = make()
        if found is not None:
            self._kept_bytes -= len(found[1].body)
        self._kept[key] = (stamp, answer)
        self._kept.move_to_end(key)
        self._kept_bytes += len(answer.body)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.body)
        return answer


@lru_cache(maxsize=256)
def negotiated(accept: str) -> str:
    """The best offered type; HTML for no header, for ``*/*``, and when nothing fits."""
    best, best_quality = TEXT_HTML, 0.0
    for part in accept.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = _quality(parameters)
        offered = _OFFERED.get(kind.lower())
        if offered is not None and quality > best_quality:
            best, best_quality = offered, quality
    return best


def xml(body: bytes) -> Answer:
    """An XML-RPC answer with the rate limit's headers."""
    limit = (("RateLimit-Policy", '"xmlrpc.client";q=3600;w=3600'), ("RateLimit", '"xmlrpc.client";r=3599;t=3600'))
    return Answer(200, body, (("Content-Type", "text/xml; charset=UTF-8"), *limit))


def provenance_bytes(file: UploadedFile) -> bytes:
    """The PEP 740 object as it is served."""
    return render.dumps(file.provenance)


def etag(body: bytes) -> str:
    """The body's MD5 in base64 without padding, quoted."""
    digest = hashlib.md5(body).digest()  # noqa: S324 - an identifier, not a protection
    return f'"{base64.b64encode(digest).decode().rstrip("=")}"'


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _stored(upload_time: str) -> str:
    """A file is stored a while after its upload began."""
    try:
        moment = datetime.fromisoformat(upload_time)
    except ValueError:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=90), usegmt=True)


def _plain(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), (("Content-Type", "text/plain; charset=UTF-8"),))


def _not_found() -> Answer:
    return Answer(404, b'{"message": "Not Found"}', (("Content-Type", "application/json"),))


def _redirect(target: str) -> Answer:
    return Answer(301, b"", (("Location", target), _CORS))
