"""The statistics' tables.  Days are counted from 1970-01-01, UTC.

``counts`` is what is kept: requests, downloads and bytes by day, file and installer.  ``clients`` and ``parts`` are of
open days only: who was there, and how much of a file each client fetched in pieces.  A client is a keyed hash of an
address; its key stands in ``days``, and both go when the day is closed.  ``logs`` is what was read of which log.
"""

from __future__ import annotations

VERSION = 1

TABLES = """
-- the key of fingerprints; the first day that is kept: earlier ones were forgotten, and are not begun anew
CREATE TABLE meta (secret BLOB NOT NULL, floor INTEGER NOT NULL DEFAULT 0);
INSERT INTO meta (secret) VALUES (randomblob(32));

CREATE TABLE logs (
  id INTEGER PRIMARY KEY,
  head BLOB NOT NULL,
  position INTEGER NOT NULL,
  -- the fingerprint of what is just before the position, and those of the marks before it
  tail BLOB NOT NULL,
  marks BLOB NOT NULL,
  path TEXT NOT NULL,
  -- the file as it was when its end was reached; size is null when it was not
  device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER,
  seen INTEGER NOT NULL
);
CREATE INDEX logs_by_head ON logs (head);
CREATE INDEX logs_by_inode ON logs (device, inode);

-- a project's pages and documents have a row without a file name
CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  version TEXT NOT NULL,
  name TEXT NOT NULL,
  digits TEXT NOT NULL,
  -- in bytes; null while it is not known
  size INTEGER,
  UNIQUE (project, name, digits, version)
);
CREATE TABLE agents (
  id INTEGER PRIMARY KEY,
  installer TEXT NOT NULL,
  version TEXT NOT NULL,
  python TEXT NOT NULL,
  UNIQUE (installer, version, python)
);

CREATE TABLE counts (
  day INTEGER NOT NULL,
  file INTEGER NOT NULL,
  agent INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  downloads INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (day, file, agent)
) WITHOUT ROWID;

-- all requests, also those that are no project's
CREATE TABLE answers (
  day INTEGER NOT NULL,
  kind TEXT NOT NULL,
  status INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (day, kind, status)
) WITHOUT ROWID;

CREATE TABLE days (
  day INTEGER PRIMARY KEY,
  -- of open days; null when the day is closed
  key BLOB,
  -- counted when the day was closed
  clients INTEGER NOT NULL DEFAULT 0,
  -- 1: its file in local-stats/ is to be written
  dirty INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE clients (
  day INTEGER NOT NULL,
  client BLOB NOT NULL,
  PRIMARY KEY (day, client)
) WITHOUT ROWID;
CREATE TABLE parts (
  day INTEGER NOT NULL,
  file INTEGER NOT NULL,
  agent INTEGER NOT NULL,
  client BLOB NOT NULL,
  bytes INTEGER NOT NULL,
  -- 0: new, 1: counted as a request, 2: as a download too
  state INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (day, file, agent, client)
) WITHOUT ROWID;
CREATE INDEX parts_open ON parts (state) WHERE state < 2;
"""
