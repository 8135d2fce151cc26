"""TOML text becomes one frozen tree, or one error that lists every problem with its line.

Pure: nothing is read from disk, network or process environment here; what an environment may contribute is passed in.
"""

from __future__ import annotations

import contextlib
import os.path
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from heliostat.config.addresses import index_urls, is_public, site_url
from heliostat.config.environment import Environment, not_set
from heliostat.config.problems import Lines, Problem, shown, suggest, without_credentials
from heliostat.config.sections import (
    DEFAULT_FILE_HOSTS,
    DEFAULT_UPSTREAM,
    SECTIONS,
    SITES,
    Config,
    MirrorSite,
    keys,
)
from heliostat.config.values import Reader
from heliostat.config.values import text as text_of
from heliostat.errors import ConfigError, printable
from heliostat.names import normalise


def load_config(text: str, *, source: str, environ: Mapping[str, str] | None = None, secrets: bool = True) -> Config:
    """The configuration that ``text`` says.

    ``source`` names the file in messages; relative paths count from its folder.  ``environ`` is what ``${NAME}`` and
    ``~`` refer to.  Where no upstream is named it is the public index, with its file hosts.  Without ``secrets`` keys
    that may hold some may name variables that are not set; what stands in their place cannot be sent to anybody.
    Raises ConfigError with all problems, each "SOURCE:LINE: [section] key: what is wrong; what to do".
    """
    problems: list[tuple[int, str]] = []
    tables, lines = _parse(text, source), Lines(text)
    for name in tables.keys() - SECTIONS.keys() - {SITES}:
        place = f"[{shown(name)}]" if isinstance(tables[name], dict) else shown(name)
        problems.append((lines.of(name), f"{place}: unknown{_advice(name, (*SECTIONS, SITES))}"))
    unset: list[tuple[int, str]] | None = None if secrets else []
    values = {name: _section(name, tables.get(name, {}), environ or {}, lines, problems, unset) for name in SECTIONS}
    _relations(values, lines, problems)
    allow_http = bool(values["upstream"].get("allow_http"))
    sites = _sites(tables.get(SITES, {}), environ or {}, lines, problems, allow_http=allow_http)
    if problems:
        raise ConfigError([f"{source}:{line}: {problem}" for line, problem in sorted(problems)])
    for key in ("directory", "state"):
        if key in values["mirror"]:
            values["mirror"][key] = os.path.normpath(os.path.join(os.path.dirname(source), values["mirror"][key]))
    if "textfile" in values["service"]:
        values["service"]["textfile"] = os.path.join(os.path.dirname(source), values["service"]["textfile"])
    if "logs" in values["stats"]:
        folder = re.sub(r"([*?[])", r"[\1]", os.path.dirname(source))  # no pattern, whatever it is called
        values["stats"]["logs"] = tuple(os.path.join(folder, log) for log in values["stats"]["logs"])
    built: dict[str, Any] = {name: section(**values[name]) for name, section in SECTIONS.items()}
    missing = tuple(f"{source}:{line}: {problem}" for line, problem in sorted(unset or ()))
    return Config(source=source, mirrors=sites, unset=missing, **built)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{source}:1: nested too deeply; heliostat config init shows the form"]) from None
    except ValueError as error:  # TOMLDecodeError, and int() for a number of thousands of digits
        found = re.search(r"\(at line (\d+),", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        reason = printable(str(error).split(" (at ", maxsplit=1)[0])[1:-1]
        raise ConfigError([f"{source}:{line}: not valid TOML: {reason}; correct this line"]) from None


def _section(
    name: str,
    table: Any,
    environ: Mapping[str, str],
    lines: Lines,
    problems: list[tuple[int, str]],
    unset: list[tuple[int, str]] | None,
) -> dict[str, Any]:
    """The values of one section by field name; adds to ``problems``, and secrets that are not set to ``unset``."""
    if not isinstance(table, dict):
        problems.append((lines.of(name), f"{name}: is no section; write [{name}] on a line of its own"))
        return {}
    known, values = keys(name), {}
    for key, value in table.items():
        if key not in known:
            problems.append((lines.of(name, key), f"[{name}] {shown(key)}: unknown key{_advice(key, known)}"))
            continue
        metadata = known[key].metadata
        if unset is not None and "secret" in metadata and (missing := _unset_in(value, environ)):
            unset += [(lines.of(name, key), f"[{name}] {key}: {not_set(variable)}") for variable in missing]
            values[known[key].name] = _without(value, metadata["read"], environ)
            continue
        try:
            values[known[key].name] = metadata["read"](value, environ)
        except Problem as problem:
            problems += [(lines.of(name, key, item), f"[{name}] {key}: {what}") for what, item in problem.found]
    return values


def _unset_in(value: Any, environ: Mapping[str, str]) -> list[str]:
    """The variables in a text, or a list of them, that are not set."""
    found = Environment(environ)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            with contextlib.suppress(Problem):  # the reader will say so
                text_of(item, found)
    return list(found.missing)


def _without(value: Any, reader: Reader, environ: Mapping[str, str]) -> Any:
    """``value`` with what stands for its variables; where that does not fit, something that fits and says as much."""
    try:
        return reader(value, Environment(environ))
    except Problem:
        name = _unset_in(value, environ)[0]
        stands_in = f"https://{Environment({})[name]}.invalid/-"
        return (stands_in,) if isinstance(value, list) or reader is index_urls else stands_in


def _sites(
    table: Any, environ: Mapping[str, str], lines: Lines, problems: list[tuple[int, str]], *, allow_http: bool
) -> tuple[MirrorSite, ...]:
    """``[mirrors]``: a URL for each name; adds to ``problems``."""
    if not isinstance(table, dict):
        problems.append((lines.of(SITES), f'{SITES}: is no section; write [{SITES}], below it NAME = "URL"'))
        return ()
    found: list[MirrorSite] = []
    for name, value in table.items():
        try:
            url = site_url(value, environ, allow_http=allow_http)
            if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,98}[A-Za-z0-9])?", name):
                raise Problem("is no name for a mirror; use letters, digits, hyphens, up to 100 of them")
            if any(one.url == url for one in found):
                raise Problem("names a URL that another one has; remove one of them")
        except Problem as problem:
            problems += [(lines.of(SITES, name), f"[{SITES}] {shown(name)}: {what}") for what, _ in problem.found]
        else:
            found.append(MirrorSite(name, url))
    return tuple(found)


