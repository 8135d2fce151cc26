"""The few paths whose fate is open: see :mod:`heliostat.state.schema` for the kinds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from heliostat.state.rows import Kind, PathRow


class Paths:
    """Rows of ``paths``; writes join the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, rows: Iterable[PathRow]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO paths (path, project, kind, fate, serial, version) VALUES (?, ?, ?, ?, ?, ?)",
            [(row.path, row.project, row.kind, row.fate, row.serial, row.version) for row in rows],
        )

    def clear(self, rows: Iterable[PathRow]) -> None:
        self._connection.executemany(
            "DELETE FROM paths WHERE path = ? AND project = ? AND kind = ?",
            [(row.path, row.project, row.kind) for row in rows],
        )

    def clear_project(self, project: str, kind: Kind) -> None:
        self._connection.execute("DELETE FROM paths WHERE project = ? AND kind = ?", (project, kind))

    def announce(self, project: str, paths: Iterable[str]) -> None:
        """These are about to be placed for ``project``."""
        self._connection.execute(
            "INSERT INTO incoming SELECT ?1, 1 + coalesce(max(number), 0), ?2 FROM incoming WHERE project = ?1",
            (project, "\n".join(paths)),
        )

    def incoming(self, project: str) -> set[str]:
        """What was announced for it since its page was recorded last."""
        found = self._connection.execute("SELECT paths FROM incoming WHERE project = ?", (project,))
        return {path for (paths,) in found for path in paths.split("\n")}

    def arrived(self, projects: Iterable[str]) -> None:
        """What was announced for them is on their pages, or gone."""
        self._connection.executemany("DELETE FROM incoming WHERE project = ?", [(project,) for project in projects])

    def of_project(self, project: str, kind: Kind) -> list[PathRow]:
        return self._select("project = ? AND kind = ?", (project, kind))

    def all_of_project(self, project: str) -> list[PathRow]:
        return self._select("project = ?", (project,))

    def of_kind(self, kind: Kind, limit: int = 10_000) -> list[PathRow]:
        return self._select("kind = ?", (kind,), limit)

    def claimants(self, path: str) -> set[str]:
        """Projects other than the first that claim ``path`` too (and the first, once that was found out)."""
        return {row.project for row in self._select("path = ? AND kind = 'shared'", (path,))}

    # -- a rebuild finds out anew which paths are shared ---------------------------------------------------------

    def begin_claims(self) -> None:
        """Start collecting, in a temporary table, who claims what."""
        self._connection.execute("DROP TABLE IF EXISTS temp.claims")
        self._connection.execute("CREATE TEMP TABLE claims (path TEXT, project TEXT)")

    def claim(self, claims: Iterable[tuple[str, str]]) -> None:
        """Take (path, project) pairs."""
        self._connection.executemany("INSERT INTO temp.claims VALUES (?, ?)", claims)

    def share_claims(self) -> None:
        """Record exactly those paths as shared that more than one project claims; the collection ends."""
        self._connection.execute("DELETE FROM paths WHERE kind = 'shared'")
        self._connection.execute(
            "INSERT OR REPLACE INTO paths (path, project, kind) SELECT DISTINCT path, project, 'shared'"
            " FROM temp.claims WHERE path IN"
            " (SELECT path FROM temp.claims GROUP BY path HAVING count(DISTINCT project) > 1)"
        )
        self._connection.execute("DROP TABLE temp.claims")

    def _select(self, where: str, values: tuple[str, ...], limit: int = -1) -> list[PathRow]:
        found = self._connection.execute(
            f"SELECT path, project, kind, fate, serial, version FROM paths WHERE {where} ORDER BY path LIMIT ?",
            (*values, limit),
        )
        return [PathRow(*row) for row in found]
