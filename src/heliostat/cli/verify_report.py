"""What a verify found, in words, as JSON, and in JUnit's XML; each written as it is read, whatever its length."""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import msgspec

from heliostat.cli import format as fmt
from heliostat.cli.options import Options
from heliostat.cli.output import say
from heliostat.errors import ConfigError
from heliostat.mirror.verify.findings import KINDS, SITE_KINDS, Finding, Kind, Marks

if TYPE_CHECKING:
    from heliostat.mirror.verify.result import Repaired, Result
    from heliostat.mirror.verify.run import Verification
    from heliostat.mirror.verify.site import SiteVerification


class Verified(Protocol):
    """What a report is about: a verify of a tree, or of a site."""

    @property
    def result(self) -> Result: ...
    def findings(self) -> Iterator[Finding]: ...


#: Findings that are listed in words; --json and --junit have all.
_LISTED = 1000


def report(options: Options, code: int, verification: Verification, repaired: Repaired | None) -> None:
    """Print the result; under --quiet nothing, unless something is wrong."""
    options.code = code
    if options.json:
        _json(code, verification, repaired)
    elif code or not options.quiet:
        _words(verification, repaired)


def _words(verification: Verified, repaired: Repaired | None) -> None:
    result = verification.result
    fixed = repaired.fixed if repaired is not None else Marks()
    if not result.interrupted:
        for number, one in enumerate(verification.findings()):
            if number == _LISTED:
                say(f"... and {fmt.number(result.findings - number)} more; --json and --junit list all")
                break
            mark = " [repaired]" if number in fixed else f"; {one.advice}"
            whose = f" ({fmt.plain(one.project)})" if one.project else ""
            say(f"{fmt.plain(one.path)}{whose}: {fmt.plain(one.problem)}{mark}")
    for line in _summary(result, repaired):
        say(line)


def _summary(result: Result, repaired: Repaired | None) -> list[str]:
    looked = (
        f"{fmt.counted(result.projects, 'project')}, {fmt.counted(result.files, 'file')}, "
        f"{fmt.number(result.hashed)} of them hashed, {fmt.size(result.bytes)} in {fmt.duration(result.seconds)}"
    )
    lines = []
    if result.interrupted:
        lines.append(f"interrupted after {looked}; the next verify goes on from there")
    elif result.findings:
        kinds = ", ".join(f"{fmt.number(result.kinds[kind])} {kind}" for kind in KINDS if kind in result.kinds)
        lines.append(f"{fmt.counted(result.findings, 'finding')} ({kinds}) in {looked}")
    else:
        everything = not (result.unreachable or result.unreadable or result.unknown)
        lines.append(f"{'all is right' if everything else 'nothing wrong was found'}: {looked}")
    if result.unknown:
        lines.append(f"no such project here: {', '.join(map(fmt.plain, result.unknown))}; look at the spelling")
    if repaired is not None:
        lines.append(
            f"repaired {fmt.number(len(repaired.fixed))}, left {fmt.number(repaired.left)}; "
            f"fetched {fmt.size(repaired.bytes_fetched)}, removed {fmt.counted(repaired.deleted, 'file')}"
        )
        lines += repaired.notes
        if repaired.held:
            lines.append(
                f"{fmt.counted(repaired.held, 'file')} to be removed are an implausible share and wait: look at them, "
                f"then --delete-unreferenced --allow-removals {repaired.held}"
            )
        lines += [reason for reason in (repaired.unreachable, repaired.store_error) if reason]
    if result.unreachable:
        lines.append(f"not every project could be asked about: {fmt.plain(result.unreachable)}")
    return lines


def _json(code: int, verification: Verification, repaired: Repaired | None) -> None:
    """One object, its findings one to a line."""
    for piece in _pieces(verification, repaired, {}):
        say(piece, end="")
    say(f', "exit_code": {int(code)}}}')


def _pieces(verification: Verified, repaired: Repaired | None, more: dict[str, Any]) -> Iterator[str]:
    """That object, but for its end."""
    result = verification.result
    fixed = repaired.fixed if repaired is not None else Marks()
    head: dict[str, Any] = more | msgspec.to_builtins(result)
    if repaired is not None:
        head["repair"] = repaired.figures()
    yield json.dumps(head)[:-1] + ', "findings": ['
    if not result.interrupted:
        for number, one in enumerate(verification.findings()):
            item = {
                "kind": one.kind, "path": one.path, "project": one.project or None, "problem": one.problem,
                "advice": one.advice,
            }  # fmt: skip
            if one.raw:
                item["path_hex"] = one.raw
            if repaired is not None:
                item["repaired"] = number in fixed  # type: ignore[assignment]
            yield ("," if number else "") + "\n" + json.dumps(item)
    yield "]"


