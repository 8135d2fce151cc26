"""The ledger's tables, and the version of them.

One row a project.  The todo list is the rows with a ``due_at``; it is never stored twice.  ``paths`` holds the few
paths of which the pages alone do not tell all: ``doomed`` (to be unlinked or withheld once no page claims them),
``withheld`` (kept out of reach), ``claimed`` (on the project's page, but the file's name does not begin with the
project's), ``extra`` (of a file that only the project's document lists: where its bytes really are), ``waiting`` (it
keeps the project blocked that other bytes lie there), ``retained`` (of a file that upstream removed and that is served
all the same), ``original`` (upstream's own document, where the published one differs).  What is ``withheld`` with the
fate ``keep`` was removed at the time ``at``, and is kept for a while; ``kept`` has what pages said of such files.
``incoming`` holds those that are placed, or about to be, and
not yet on a page: many for a short time, so the paths of a project make one row.
``totals`` is one row, kept by triggers, so that no poll counts what it did not change; ``root_changed`` names the
projects whose entries in the root pages are out of date.  ``changelog`` tells what was published, see
:mod:`heliostat.state.changelog`.
"""

from __future__ import annotations

VERSION = 5

_TABLES = """
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
  -- versions, and names of files, that were removed since the page was published, a JSON list; null when there is none
  withdrawn TEXT,
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

#: What version 2 added: what is incoming, in a table of its own.
_INCOMING = """
CREATE TABLE incoming (
  project TEXT NOT NULL,
  -- a project can announce several times
  number INTEGER NOT NULL,
  -- one to a line; no path holds a line break
  paths TEXT NOT NULL,
  PRIMARY KEY (project, number)
) WITHOUT ROWID;
INSERT INTO incoming
  SELECT project, 1, group_concat(path, char(10)) FROM paths WHERE kind = 'incoming' GROUP BY project;
DELETE FROM paths WHERE kind = 'incoming';
"""

#: Until then several claimants of one path were noted; now those whose names do not tell that they are.
_CLAIMED = """
DELETE FROM paths WHERE kind = 'shared' AND project = '*';
UPDATE paths SET kind = 'claimed' WHERE kind = 'shared';
"""

#: And what is remembered of removals, and of projects with which upstream is behind.
_REMEMBERED = """
ALTER TABLE projects ADD COLUMN withdrawn TEXT;
ALTER TABLE projects ADD COLUMN behind_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN behind_since REAL;
ALTER TABLE projects ADD COLUMN stuck_since REAL;
ALTER TABLE projects ADD COLUMN stuck_tries INTEGER NOT NULL DEFAULT 0;
CREATE INDEX projects_stuck ON projects (name) WHERE stuck_since IS NOT NULL;
"""

#: And figures and changes of the root pages that are had without reading every project.
_TOTALS = """
-- of the projects that are published
CREATE TABLE totals (projects INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals SELECT count(*), coalesce(sum(files), 0), coalesce(sum(bytes), 0) FROM projects WHERE published = 1;
CREATE TRIGGER totals_of_new AFTER INSERT ON projects WHEN new.published = 1 BEGIN
  UPDATE totals SET projects = projects + 1, files = files + new.files, bytes = bytes + new.bytes;
END;
CREATE TRIGGER totals_of_old AFTER DELETE ON projects WHEN old.published = 1 BEGIN
  UPDATE totals SET projects = projects - 1, files = files - old.files, bytes = bytes - old.bytes;
END;
CREATE TRIGGER totals_of_changed AFTER UPDATE OF published, files, bytes ON projects
WHEN (old.published = 1 OR new.published = 1)
  AND (old.published, old.files, old.bytes) <> (new.published, new.files, new.bytes) BEGIN
  UPDATE totals SET projects = projects + new.published - old.published,
    files = files + new.published * new.files - old.published * old.files,
    bytes = bytes + new.published * new.bytes - old.published * old.bytes;
END;

-- html = 1: the HTML page shows it too
CREATE TABLE root_changed (name TEXT PRIMARY KEY, html INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR REPLACE INTO meta VALUES ('root_json_dirty', 1), ('root_html_dirty', 1);
"""

#: What version 3 added: what was published, for those who follow this mirror.
_CHANGELOG = """
CREATE TABLE changelog (
  number INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  serial INTEGER,
  project TEXT NOT NULL,
  what TEXT NOT NULL,
  -- below web/, one to a line: +added, *changed, -removed
  paths TEXT NOT NULL
);
-- projects whose pages or files are being changed in place
CREATE TABLE changing (project TEXT PRIMARY KEY) WITHOUT ROWID;
"""

#: What version 4 added: what is denied, and what is kept of what was removed.
_REMOVALS = """
-- NAME, or NAME and a version; origin: configuration or operator
CREATE TABLE denied (
  project TEXT NOT NULL,
  version TEXT NOT NULL,
  origin TEXT NOT NULL,
  at REAL NOT NULL,
  reason TEXT NOT NULL,
  -- 1: nothing of it is kept, whatever the policy says
  purge INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project, version, origin)
) WITHOUT ROWID;
-- restored although upstream removed it: it stays; version is empty for a whole project
CREATE TABLE retained (
  project TEXT NOT NULL,
  version TEXT NOT NULL,
  at REAL NOT NULL,
  PRIMARY KEY (project, version)
) WITHOUT ROWID;
CREATE TABLE kept (
  project TEXT NOT NULL,
  path TEXT NOT NULL,
  version TEXT,
  -- the file as our page listed it, and as our document described it, in JSON
  listed TEXT NOT NULL,
  described TEXT,
  at REAL NOT NULL,
  PRIMARY KEY (project, path)
) WITHOUT ROWID;
CREATE INDEX kept_at ON kept (at);
-- of what is withheld with the fate keep
ALTER TABLE paths ADD COLUMN at REAL;
CREATE INDEX paths_at ON paths (at) WHERE at IS NOT NULL;
ALTER TABLE tombstones ADD COLUMN version TEXT;
-- removed, withheld, retained, restored or expired
ALTER TABLE tombstones ADD COLUMN what TEXT NOT NULL DEFAULT 'removed';
"""

#: What version 5 added: which document is published, see :func:`heliostat.store.incoming.document_digest`; null where
#: nobody knows.
_DOCUMENTS = """
ALTER TABLE projects ADD COLUMN document_digest BLOB;
"""

TABLES = _TABLES + _INCOMING + _TOTALS + _CHANGELOG + _REMOVALS + _DOCUMENTS

#: From each earlier version to the next.
MIGRATIONS = {1: _INCOMING + _CLAIMED + _REMEMBERED + _TOTALS, 2: _CHANGELOG, 3: _REMOVALS, 4: _DOCUMENTS}

#: A new ledger knows nothing, also after a kill right here: whoever opens it has to look whether there is a tree.
FIRST = "INSERT INTO meta VALUES ('rebuilding', 1);"

#: Where very many rows come in the order of their names, and so with random serials, this index is better made after.
DROP_OWED = "DROP INDEX projects_owed"
MAKE_OWED = "CREATE INDEX projects_owed ON projects (owed_serial) WHERE owed_serial IS NOT NULL"
