/** Opens the SQLite database and brings its schema up to date. Main thread only: node:sqlite is synchronous. */
import { DatabaseSync } from "node:sqlite";

/** One step per schema version, never edited once released. */
const MIGRATIONS = [
  `CREATE TABLE models (
     id TEXT PRIMARY KEY,
     folder TEXT NOT NULL UNIQUE,
     created_ms INTEGER NOT NULL,
     info TEXT NOT NULL
   ) STRICT;
   CREATE TABLE jobs (
     id TEXT PRIMARY KEY,
     model TEXT NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
     created_ms INTEGER NOT NULL,
     started_ms INTEGER,
     finished_ms INTEGER,
     recipe TEXT NOT NULL,
     files TEXT NOT NULL,
     progress TEXT,
     error TEXT,
     result TEXT
   ) STRICT;
   CREATE TABLE job_events (
     seq INTEGER PRIMARY KEY AUTOINCREMENT,
     job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
     at_ms INTEGER NOT NULL,
     level TEXT NOT NULL,
     message TEXT NOT NULL,
     data TEXT
   ) STRICT;
   CREATE INDEX job_events_job ON job_events (job, seq);`,
  `ALTER TABLE models ADD COLUMN used_ms INTEGER;`,
  `CREATE TABLE api_keys (
     id TEXT PRIMARY KEY,
     name TEXT NOT NULL,
     hash BLOB NOT NULL,
     scopes TEXT NOT NULL,
     created_ms INTEGER NOT NULL,
     last_used_day TEXT
   ) STRICT;`,
  // Versions of models: a name points at the one with the highest turn. "" is a version nobody has looked at yet.
  `ALTER TABLE models RENAME TO models_without_versions;
   CREATE TABLE models (
     id TEXT PRIMARY KEY,
     created_ms INTEGER NOT NULL,
     used_ms INTEGER
   ) STRICT;
   CREATE TABLE model_versions (
     model TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
     version TEXT NOT NULL,
     folder TEXT NOT NULL UNIQUE,
     created_ms INTEGER NOT NULL,
     info TEXT NOT NULL,
     turn INTEGER NOT NULL,
     PRIMARY KEY (model, version)
   ) STRICT;
   INSERT INTO models (id, created_ms, used_ms) SELECT id, created_ms, used_ms FROM models_without_versions;
   INSERT INTO model_versions (model, version, folder, created_ms, info, turn)
     SELECT id, '', folder, created_ms, info, 1 FROM models_without_versions;
   DROP TABLE models_without_versions;`,
];

/** Commands write beside the server (`oatmill keys`), for less than a millisecond at a time. */
const BUSY_MS = 1000;

export function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_MS });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
  const { user_version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (user_version > MIGRATIONS.length) {
    database.close();
    throw new RangeError(
      `Database version ${user_version} is newer than this program's ${MIGRATIONS.length}`,
    );
  }
  for (let version = user_version; version < MIGRATIONS.length; version++) {
    database.exec(`BEGIN; ${MIGRATIONS[version]}; PRAGMA user_version = ${version + 1}; COMMIT`);
  }
  return database;
}
