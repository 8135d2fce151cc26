"""Driving a fake index by HTTP from another process: ``/_control/`` on its own port.

The server's half is :class:`Desk`, the other one :class:`Control`.  Every answer is JSON; a mistake is a 400 with its
reason.
"""

from __future__ import annotations

import http.client
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from heliostat.fakeindex.content import Content, Literal, Virtual
from heliostat.fakeindex.faults import Fault, Wire
from heliostat.fakeindex.http import Answer, Request
from heliostat.fakeindex.project import UploadedFile
from heliostat.fakeindex.wheels import sdist, wheel

if TYPE_CHECKING:
    from heliostat.fakeindex.server import FakeIndex

#: Methods of Index that may be called, with JSON arguments.
_OPERATIONS = frozenset(
    {
        "add_late_sidecar", "archive", "clear_quarantine", "clear_release_quarantine", "create", "hold_serial",
        "journal_row", "publish", "quarantine", "quarantine_release", "recase", "release_files", "remove_file",
        "remove_project", "remove_release", "rename", "set_provenance", "set_vulnerabilities", "skip_serials", "touch",
        "unarchive", "unyank", "yank",
    }
)  # fmt: skip


class FileSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A file to upload: ``content``, or ``size`` and ``seed`` of a virtual one; other fields as UploadedFile's."""

    filename: str
    content: bytes | None = None
    size: int | None = None
    seed: int = 0
    sidecar: bytes | None = None
    more: dict[str, Any] = {}


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    """An operation of the index."""

    operation: str
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}


