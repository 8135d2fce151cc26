"""How the configuration's values are read: one reader for each kind of value, and where things stand in the text.

A reader returns the value in the form its field has, or raises :class:`Problem` saying what is wrong and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from heliostat.errors import Refused, printable
from heliostat.names import normalise

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_BINARY = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | _BINARY

#: Checks one value: returns it in the form the field has, or raises Problem.  The second argument is the environment.
Reader = Callable[[Any, Mapping[str, str]], Any]


#: What stands for a variable that is not set, where that is put up with.
_NOT_SET = "the-variable-{}-is-not-set"
_STANDS_IN = re.compile(r"the-variable-(\w+)-is-not-set", re.ASCII)


class Environment(dict[str, str]):
    """An environment in which every variable has a value: one that is not set is noted in ``missing``.

    What stands for it is never sent anywhere: see :func:`missing_in`.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.missing: dict[str, None] = {}

    def __missing__(self, name: str) -> str:
        self.missing[name] = None
        return _NOT_SET.format(name)


def missing_in(value: str) -> str | None:
    """The variable that is not set, when something in ``value`` stands for one."""
    found = _STANDS_IN.search(value)
    return found[1] if found else None


def not_set(name: str) -> str:
    """What is wrong, and what to do."""
    return f"the environment variable {name} is not set; set it, or write the value itself"


class Problem(Exception):
    """``found`` pairs "what is wrong; what to do" with the text of the list entry that it concerns, if any."""

    def __init__(self, *found: str | tuple[str, str | None]) -> None:
        self.found = [(item, None) if isinstance(item, str) else item for item in found]
        super().__init__("; ".join(text for text, _ in self.found))


def without_credentials(url: str) -> str:
    """``url`` fit for messages: everything before its last ``@`` goes, whether it is a valid URL or not."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else url.rpartition("@")[2]


def shown(word: str) -> str:
    """A key as it can stand in a message."""
    return word if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", word) else printable(word, 60)


def suggest(word: object, known: Iterable[str]) -> str:
    """``; did you mean X?`` for a known word close to ``word``, else nothing."""
    import difflib

    close = difflib.get_close_matches(str(word)[:60].lower().replace("_", "-"), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _wrong_type(value: object, wanted: str) -> Problem:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    return Problem(f"is {kinds.get(type(value), 'a date or time')}; write {wanted}")


def yes_no(value: Any, _environ: Mapping[str, str]) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "true or false (without quotes)")
    return value


def count(least: int, most: int) -> Reader:
    def read(value: Any, _environ: Mapping[str, str]) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, f"a whole number from {least} to {most}")
        if not least <= value <= most:
            raise Problem(f"is out of range; use a whole number from {least} to {most}")
        return value

    return read


def number(least: float, most: float, unit: str) -> Reader:
    def read(value: Any, _environ: Mapping[str, str]) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, f"a number of {unit} from {least:.12g} to {most:.12g}")
        if not least <= value <= most:  # refuses nan as well
            raise Problem(f"is out of range; use a number of {unit} from {least:.12g} to {most:.12g}")
        return float(value)

    return read


def size(least: int) -> Reader:
    """Bytes, from a whole number or from text with a unit."""

    def read(value: Any, _environ: Mapping[str, str]) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _wrong_type(value, 'a size such as "64MiB", or a number of bytes')
        amount = value if isinstance(value, int) else _size_of(value)
        if not least <= amount <= 1 << 60:
            raise Problem(f"is out of range; use at least {least} bytes")
        return amount

    return read


def _size_of(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", text, re.ASCII)
    if not found or found[2] not in _UNITS:
        raise Problem(f'{printable(text, 40)} is not a size; write it like "64MiB" (units: {", ".join(_UNITS)[2:]})')
    return int(found[1]) * _UNITS[found[2]] if found[1].isdigit() else int(float(found[1]) * _UNITS[found[2]])


def share(value: Any, _environ: Mapping[str, str]) -> float:
    """A fraction, from a percentage."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", value, re.ASCII) if isinstance(value, str) else None
    if not found or float(found[1]) >= 100:
        raise Problem('is not a percentage; write it like "5%", below 100%')
    return float(found[1]) / 100


def choice(*allowed: str) -> Reader:
    def read(value: Any, _environ: Mapping[str, str]) -> str:
        if value not in allowed:
            options = ", ".join(f'"{option}"' for option in allowed)
            raise Problem(f"is none of {options}{suggest(value, allowed) or '; write one of them'}")
        return str(value)

    return read


