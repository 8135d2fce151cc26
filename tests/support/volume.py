"""A directory tree in memory: what was on a disk, what may be on it after a power cut, and a real one made from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(eq=False)
class Node:
    """A file, or a symbolic link that holds ``link``; two paths with one node are one inode."""

    data: bytes = b""
    link: str | None = None
    mtime_ns: int | None = None


class Volume:
    """Nodes by relative path, and the directories there are."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.directories: set[str] = set()

    def copy(self) -> Self:
        """Another volume; what was one inode stays one."""
        made: dict[Node, Node] = {}
        volume = type(self)()
        volume.directories = set(self.directories)
        for path, node in self.nodes.items():
            if node not in made:
                made[node] = Node(node.data, node.link, node.mtime_ns)
            volume.nodes[path] = made[node]
        return volume

    @classmethod
    def of(cls, root: str | os.PathLike[str]) -> Self:
        """What lies below a real directory, which nobody changes meanwhile."""
        volume, inodes = cls(), dict[int, Node]()
        for folder, directories, files in os.walk(root):
            relative = os.path.relpath(folder, root)
            prefix = "" if relative == "." else f"{relative}/"
            volume.directories.update(prefix + name for name in directories)
            for name in files:
                path = os.path.join(folder, name)
                info = os.lstat(path)
                if info.st_ino not in inodes:
                    if os.path.islink(path):
                        node = Node(link=os.readlink(path), mtime_ns=info.st_mtime_ns)
                    else:
                        node = Node(Path(path).read_bytes(), mtime_ns=info.st_mtime_ns)
                    inodes[info.st_ino] = node
                volume.nodes[prefix + name] = inodes[info.st_ino]
        return volume

    def make(self, root: str | os.PathLike[str]) -> None:
        """A real directory, which must be empty or missing, with all of it."""
        made: dict[Node, str] = {}
        for directory in sorted(self.directories | {""}):
            os.makedirs(os.path.join(root, directory), exist_ok=True)
        for path, node in self.nodes.items():
            target = os.path.join(root, path)
            if node in made:
                os.link(made[node], target, follow_symlinks=False)
            elif node.link is not None:
                os.symlink(node.link, target)
            else:
                Path(target).write_bytes(node.data)
                if node.mtime_ns is not None:
                    os.utime(target, ns=(node.mtime_ns, node.mtime_ns))
            made[node] = target

    def below(self, directory: str) -> Iterator[str]:
        """Paths of files and links below a directory."""
        return (path for path in self.nodes if path.startswith(f"{directory}/"))

    def names(self, directory: str) -> set[str]:
        """Entries of a directory."""
        prefix = f"{directory}/"
        found = (*self.nodes, *self.directories)
        return {path[len(prefix) :].partition("/")[0] for path in found if path.startswith(prefix)}

    def data(self, path: str) -> bytes | None:
        """The bytes of a file; None for a link, and when there is nothing."""
        node = self.nodes.get(path)
        return node.data if node is not None and node.link is None else None

    def apply(self, verb: str, arguments: tuple[str, ...], data: bytes = b"") -> bool:
        """Do what a disk does; False (and nothing changed) when it would refuse."""
        return bool(getattr(self, f"_{verb}")(*arguments, data))

    # -- as in heliostat.store.disk ---------------------------------------------------------------------------

    def _write(self, path: str, data: bytes) -> bool:
        return self._put(path, Node(data))

    def _create(self, path: str, data: bytes) -> bool:
        return self._put(path, Node(data))

    def _append(self, path: str, data: bytes) -> bool:
        node = self.nodes.get(path)
        if node is None:
            return self._put(path, Node(data))
        node.data += data
        return True

    def _truncate(self, path: str, _: bytes) -> bool:
        node = self.nodes.get(path)
        if node is None:
            return False
        node.data = b""
        return True

    def _replace(self, source: str, target: str, _: bytes) -> bool:
        if source not in self.nodes or target in self.directories:
            return False
        self._make_parents(target)
        self.nodes[target] = self.nodes.pop(source)
        return True

    def _link(self, source: str, target: str, _: bytes) -> bool:
        return source in self.nodes and self._put(target, self.nodes[source])

    def _symlink(self, content: str, path: str, _: bytes) -> bool:
        return self._put(path, Node(link=content))

    def _unlink(self, path: str, _: bytes) -> bool:
        return self.nodes.pop(path, None) is not None

    def _make_directory(self, path: str, _: bytes) -> bool:
        self._make_parents(f"{path}/.")
        return True

    def _remove_directory(self, path: str, _: bytes) -> bool:
        if path not in self.directories or self.names(path):
            return False
        self.directories.discard(path)
        return True

    def _set_mtime(self, path: str, mtime_ns: str, _: bytes) -> bool:
        node = self.nodes.get(path)
        if node is None:
            return False
        node.mtime_ns = int(mtime_ns)
        return True

    def _put(self, path: str, node: Node) -> bool:
        if path in self.nodes or path in self.directories:
            return False
        self._make_parents(path)
        self.nodes[path] = node
        return True

    def _make_parents(self, path: str) -> None:
        while path := path.rpartition("/")[0]:
            self.directories.add(path)