def writable(path: str) -> None:
    """Raises ConfigError before anything is looked at, when the report could not be written."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or os.path.isdir(path):
        raise ConfigError([f"--junit {path}: cannot be written; name a file in a folder that is there"])


def write_junit(path: str, verification: Verification, repaired: Repaired | None) -> None:
    """A suite for the verify, a test for each kind of finding that there is none of, and one for each finding."""
    with _junit(path) as file:
        _suite(file, "heliostat verify", verification, repaired, KINDS)


@contextlib.contextmanager
def _junit(path: str) -> Iterator[TextIO]:
    """A report, for suites to be written into; it replaces an older one when it is whole.  Raises ConfigError."""
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n')
            yield file
            file.write("</testsuites>\n")
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError([f"--junit {path}: cannot be written: {error.strerror}"]) from error


def _suite(
    file: TextIO, name: str, verification: Verified, repaired: Repaired | None, kinds: Mapping[Kind, str]
) -> None:
    result = verification.result
    fixed = repaired.fixed if repaired is not None else Marks()
    right = [kind for kind in kinds if kind not in result.kinds]
    failures = result.findings - len(fixed) + len(result.unknown)
    errors = int(result.unreachable is not None)
    file.write(
        f'<testsuite name={_attribute(name)} tests="{len(right) + result.findings + len(result.unknown) + errors}" '
        f'failures="{failures}" '
        f'errors="{errors}" skipped="0" time="{result.seconds:.3f}">\n'
    )
    if result.unreachable is not None:
        file.write(
            f'<testcase classname="unreachable" name="every project was answered for">'
            f'<error type="unreachable" message={_attribute(result.unreachable)}/></testcase>\n'
        )
    file.writelines(
        f'<testcase classname="unknown" name={_attribute(name)}>'
        f'<failure type="unknown" message={_attribute(f"{name}: no such project here")}/></testcase>\n'
        for name in result.unknown
    )
    file.writelines(f'<testcase classname="{kind}" name={_attribute(kinds[kind])}/>\n' for kind in right)
    cases = enumerate(verification.findings())
    file.writelines(_testcase(one, failed=number not in fixed) for number, one in cases)
    file.write("</testsuite>\n")


class SiteReports:
    """The reports of several sites, each printed when its site is done; they make one JSON object, and one file."""

    def __init__(self, options: Options, junit: TextIO | None) -> None:
        self._options, self._junit = options, junit
        self._count = 0

    def add(self, code: int, verification: SiteVerification) -> None:
        """The report of the next site, whose own exit code would be ``code``."""
        result = verification.result
        if self._options.json:
            pieces = _pieces(verification, None, {"site": verification.site})
            say(",\n" if self._count else '{"sites": [', end="")
            for piece in pieces:
                say(piece, end="")
            say("}", end="")
        elif code or not self._options.quiet:
            say(f"site {fmt.plain(verification.site)}")
            _words(verification, None)
            if result.unreadable:
                many = fmt.counted(result.unreadable, "project was", "projects were")
                say(f"{many} not compared: what is right cannot be read here; heliostat verify tells why")
        if self._junit is not None and not result.interrupted:
            _suite(self._junit, f"heliostat verify {verification.site}", verification, None, SITE_KINDS)
        self._count += 1

    def end(self, code: int) -> None:
        """All sites are done; ``code`` is the command's exit code."""
        self._options.code = code
        if self._options.json:
            start = "" if self._count else '{"sites": ['
            say(f'{start}], "exit_code": {int(code)}}}')


@contextlib.contextmanager
def site_reports(options: Options, junit: str | None) -> Iterator[SiteReports]:
    """For the sites of one command.  Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        yield SiteReports(options, stack.enter_context(_junit(junit)) if junit is not None else None)


def _testcase(one: Finding, *, failed: bool) -> str:
    start = f'<testcase classname="{one.kind}" name={_attribute(one.path)}'
    if not failed:
        return f"{start}/>\n"
    message = _attribute(f"{one.project + ': ' if one.project else ''}{one.problem}; {one.advice}")
    return f'{start}><failure type="{one.kind}" message={message}/></testcase>\n'


def _attribute(text: str) -> str:
    """Characters that XML cannot hold are written as in Python."""
    good = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return f'"{html.escape(good)}"'
