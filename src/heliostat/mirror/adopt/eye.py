"""Looking at a tree that another program made: nothing here ever writes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection

from heliostat.errors import StoreError
from heliostat.mirror.verify.reading import kind_of
from heliostat.store.incoming import new_hash

#: The largest page or document that is read, in bytes.
_MOST = 512 << 20
_PIECE = 1 << 20
#: A FIFO must not block, nor a terminal become ours.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: A link in a circle, or one that is not to be followed; a socket.
_NO_FILE = (errno.ELOOP, errno.ENXIO)


class Stopping(Exception):
    """The run was asked to end."""


class Eye:
    """Reads below ``root`` by the paths that things will have; those in ``top`` still lie there, not in ``web/``."""

    def __init__(self, root: str, top: Collection[str] = ()) -> None:
        self.root, self._top = root, frozenset(top)

    def full(self, path: str) -> bytes:
        if self._top and path.startswith("web/") and path.split("/", 2)[1] in self._top:
            path = path[len("web/") :]
        return os.fsencode(self.root) + b"/" + path.encode("utf-8", "surrogateescape")

    def lstat(self, path: str) -> os.stat_result | None:
        """What lies at ``path`` itself.  Raises StoreError."""
        try:
            return os.lstat(self.full(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError("look at", path, error.strerror or str(error)) from error

    def linked(self, path: str) -> str | None:
        """The first directory above ``path`` that is a symbolic link, so that ``path`` leads to who knows where.

        Those of an operator's, ``web/`` and the directories in it, may be links.  Raises StoreError.
        """
        end = path.find("/", len("web/"))
        while (end := path.find("/", end + 1)) > 0:
            found = self.lstat(path[:end])
            if found is None:
                return None
            if stat.S_ISLNK(found.st_mode):
                return path[:end]
        return None

    def is_folder(self, path: str) -> bool:
        """Whether a directory is there, perhaps through a link."""
        return os.path.isdir(self.full(path))

    def is_file(self, path: str) -> bool:
        """Whether a plain file is there, itself."""
        found = self.lstat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def link(self, path: str) -> str | None:
        """What a symbolic link holds; None when there is none."""
        try:
            return os.readlink(self.full(path)).decode("utf-8", "surrogateescape")
        except OSError:
            return None

    def obstacle(self, path: str) -> str | None:
        """What lies there, in words, and is neither file nor directory, nor a link to one, or to nothing; else None."""
        found = self.lstat(path)
        if found is not None and stat.S_ISLNK(found.st_mode):
            try:
                found = os.stat(self.full(path))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError:
                return "a symbolic link that leads to nothing that can be opened"
        usual = found is None or stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        return None if found is None or usual else kind_of(found.st_mode)

    def names(self, path: str) -> list[str]:
        """The entries of a directory, unsorted; empty when it is not there.  Raises StoreError."""
        try:
            return [name.decode("utf-8", "surrogateescape") for name in os.listdir(self.full(path))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError("list", path, error.strerror or str(error)) from error

    def read(self, path: str) -> bytes | None:
        """A whole page or document, also through a link; None when it is not there, or no file of a sensible size."""
        handle = self._open(path)
        if handle is None:
            return None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST:
                return None
            with open(handle, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            raise StoreError("read", path, error.strerror or str(error)) from error
        finally:
            os.close(handle)

    def digests(self, path: str, algorithms: tuple[str, ...], stopped: Callable[[], bool]) -> dict[str, str]:
        """Hex digests of a plain file; empty when there is none.  Raises StoreError, Stopping."""
        handle = self._open(path, os.O_NOFOLLOW)
        if handle is None:
            return {}
        states = {name: new_hash(name) for name in algorithms}
        buffer = memoryview(bytearray(_PIECE))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return {}
            while count := os.readv(handle, [buffer]):
                if stopped():
                    raise Stopping
                for state in states.values():
                    state.update(buffer[:count])
        except OSError as error:
            raise StoreError("read", path, error.strerror or str(error)) from error
        finally:
            os.close(handle)
        return {name: state.hexdigest() for name, state in states.items()}

    def _open(self, path: str, more: int = 0) -> int | None:
        try:
            return os.open(self.full(path), _FLAGS | more)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise StoreError("read", path, error.strerror or str(error)) from error
