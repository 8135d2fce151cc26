"""The ledger's tables, and the version of them.

One row a project.  The todo list is the rows with a ``due_at``; it is never stored twice.  ``paths`` holds the few
paths whose fate is open: ``doomed`` (to be unlinked or withheld once no page claims them), ``shared`` (claimed by more
than one project), ``withheld`` (kept out of reach).  ``incoming`` holds those that are placed, or about to be, and not
yet on a page: many for a short time, so the paths of a project make one row.
"""

from __future__ import annotations

VERSION = 2

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE projects (
  name TEXT PRIMARY KEY,
  display TEXT NOT NULL,
  wanted_serial INTEGER NOT NULL DEFAULT 0,
  accepted_serial INTEGER NOT NULL DEFAULT 0,
  -- the oldest serial announced and not yet satisfied; null when nothing with a serial is owed
  owed_serial INTEGER,
  -- what our page states; null with published = 1 when upstream's page has no serial
  page_serial INTEGER,
  published INTEGER NOT NULL DEFAULT 0,
  due_at REAL,
  why TEXT,
  state TEXT NOT NULL DEFAULT 'pending',
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  files INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  policy TEXT,
  -- the last event's meaning where it matters: removed
  hint TEXT,
  hint_serial INTEGER,
  -- missing from a complete root list of this serial
  absent_serial INTEGER,
  -- when, and in which pass, the page first answered 404 without a second sign
  missing_at REAL,
  missing_pass INTEGER,
  page_etag TEXT,
  document_etag TEXT,
  checked_at REAL,
  -- 1: asked for by name, outside the configured scope
  named INTEGER NOT NULL DEFAULT 0,
  -- 1: our page says that it is in quarantine: served, but not in the root list
  hidden INTEGER NOT NULL DEFAULT 0,
  -- 1: the document lists files that the page does not
  extra INTEGER NOT NULL DEFAULT 0,
  -- versions in quarantine, a JSON list; null when there is none
  quarantined_releases TEXT,
  -- tries, of those counted by attempts, that found upstream behind what it announced, and when the first was
  behind_tries INTEGER NOT NULL DEFAULT 0,
  behind_since REAL,
  -- accepted although upstream stayed behind: since when, and how often that was found anew
  stuck_since REAL,
  stuck_tries INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX projects_due ON projects (due_at, name) WHERE due_at IS NOT NULL;
CREATE INDEX projects_owed ON projects (owed_serial) WHERE owed_serial IS NOT NULL;
CREATE INDEX projects_odd ON projects (state) WHERE state <> 'current';
CREATE INDEX projects_stuck ON projects (name) WHERE stuck_since IS NOT NULL;
CREATE INDEX projects_checked ON projects (checked_at) WHERE published = 1;

CREATE TABLE paths (
  path TEXT NOT NULL,
  project TEXT NOT NULL,
  kind TEXT NOT NULL,
  fate TEXT,
  serial INTEGER,
  version TEXT,
  PRIMARY KEY (path, project, kind)
) WITHOUT ROWID;
CREATE INDEX paths_by_project ON paths (project, kind);
CREATE INDEX paths_by_kind ON paths (kind);

CREATE TABLE incoming (
  project TEXT NOT NULL,
  -- a project can announce several times
  number INTEGER NOT NULL,
  -- one to a line; no path holds a line break
  paths TEXT NOT NULL,
  PRIMARY KEY (project, number)
) WITHOUT ROWID;

CREATE TABLE tombstones (
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  project TEXT NOT NULL,
  path TEXT,
  serial INTEGER,
  reason TEXT NOT NULL,
  approved INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tombstones_at ON tombstones (at);
"""

#: A new ledger knows nothing, also after a kill right here: whoever opens it has to look whether there is a tree.
FIRST = "INSERT INTO meta VALUES ('rebuilding', 1);"
