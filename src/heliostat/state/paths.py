"""The few paths that pages do not tell, or whose fate is open: see :mod:`heliostat.state.schema` for the kinds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from heliostat.state.rows import Kind, PathRow


class Paths:
    """Rows of ``paths``; writes join the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, rows: Iterable[PathRow]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO paths (path, project, kind, fate, serial, version, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(row.path, row.project, row.kind, row.fate, row.serial, row.version, row.at) for row in rows],
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

    def kept_before(self, when: float, limit: int) -> list[PathRow]:
        """What is kept out of reach since before ``when`` (seconds since the epoch)."""
        found = self._connection.execute(
            "SELECT path, project, kind, fate, serial, version, at FROM paths WHERE at IS NOT NULL AND at < ?"
            " AND kind = 'withheld' LIMIT ?",
            (when, limit),
        )
        return [PathRow(*row) for row in found]

    def owners(self, path: str, file: str, guesses: Sequence[str]) -> set[str]:
        """All projects that may claim ``path``, which belongs to ``file``: as recorded, or known among ``guesses``."""
        marks = ", ".join("?" * len(guesses))
        found = self._connection.execute(
            "SELECT project FROM paths WHERE path IN (?, ?) AND kind IN ('claimed', 'extra')"
            f" UNION SELECT name FROM projects WHERE name IN ({marks})",
            (path, file, *guesses),
        )
        return {project for (project,) in found}

    def is_spoken_for(self, path: str) -> bool:
        """Whether there is a row of any kind for ``path``: what no page names may have an owner all the same."""
        (found,) = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM paths WHERE path = ?1)"
            " OR EXISTS (SELECT 1 FROM incoming"
            " WHERE instr(char(10) || paths || char(10), char(10) || ?1 || char(10)))",
            (path,),
        ).fetchone()
        return bool(found)

    def wake(self, free: Iterable[str], now: float) -> None:
        """Projects that are blocked since other bytes lay at these paths are due again."""
        for path in free:
            woken = self._select("path = ? AND kind = 'waiting'", (path,))
            self._connection.executemany(
                "UPDATE projects SET due_at = ?, why = 'retry' WHERE name = ? AND state = 'blocked'",
                [(now, row.project) for row in woken],
            )
            self.clear(woken)

    def wake_all(self, now: float) -> None:
        """The same for all that wait for a place: nothing may tell that it is free."""
        self._connection.execute(
            "DELETE FROM paths WHERE kind = 'waiting'"
            " AND NOT EXISTS (SELECT 1 FROM projects WHERE name = project AND state = 'blocked')"
        )
        self._connection.execute(
            "UPDATE projects SET due_at = ?, why = 'retry' WHERE state = 'blocked'"
            " AND name IN (SELECT project FROM paths WHERE kind = 'waiting')",
            (now,),
        )

    def forget_claims(self, *, without_project: bool) -> None:
        """A rebuild reads anew what pages claim; what only documents list stays as long as there is the project."""
        if without_project:
            self._connection.execute(
                "DELETE FROM paths WHERE kind = 'extra' AND project NOT IN (SELECT name FROM projects)"
            )
        else:
            self._connection.execute("DELETE FROM paths WHERE kind = 'claimed'")

    def _select(self, where: str, values: tuple[str, ...], limit: int = -1) -> list[PathRow]:
        found = self._connection.execute(
            f"SELECT path, project, kind, fate, serial, version, at FROM paths WHERE {where} ORDER BY path LIMIT ?",
            (*values, limit),
        )
        return [PathRow(*row) for row in found]
