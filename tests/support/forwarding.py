"""A server that passes everything on, but asks for index pages in plain HTML, as old installers do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.rawhttp import get


@contextmanager
def html_only(url: str) -> Iterator[str]:
    """The base URL of a server that answers as ``url`` does to a client that knows HTML only."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = {name: value for name, value in self.headers.items() if name.lower() in ("range", "if-none-match")}
            answer = get(url, self.path, {"Accept": "text/html", **sent}, method=self.command)
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name not in ("connection", "date", "server", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.headers.get("content-length", "0"))
            self.end_headers()
            self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