def _advice(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the section where it belongs, or the word that was probably meant."""
    home = next((section for section in SECTIONS if word in keys(section)), None)
    if home:
        return f"; it belongs into [{home}]"
    return suggest(word, known) or "; remove it (heliostat config init shows what there is)"


def _relations(values: dict[str, dict[str, Any]], lines: Lines, problems: list[tuple[int, str]]) -> None:
    """What no key can say alone; and the public index where no upstream is named."""
    mirror, upstream = values["mirror"], values["upstream"]
    bad = {problem.split(":")[0] for _, problem in problems}

    def complain(section: str, key: str, text: str, item: str | None = None) -> None:
        problems.append((lines.of(section, key, item), f"[{section}] {key}: {text}"))

    if "directory" not in mirror and "[mirror] directory" not in bad:
        complain("mirror", "directory", 'missing; say where the mirror goes, such as directory = "/srv/pypi"')
    if mirror.get("projects") and mirror.get("everything"):
        complain("mirror", "everything", "contradicts projects; keep one of the two")
    for link in upstream.get("url", ()) if not upstream.get("allow_http") else ():
        if link.startswith("http:"):
            shown_link = without_credentials(link)
            complain("upstream", "url", f"{shown_link} is not encrypted; use https, or set allow-http = true", link)
    for address in values["service"].get("listen", ()) if not values["service"].get("listen_public") else ():
        if is_public(address):
            text = f"{address} can be reached from other machines; use 127.0.0.1, or set listen-public = true"
            complain("service", "listen", text, address)
    seen: dict[str, str] = {}
    for policy in ("propagate", "withhold", "retain"):
        for name in values["removal"].get(policy, ()):
            if (other := seen.setdefault(normalise(name), policy)) != policy:
                complain("removal", policy, f"{name} is also in {other}; remove it from one of them", name)
    _ordered("mirror", "retry-first", "retry-most", mirror, complain)
    _ordered("push", "retry-first", "retry-most", values["push"], complain)
    _ordered("upstream", "retry-delay", "retry-delay-most", upstream, complain)
    if "[upstream] url" not in bad:
        upstream.setdefault("url", (DEFAULT_UPSTREAM,))
        if DEFAULT_UPSTREAM in upstream["url"] and "[upstream] file-hosts" not in bad:
            upstream.setdefault("file_hosts", DEFAULT_FILE_HOSTS)


def _ordered(
    section: str, low: str, high: str, values: dict[str, Any], complain: Callable[[str, str, str], None]
) -> None:
    known = keys(section)
    first, last = (values.get(known[key].name, known[key].default) for key in (low, high))
    if first > last:
        complain(section, low, f"is more than {high}; lower it, or raise {high}")
