"""Whose tree it is, where its parts lie, and what of the old tool's own is of no use any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from heliostat.errors import ConfigError
from heliostat.mirror.adopt.eye import Eye
from heliostat.store.disk import Operations

Tool = Literal["bandersnatch", "shadowmire", "pep381client"]
TOOLS: tuple[Tool, ...] = ("bandersnatch", "shadowmire", "pep381client")

#: What each tool keeps for itself, as paths below the mirror's directory.
_OWN: dict[Tool, tuple[str, ...]] = {
    "bandersnatch": ("todo", "generation", "status"),
    "shadowmire": (
        "local.db", "local.db-wal", "local.db-shm", "local.db-journal", "local.db.serial", "local.json", "remote.json",
        "remote_excluded.json", "plan.json",
    ),
    "pep381client": ("status", "todo", "web/serversig"),
}  # fmt: skip
#: What lies at the top of a tree whose web root is the top.
_PARTS = ("simple", "packages", "json", "pypi")
_TOP = (*_PARTS, "local-stats", "last-modified")
#: A temporary of tempfile's: eight random characters after the name; a sidecar's name is not one.
_TEMPORARY = re.compile(r"\.?(?P<name>.+)\.(?!metadata\Z)[a-z0-9_]{8}", re.DOTALL)


class Layout(msgspec.Struct, frozen=True):
    """A tree as it was found."""

    tool: Tool
    #: The web root is, or was, the mirror's directory itself, not ``web/`` in it.
    top: bool

    def leftovers(self, root: str) -> list[str]:
        """What the old tool kept for itself, and is there."""
        here = Eye(root)
        places = [*_OWN[self.tool], *(f"web/{path}" for path in _OWN[self.tool] if self.tool == "shadowmire")]
        return [path for path in places if here.lstat(path) is not None]

    def moves(self, root: str) -> list[str]:
        """What has to go below ``web/``."""
        here = Eye(root)
        return [name for name in _TOP if self.top and here.lstat(name) is not None and here.link(name) is None]


def recognise(directory: str, asked: Tool | None) -> Layout:
    """The layout of the tree in ``directory``, which must be of ``asked`` if that is said.

    Raises ConfigError when there is nothing to adopt, when it lies elsewhere than the configuration says, or where
    nothing could be renamed into it.
    """
    layout = _recognise(directory, asked)
    if problems := list(_misplaced(Eye(directory), layout)):
        raise ConfigError(problems)
    return layout


def _misplaced(here: Eye, layout: Layout) -> Iterator[str]:
    """Why pages and files could not be put in place: they are renamed there, from ``partial/`` in the directory."""
    device = os.stat(here.root).st_dev
    for name in _PARTS:
        web = f"web/{name}"
        path = name if layout.top and here.lstat(web) is None else web
        if here.lstat(path) is None:
            continue
        full = f"{here.root}/{path}"
        try:
            found = os.stat(here.full(path))
        except FileNotFoundError:
            yield f"{full} is a link that leads nowhere"
            continue
        except OSError as error:
            yield f"{full} cannot be looked at: {error.strerror}"
            continue
        if found.st_dev != device:
            yield f"{full} lies on another file system than {here.root}; heliostat needs one for all of a mirror"
        elif path == name and here.link(path) is not None:
            yield f"{full} is a symbolic link; put the directory itself in its place, then adopt it"


def _recognise(directory: str, asked: Tool | None) -> Layout:
    here = Eye(directory)
    below, above = _is_web_root(here, "web/"), _is_web_root(here, "")
    if asked is None:
        of_shadowmire = any(here.lstat(f"{web}{name}") for web in ("", "web/") for name in ("local.db", "local.json"))
        asked = "shadowmire" if of_shadowmire else "pep381client" if _is_pep381client(here) else "bandersnatch"
    if asked == "shadowmire" and (above or below):
        at_top = above or any(here.lstat(name) is not None for name in ("packages", "local.db", "local.json"))
        return Layout(asked, top=at_top)
    if below:
        return Layout(asked, top=False)
    if above:
        problem = (
            "simple/ or json/ lies at its top, so this is a web root; [mirror] directory is the folder above 'web' "
            "(a shadowmire tree has no such folder: --from shadowmire)"
        )
    else:
        problem = (
            "nothing to adopt; looked for simple/ and json/ in it (shadowmire) and in its web/ (bandersnatch, "
            "pep381client); [mirror] directory is to be the old mirror's"
        )
    raise ConfigError([f"{directory}: {problem}"])


def bring_below_web(disk: Operations, layout: Layout) -> None:
    """Rename the parts of a web root that is the top into ``web/``.

    A link stays where each one was, so that a web server that still serves the top serves the same.  Each move is one
    rename; a kill between any two steps leaves what the next call goes on with.
    """
    for name in layout.moves(disk.root):
        disk.make_directory("web")
        disk.replace(name, f"web/{name}")
    here = Eye(disk.root)
    for name in _TOP if layout.top else ():
        if here.lstat(f"web/{name}") is not None and here.lstat(name) is None:
            disk.symlink(f"web/{name}", name)
    disk.sync()


def is_temporary(entry: str, of: frozenset[str] | None = None) -> bool:
    """Whether a name is that of a temporary of an old tool: of one of the files ``of``, or of anything."""
    if entry.endswith(".tmp"):
        return of is None or entry[:-4] in of
    found = _TEMPORARY.fullmatch(entry)
    if found is None:
        return False
    return entry.startswith(".") if of is None else found["name"] in of or found["name"].lstrip(".") in of


def _is_web_root(top: Eye, prefix: str) -> bool:
    return any(
        top.lstat(f"{prefix}{name}") is not None
        and top.link(f"{prefix}{name}") is None
        and top.names(f"{prefix}{name}")
        for name in ("simple", "json")
    )


def _is_pep381client(top: Eye) -> bool:
    """Signatures of pages, or a status that is no number: its own is a pickled object."""
    if top.lstat("web/serversig") is not None:
        return True
    status = top.read("status")
    return status is not None and not status.strip().isdigit() and top.lstat("generation") is None
