"""Mirrors in tests: a configuration whose waits are tiny, one pass of the real engine, and what lies on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from heliostat.config import Config, MirrorConfig, RemovalConfig, UpstreamConfig
from heliostat.fakeindex import FakeIndex, Index, Options
from heliostat.mirror.report import Counters, Deletion, Summary
from heliostat.mirror.run import Mirror
from heliostat.store.disk import Operations

_MIRROR = {field.name for field in dataclasses.fields(MirrorConfig)}
_UPSTREAM = {field.name for field in dataclasses.fields(UpstreamConfig)}
_REMOVAL = {field.name for field in dataclasses.fields(RemovalConfig)}


def config_for(directory: str | os.PathLike[str], upstream: FakeIndex | str, **overrides: Any) -> Config:
    """A mirror of ``upstream`` in ``directory``, which is made if need be.  Waits between tries are next to nothing.

    ``overrides`` are fields of the ``[mirror]``, ``[upstream]`` or ``[removal]`` section; without ``projects`` everything is
    mirrored.  Times that end something that hangs are long: what a test wants to end soon, it shortens itself.
    """
    unknown = overrides.keys() - _MIRROR - _UPSTREAM - _REMOVAL
    if unknown:
        raise TypeError(f"no such settings: {sorted(unknown)}")
    os.makedirs(directory, exist_ok=True)
    url = upstream if isinstance(upstream, str) else upstream.url
    hosts = () if isinstance(upstream, str) or not upstream.options.files_host else (upstream.files_host,)
    mirror: dict[str, Any] = {
        "directory": os.fspath(directory), "everything": not overrides.get("projects"), "min_free": 0.0,
        "root_interval": 0.0, "batch_seconds": 0.02, "retry_first": 0.0, "retry_most": 0.0,
        "confirm_seconds": 0.0, "shrink_seconds": 0.0, "stuck_seconds": 0.0,
    }  # fmt: skip
    source: dict[str, Any] = {
        "url": (url,), "allow_http": True, "file_hosts": hosts, "retries": 3, "retry_delay": 0.0,
        "retry_delay_most": 0.0, "connect_timeout": 20.0, "stall_timeout": 20.0, "metadata_timeout": 60.0,
    }  # fmt: skip
    mirror |= {key: value for key, value in overrides.items() if key in _MIRROR}
    source |= {key: value for key, value in overrides.items() if key in _UPSTREAM}
    removal = RemovalConfig(**{key: value for key, value in overrides.items() if key in _REMOVAL})
    return Config(mirror=MirrorConfig(**mirror), upstream=UpstreamConfig(**source), removal=removal, source="test")


def changed(config: Config, **overrides: Any) -> Config:
    """The same configuration with other values for some fields of either section."""
    unknown = overrides.keys() - _MIRROR - _UPSTREAM - _REMOVAL
    if unknown:
        raise TypeError(f"no such settings: {sorted(unknown)}")
    mirror = {key: value for key, value in overrides.items() if key in _MIRROR}
    source = {key: value for key, value in overrides.items() if key in _UPSTREAM}
    removal = {key: value for key, value in overrides.items() if key in _REMOVAL}
    return dataclasses.replace(
        config,
        mirror=dataclasses.replace(config.mirror, **mirror),
        upstream=dataclasses.replace(config.upstream, **source),
        removal=dataclasses.replace(config.removal, **removal),
    )


async def run_pass(
    config: Config,
    *names: str,
    full: bool = False,
    allow_removals: int = 0,
    patient: bool = False,
    counters: Counters | None = None,
    stop: asyncio.Event | None = None,
    disk: Operations | None = None,
) -> Summary:
    """Open the mirror, run one pass (of ``names``, or of all), close it.  Raises what the engine raises."""
    async with Mirror.open(config, disk=disk) as mirror:
        return await mirror.run(
            names=names,
            full=full,
            allow_removals=allow_removals,
            patient=patient,
            counters=counters or Counters(),
            stop=stop or asyncio.Event(),
        )


async def complete_pass(config: Config, *names: str, **options: Any) -> Summary:
    """:func:`run_pass`, and the summary must say that nothing is owed."""
    summary = await run_pass(config, *names, **options)
    assert summary.complete, summary
    return summary


async def rebuild(config: Config, *, salvage: bool = True) -> Summary:
    """``heliostat rebuild``."""
    async with Mirror.open(config, salvage=salvage) as mirror:
        return await mirror.rebuild(counters=Counters(), stop=asyncio.Event())


class Found(NamedTuple):
    """What lies at one path; ``link`` is what a symbolic link holds."""

    inode: int
    mtime_ns: int
    size: int
    link: str | None


def listing(directory: str | os.PathLike[str], *, without: Iterable[str] = ()) -> dict[str, Found]:
    """Every file and link below ``directory`` by its relative path, except those in ``without``."""
    root, left_out, found = Path(directory), set(without), {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if relative not in left_out:
                info = path.lstat()
                link = os.readlink(path) if path.is_symlink() else None
                found[relative] = Found(info.st_ino, info.st_mtime_ns, info.st_size, link)
    return found


def rewritten(before: dict[str, Found], after: dict[str, Found]) -> set[str]:
    """Paths that are new, gone, or not the same file with the same time any more."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def owed_names(summary: Summary) -> Sequence[str]:
    """The projects that a summary lists as owed."""
    return [one.project for one in summary.owed]


