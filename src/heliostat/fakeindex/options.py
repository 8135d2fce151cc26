"""How a fake index behaves: the public index unless something else is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Options:
    """All of it may be changed while the server runs, except ``files_host``."""

    #: ``POST /pypi``; without it the answer is 404.
    xmlrpc: bool = True
    #: ``changelog_since_serial`` gives at most so many rows.
    row_cap: int = 50_000
    #: ``/pypi/NAME/json``.
    documents: bool = True
    #: The Simple API in JSON; without it every answer is HTML.
    simple_json: bool = True
    #: The Simple API in HTML; without it every answer is JSON.
    simple_html: bool = True
    #: ``X-PyPI-Last-Serial``.
    serial_header: bool = True
    #: ``_last-serial`` in pages is a text, as one kind of mirror writes it.
    serial_as_string: bool = False
    #: ``ETag`` and 304 on metadata, ``ETag`` on files.
    etags: bool = True
    #: Range requests for files.
    ranges: bool = True
    #: gzip for metadata, for those who ask.
    gzip: bool = True
    #: ``/integrity/.../provenance``.
    provenance: bool = True
    #: File links on pages are relative (needs ``files_host=False``).
    relative_urls: bool = False
    #: Files are served on a second port, so that their URLs name another host.
    files_host: bool = False
    #: Seconds before every answer.
    latency: float = 0.0
    #: Share of requests (0 to 1) that are answered with ``error_status``, drawn from ``seed``.
    error_rate: float = 0.0
    error_status: int = 503
    seed: int = 0
    #: Keep the list of requests; without it only the counters.
    log: bool = True
    #: The most requests that are kept.
    log_length: int = 200_000
    #: ``/_control/``: changes and faults by HTTP, for tests that run the index as a process.
    control: bool = False

    @classmethod
    def static(cls) -> Options:
        """A static mirror: serials in bodies only, no XML-RPC, relative links."""
        return cls(xmlrpc=False, serial_header=False, relative_urls=True)