def text(value: Any, environ: Mapping[str, str]) -> str:
    """Text on one line; ``${NAME}`` stands for a variable of the environment (meant for secrets)."""
    if not isinstance(value, str):
        raise _wrong_type(value, "text in quotes")

    def insert(found: re.Match[str]) -> str:
        if found[1] not in environ and not isinstance(environ, Environment):
            raise Problem(not_set(found[1]))
        return environ[found[1]]

    full = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", insert, value)
    if not full.strip() or not full.isprintable():
        raise Problem("is empty or holds a control character; write plain text, or leave the key out")
    return full


def path(value: Any, environ: Mapping[str, str]) -> str:
    """A path; ``~`` at its start is the user's directory."""
    full = text(value, environ)
    if full == "~" or full.startswith("~/"):
        if not environ.get("HOME"):
            raise Problem("starts with ~, but HOME is not set; write the whole path")
        full = environ["HOME"].rstrip("/") + full[1:]
    return full


def list_of(one: Reader) -> Reader:
    def read(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise _wrong_type(value, 'a list such as ["one", "two"]')
        items: list[str] = []
        found: list[tuple[str, str | None]] = []
        for item in value:
            try:
                items.append(one(item, environ))
            except Problem as problem:
                found.extend((what, item if isinstance(item, str) else None) for what, _ in problem.found)
        if found:
            raise Problem(*found)
        return tuple(items)

    return read


def projects(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Project names as written, each valid, none twice in whatever spelling."""
    names: Sequence[str] = list_of(text)(value, environ)
    seen: dict[str, str] = {}
    found: list[tuple[str, str | None]] = []
    for name in names:
        try:
            normal = normalise(name)
        except Refused as refused:
            found.append((f"{refused}; write the name as the index shows it", name))
            continue
        if normal in seen:
            found.append((f"{name} and {seen[normal]} are the same project; remove one of them", name))
        seen.setdefault(normal, name)
    if found:
        raise Problem(*found)
    return tuple(names)


def entries(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """``NAME`` or ``NAME==VERSION``, as written."""

    def one(item: Any, environ: Mapping[str, str]) -> str:
        full = text(item, environ)
        name, separator, version = full.partition("==")
        try:
            normalise(name.strip())
        except Refused as refused:
            raise Problem(f'{refused}; write "name" or "name==1.0"') from None
        if separator and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}", version.strip()):
            raise Problem(f'{printable(full)} is no release; write it like "name==1.0"')
        return full

    found: tuple[str, ...] = list_of(one)(value, environ)
    return found


def url(value: Any, environ: Mapping[str, str]) -> str:
    """The base of an index or a proxy: http or https, no query, no fragment, no slash at the end.

    It may hold credentials, so messages show only what stands behind them.
    """
    full = text(value, environ)
    place = printable(without_credentials(full))
    try:
        parts = urlsplit(full)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote credentials
        usable = False
    if not usable or parts.scheme not in ("http", "https") or any(char in full for char in ' \\<>"^`{|}'):
        raise Problem(f"{place} is not an http or https URL; write it like https://index.example")
    if "?" in full or "#" in full:
        raise Problem(f"{place} has a query or a fragment; write the base address only")
    if "@" in parts.path:
        raise Problem(f"{place} has an @ in its path; write it as %40, and / in a password as %2F")
    return full.rstrip("/")


def index_url(value: Any, environ: Mapping[str, str]) -> str:
    full = url(value, environ)
    if full.endswith("/simple"):
        raise Problem(f"{printable(without_credentials(full))} is the Simple index itself; leave out /simple")
    return full


def index_urls(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One URL, or a list of URLs of the same index."""
    urls = tuple(list_of(index_url)(value if isinstance(value, list) else [value], environ))
    if not urls:
        raise Problem("is an empty list; name at least one URL")
    if len(set(urls)) != len(urls):
        raise Problem("names one URL twice; remove one of them")
    return urls


def secret(value: Any, environ: Mapping[str, str]) -> str:
    """A shared secret; no message shows any of it."""
    full = text(value, environ)
    if len(full) < 16:
        raise Problem("is shorter than 16 characters; take what openssl rand -hex 32 prints")
    return full


def ping_urls(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Addresses that pings go to, each once, each with a path."""

    def ping_url(value: Any, environ: Mapping[str, str]) -> str:
        full = url(value, environ)
        if not urlsplit(full).path:
            place = printable(without_credentials(full))
            raise Problem(f"{place} has no path; write where pings go, such as http://mirror.example:8080/ping")
        return full

    urls = tuple(list_of(ping_url)(value, environ))
    if len(set(urls)) != len(urls):
        raise Problem("names one address twice; remove one of them")
    return urls


def command(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """A program and its arguments, or an empty list."""
    if isinstance(value, str):
        raise Problem('is text, which no shell would read; write a list: ["program", "argument"]')
    words: tuple[str, ...] = list_of(text)(value, environ)
    if words and "/" in words[0] and not words[0].startswith("/"):
        raise Problem(f"{printable(words[0])} is a relative path; write the whole one")
    return words


#: Nothing in it needs quotes, wherever it is printed.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(?:/[A-Za-z0-9._~%+/-]*)?", re.ASCII)


def is_plain_url(url: str) -> bool:
    """Whether a URL may stand in a published list: http or https, no credentials, nothing that a shell would read."""
    return bool(_PLAIN_URL.fullmatch(url))


def is_this_machine(url: str) -> bool:
    """Whether a URL leads to a loopback address."""
    import ipaddress

    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def site_url(value: Any, environ: Mapping[str, str], *, allow_http: bool) -> str:
    """The base of a mirror that is published in a list; what is on this machine may do without encryption."""
    full = index_url(value, environ)
    place = printable(without_credentials(full))
    if not is_plain_url(full):
        raise Problem(f"{place} cannot be published; write it without credentials and special characters")
    if full.startswith("http:") and not (allow_http or is_this_machine(full)):
        raise Problem(f"{place} is not encrypted; use https, or set [upstream] allow-http = true")
    return full


def host(value: Any, environ: Mapping[str, str]) -> str:
    """``host`` or ``host:port`` in lower case."""
    full = text(value, environ).lower()
    found = re.fullmatch(r"([a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", full, re.ASCII)
    if not found or int(found[2] or 1) not in range(1, 65536):
        raise Problem(f"{printable(full)} is not a host; write host or host:port, without https://")
    return full


def addresses(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One address to listen on, or a list of them: ``IP:PORT``, or ``unix:`` and an absolute path."""
    found = tuple(list_of(_address)(value if isinstance(value, list) else [value], environ))
    if len(set(found)) != len(found):
        raise Problem("names one address twice; remove one of them")
    return found


def _address(value: Any, environ: Mapping[str, str]) -> str:
    full = text(value, environ)
    if full.startswith("unix:"):
        if not full.startswith("unix:/") or len(full.encode()) > 5 + 107 or full.endswith("/"):  # see unix(7)
            raise Problem(f"{printable(full)} is no socket; write unix: and an absolute path of at most 107 bytes")
        return full
    if host_and_port(full) is None:
        raise Problem(f"{printable(full)} is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock")
    return full


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of ``IP:PORT``, with an IPv6 address in brackets; None when it is none."""
    import ipaddress

    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", address, re.ASCII)
    if not found or int(found[3]) > 65535:
        return None
    try:
        return str(ipaddress.ip_address(found[1] or found[2])), int(found[3])
    except ValueError:
        return None


def is_public(address: str) -> bool:
    """Whether others than this machine can reach what listens there."""
    import ipaddress

    parts = host_and_port(address)
    return parts is not None and not ipaddress.ip_address(parts[0]).is_loopback


class Lines:
    """Where things stand in the text, found by looking at it again: tomllib keeps no positions."""

    _SECTION = re.compile(r"\s*\[\s*([^\[\]#]+?)\s*\]\s*(?:#.*)?\Z")
    _KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")

    def __init__(self, text: str) -> None:
        self._text = text.split("\n")
        self._at: dict[tuple[str, ...], int] = {}
        section: tuple[str, ...] = ()
        for number, line in enumerate(self._text, 1):
            if found := self._SECTION.match(line):
                section = self._words(found[1])
                self._at.setdefault(section, number)
            elif found := self._KEY.match(line):
                self._at.setdefault(section + self._words(found[1]), number)

    @staticmethod
    def _words(dotted: str) -> tuple[str, ...]:
        return tuple(part.strip().strip("\"'") for part in dotted.split("."))

    def of(self, section: str, key: str | None = None, item: str | None = None) -> int:
        """The line of ``key``, or of the last place of ``item`` in its list; else the nearest place known."""
        start = self._at.get((section,) if key is None else (section, key), self._at.get((section,), 1))
        if not item:
            return start
        end = min((at for at in self._at.values() if at > start), default=len(self._text) + 1)
        places = [
            at for at in range(start, end) if f'"{item}"' in self._text[at - 1] or f"'{item}'" in self._text[at - 1]
        ]
        return places[-1] if places else start