class Followed:
    """An index on loopback and the mirror that follows it."""

    def __init__(self, index: Index, server: FakeIndex, config: Config) -> None:
        self.index, self.server, self.config = index, server, config

    @property
    def directory(self) -> Path:
        return Path(self.config.mirror.directory)

    @property
    def web(self) -> Path:
        return self.directory / "web"

    def configure(self, **overrides: Any) -> None:
        """From now on other settings."""
        self.config = changed(self.config, **overrides)

    async def sync(self, *names: str, **options: Any) -> Summary:
        """One pass, after which nothing may be owed."""
        return await complete_pass(self.config, *names, **options)

    async def attempt(self, *names: str, **options: Any) -> Summary:
        """One pass, whatever comes of it."""
        return await run_pass(self.config, *names, **options)

    async def delete(
        self, *entries: str, reason: str = "unwanted", purge: bool = False, disk: Operations | None = None
    ) -> Deletion:
        """``heliostat delete``."""
        async with Mirror.open(self.config, disk=disk) as mirror:
            return await mirror.delete(entries, reason=reason, purge=purge, counters=Counters(), stop=asyncio.Event())

    async def restore(self, *entries: str, disk: Operations | None = None) -> Deletion:
        """``heliostat restore``."""
        async with Mirror.open(self.config, disk=disk) as mirror:
            return await mirror.restore(entries, counters=Counters(), stop=asyncio.Event())

    def listing(self) -> dict[str, Found]:
        """All of the mirror but the lock, which every process signs."""
        return listing(self.directory, without=(".lock",))

    def page(self, name: str) -> dict[str, Any]:
        """Our JSON page of a project, decoded."""
        found: dict[str, Any] = json.loads((self.web / "simple" / name / "index.v1_json").read_bytes())
        return found

    def files(self, name: str) -> dict[str, Path]:
        """Where the files on our page of a project lie, by their names."""
        folder = self.web / "simple" / name
        return {
            file["filename"]: Path(os.path.normpath(folder / unquote(file["url"]))) for file in self.page(name)["files"]
        }

    def root(self) -> dict[str, dict[str, Any]]:
        """Our root list by the names as displayed."""
        root = json.loads((self.web / "simple" / "index.v1_json").read_bytes())
        return {entry["name"]: entry for entry in root["projects"]}


@asynccontextmanager
async def following(
    index: Index, directory: Path, options: Options | None = None, **overrides: Any
) -> AsyncIterator[Followed]:
    """``index`` served, and a mirror of it in ``directory`` that has not run yet."""
    async with FakeIndex(index, options=options) as server:
        yield Followed(index, server, config_for(directory, server, **overrides))