class _Publish(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    version: str
    files: list[FileSpec] = []
    requires_python: str | None = None
    info: dict[str, Any] = {}
    #: Make and upload a real wheel, or a real sdist, too.
    wheel: bool = False
    sdist: bool = False
    requires: list[str] = []


class _NewFault(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    action: Wire
    times: int | None = None
    skip: int = 0
    method: str | None = None
    delay: float = 0.0


class _ChangeFault(msgspec.Struct, forbid_unknown_fields=True):
    fault: int
    #: ``release``, ``remove``, or ``grant``.
    do: str
    steps: int = 1


class Desk:
    """The server's half."""

    def __init__(self, server: FakeIndex) -> None:
        self._server = server
        self._faults: list[Fault] = []

    def answer(self, request: Request) -> Answer:
        name = request.path.removeprefix("/_control/")
        work = getattr(self, f"_do_{name}", None)
        if work is None:
            return _json(404, {"error": f"no such thing: {name}"})
        try:
            return _json(200, work(request.body))
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError) as exc:
            return _json(400, {"error": f"{type(exc).__name__}: {exc}"})

    def _do_state(self, body: bytes) -> dict[str, Any]:  # noqa: ARG002
        server = self._server
        return {
            "serial": server.index.serial,
            "projects": len(server.index),
            "requests": server.request_count,
            "bytes": server.total_bytes,
            "most_in_flight": dict(server.most_in_flight),
            "url": server.url,
            "files_url": server.files_url,
        }

    def _do_requests(self, body: bytes) -> list[Any]:  # noqa: ARG002
        return [[one.method, one.path, one.status, one.range, one.sent] for one in self._server.requests]

    def _do_reset_log(self, body: bytes) -> None:  # noqa: ARG002
        self._server.reset_log()

    def _do_options(self, body: bytes) -> dict[str, Any]:
        """Change options; gives all of them."""
        options = self._server.options
        names = {one.name for one in fields(options)} - {"files_host", "control", "log_length"}
        for name, value in msgspec.json.decode(body or b"{}", type=dict[str, Any]).items():
            if name not in names or type(value) is not type(getattr(options, name)):
                raise ValueError(f"{name} cannot be set to {value!r}")
            setattr(options, name, value)
        return {name: getattr(options, name) for name in sorted(names)}

    def _do_call(self, body: bytes) -> dict[str, int]:
        call = msgspec.json.decode(body, type=_Call)
        if call.operation not in _OPERATIONS:
            raise ValueError(f"no such operation: {call.operation}")
        if call.operation == "add_late_sidecar":
            call.arguments[3] = call.arguments[3].encode()
        getattr(self._server.index, call.operation)(*call.arguments, **call.keywords)
        return {"serial": self._server.index.serial}

    def _do_publish(self, body: bytes) -> dict[str, int]:
        asked = msgspec.json.decode(body, type=_Publish)
        files = [_uploaded(spec) for spec in asked.files]
        if asked.wheel:
            built = wheel(asked.name, asked.version, asked.requires, requires_python=asked.requires_python)
            files.append(UploadedFile(built.filename, built.data, sidecar=built.metadata))
        if asked.sdist:
            built = sdist(asked.name, asked.version, asked.requires, requires_python=asked.requires_python)
            files.append(UploadedFile(built.filename, built.data))
        self._server.index.publish(
            asked.name, asked.version, files, requires_python=asked.requires_python, info=asked.info
        )
        return {"serial": self._server.index.serial}

    def _do_fault(self, body: bytes) -> dict[str, int]:
        asked = msgspec.json.decode(body, type=_NewFault)
        fault = self._server.fault(
            asked.path, asked.action, times=asked.times, skip=asked.skip, method=asked.method, delay=asked.delay
        )
        self._faults.append(fault)
        return {"fault": len(self._faults) - 1}

    def _do_change_fault(self, body: bytes) -> None:
        asked = msgspec.json.decode(body, type=_ChangeFault)
        fault = self._faults[asked.fault]
        if asked.do == "grant":
            fault.grant(asked.steps)
        elif asked.do in ("release", "remove"):
            getattr(fault, asked.do)()
        else:
            raise ValueError(f"no such thing: {asked.do}")

    def _do_faults(self, body: bytes) -> list[int]:  # noqa: ARG002
        """How often each has fired."""
        return [fault.fired for fault in self._faults]

    def _do_clear_faults(self, body: bytes) -> None:  # noqa: ARG002
        self._server.clear_faults()


class Control:
    """The other half: drives the index at ``url`` (blocking; each call is one connection).  Raises ControlError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url).netloc

    def __call__(self, operation: str, *arguments: Any, **keywords: Any) -> int:
        """An operation of Index by its name, such as ``control("yank", "demo", "1.0")``; gives the serial after it."""
        body = {"operation": operation, "arguments": arguments, "keywords": keywords}
        return int(self._ask("call", body)["serial"])

    def publish(self, name: str, version: str, **more: Any) -> int:
        """Files by their specification, and ``wheel=True`` or ``sdist=True`` for real ones; gives the serial."""
        return int(self._ask("publish", {"name": name, "version": version, **more})["serial"])

    def fault(self, path: str, action: Wire, **more: Any) -> int:
        """Gives the fault's number."""
        return int(self._ask("fault", {"path": path, "action": action, **more})["fault"])

    def grant(self, fault: int, steps: int = 1) -> None:
        self._ask("change_fault", {"fault": fault, "do": "grant", "steps": steps})

    def release(self, fault: int) -> None:
        self._ask("change_fault", {"fault": fault, "do": "release"})

    def remove(self, fault: int) -> None:
        self._ask("change_fault", {"fault": fault, "do": "remove"})

    def fired(self) -> list[int]:
        """How often each fault has fired."""
        return list(self._ask("faults"))

    def clear_faults(self) -> None:
        self._ask("clear_faults")

    def state(self) -> dict[str, Any]:
        """``serial``, ``projects``, ``requests``, ``bytes``, ``most_in_flight``, ``url``, ``files_url``."""
        return dict(self._ask("state"))

    def options(self, **changes: Any) -> dict[str, Any]:
        """Change options of the running server; gives all of them."""
        return dict(self._ask("options", changes))

    def requests(self) -> list[list[Any]]:
        """[method, path, status, range, bytes sent] of each logged request."""
        return list(self._ask("requests"))

    def reset_log(self) -> None:
        self._ask("reset_log")

    def _ask(self, name: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request("POST", f"/_control/{name}", msgspec.json.encode(body) if body is not None else b"")
            response = connection.getresponse()
            answer = msgspec.json.decode(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ControlError(answer["error"])
        return answer


class ControlError(Exception):
    """The index did not do what it was asked."""


def _uploaded(spec: FileSpec) -> UploadedFile:
    content: Content
    if spec.content is not None:
        content = Literal(spec.content)
    elif spec.size is not None:
        content = Virtual(spec.size, spec.seed)
    else:
        raise ValueError(f"{spec.filename}: neither content nor size")
    return UploadedFile(spec.filename, content, sidecar=spec.sidecar, **spec.more)


def _json(status: int, value: Any) -> Answer:
    return Answer(status, msgspec.json.encode(value), (("Content-Type", "application/json"),))
