"""Whether a root list, in both of its forms, is exactly what an index holds."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from heliostat.fakeindex import Index, render
from heliostat.fakeindex.project import Project, normal_form
from support.equality_removed import Removed

_ANCHOR = re.compile(r'<a href="([^"]*)">([^<]*)</a>')


class ExpectedRoot:
    """The root list of the projects ``names``, of which those that are ``owed`` may be there or not, as they are."""

    def __init__(self, index: Index, names: list[str], owed: Collection[str], removed: Removed) -> None:
        self._index, self._names, self._owed, self._removed = index, names, owed, removed

    def _project(self, name: str) -> Project:
        return self._removed[name] if self._removed.gone(name) else self._index[name]

    def json_differences(self, body: bytes) -> Iterator[str]:
        """What is wrong with ``index.v1_json``."""
        root = json.loads(body)
        entries = [(entry["name"], entry.get("_last-serial")) for entry in root["projects"]]
        normal = [normal_form(display) for display, _ in entries]
        if len(set(normal)) != len(normal):
            yield "lists a project twice"
        if normal != sorted(normal):
            yield "is not in the order of the names"
        wanted = {self._project(name).display: self._project(name).last_serial for name in self._names}
        shown = dict(entries)
        for display in sorted(shown.keys() | wanted.keys()):
            if normal_form(display) in self._owed:
                continue
            if display not in shown:
                yield f"does not list {display}"
            elif display not in wanted:
                yield f"lists {display}"
            elif shown[display] != wanted[display]:
                yield f"{display}: serial {shown[display]!r}, not {wanted[display]!r}"
        meta = root["meta"]
        least = 0 if self._owed else max(wanted.values(), default=0)
        if (
            meta.get("api-version") != render.API_VERSION
            or not least <= meta.get("_last-serial", -1) <= self._index.serial
        ):
            yield f"meta is {meta}, where the serial is from {least} to {self._index.serial}"

    def html_differences(self, body: bytes) -> Iterator[str]:
        """What is wrong with ``index.html``."""
        anchors = _ANCHOR.findall(body.decode())
        shown = set(anchors)
        wanted = {(f"{name}/", render.html_escape(self._project(name).display)) for name in self._names}
        if len(anchors) != len(shown):
            yield "lists a project twice"
        for href, text in sorted(shown ^ wanted):
            if href.removesuffix("/") not in self._owed:
                yield f"{'lists' if (href, text) in shown else 'does not list'} {text} as {href}"
