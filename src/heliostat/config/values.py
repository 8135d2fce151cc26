"""How the configuration's values are read: one reader for each kind of value.  Those of addresses are beside it.

A reader returns the value in the form its field has, or raises :class:`Problem` saying what is wrong and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heliostat.config.environment import Environment, not_set
from heliostat.config.problems import Problem, suggest
from heliostat.errors import Refused, printable
from heliostat.names import normalise

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_BINARY = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | _BINARY

#: Checks one value: returns it in the form the field has, or raises Problem.  The second argument is the environment.
Reader = Callable[[Any, Mapping[str, str]], Any]


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


def secret(value: Any, environ: Mapping[str, str]) -> str:
    """A shared secret; no message shows any of it."""
    full = text(value, environ)
    if len(full) < 16:
        raise Problem("is shorter than 16 characters; take what openssl rand -hex 32 prints")
    return full


def command(value: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """A program and its arguments, or an empty list."""
    if isinstance(value, str):
        raise Problem('is text, which no shell would read; write a list: ["program", "argument"]')
    words: tuple[str, ...] = list_of(text)(value, environ)
    if words and "/" in words[0] and not words[0].startswith("/"):
        raise Problem(f"{printable(words[0])} is a relative path; write the whole one")
    return words
