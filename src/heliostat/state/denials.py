"""What is denied, what was restored against upstream's will, and what pages said of files that are out of reach."""

from __future__ import annotations

from collections.abc import Iterable

from heliostat.state.connection import Executes
from heliostat.state.rows import Denied, KeptFile


class Denials:
    """Rows of ``denied``, ``retained`` and ``kept``; writes join the caller's transaction."""

    def __init__(self, connection: Executes) -> None:
        self._connection = connection

    def deny(self, rows: Iterable[Denied]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO denied (project, version, origin, at, reason, purge) VALUES (?, ?, ?, ?, ?, ?)",
            [(row.project, row.version, row.origin, row.at, row.reason, row.purge) for row in rows],
        )

    def allow(self, rows: Iterable[Denied]) -> None:
        self._connection.executemany(
            "DELETE FROM denied WHERE project = ? AND version = ? AND origin = ?",
            [(row.project, row.version, row.origin) for row in rows],
        )

    def retain(self, project: str, version: str, at: float) -> None:
        """It stays although upstream removed it; ``version`` is empty for a whole project."""
        self._connection.execute("INSERT OR REPLACE INTO retained VALUES (?, ?, ?)", (project, version, at))

    def give_up(self, project: str, version: str) -> None:
        """It stays no more; with the project go its releases."""
        self._connection.execute(
            "DELETE FROM retained WHERE project = ? AND (version = ? OR ? = '')", (project, version, version)
        )

    def retained(self) -> list[tuple[str, str]]:
        """(project, version) of all that stays."""
        return self._connection.execute("SELECT project, version FROM retained").fetchall()

    def keep(self, files: Iterable[KeptFile], at: float) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO kept (project, path, version, listed, described, at) VALUES (?, ?, ?, ?, ?, ?)",
            [(one.project, one.path, one.version, one.listed, one.described, at) for one in files],
        )

    def kept(self, project: str) -> list[KeptFile]:
        found = self._connection.execute(
            "SELECT project, path, version, listed, described FROM kept WHERE project = ? ORDER BY path", (project,)
        )
        return [KeptFile(*row) for row in found]

    def forget_kept(self, project: str, paths: Iterable[str]) -> None:
        self._connection.executemany(
            "DELETE FROM kept WHERE project = ? AND path = ?", [(project, path) for path in paths]
        )

    def forget_kept_before(self, when: float) -> None:
        self._connection.execute("DELETE FROM kept WHERE at < ?", (when,))
