/** Opens the SQLite database and brings its schema up to date. Main thread only: node:sqlite is synchronous. */
import { DatabaseSync } from "node:sqlite";
import { asStorageError } from "./data_folder.ts";

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
  `CREATE TABLE files (
     seq INTEGER PRIMARY KEY AUTOINCREMENT,
     id TEXT NOT NULL UNIQUE,
     created_ms INTEGER NOT NULL,
     filename TEXT NOT NULL,
     purpose TEXT NOT NULL,
     bytes INTEGER NOT NULL,
     sha256 TEXT NOT NULL,
     damage TEXT
   ) STRICT;
   CREATE INDEX files_sha256 ON files (sha256, bytes);
   CREATE TABLE uploads (
     id TEXT PRIMARY KEY,
     state TEXT NOT NULL CHECK (state IN ('pending', 'completed', 'cancelled', 'expired')),
     created_ms INTEGER NOT NULL,
     expires_ms INTEGER NOT NULL,
     filename TEXT NOT NULL,
     purpose TEXT NOT NULL,
     bytes INTEGER NOT NULL,
     file TEXT,
     part_ids TEXT
   ) STRICT;
   CREATE INDEX uploads_pending ON uploads (state) WHERE state = 'pending';
   CREATE TABLE upload_parts (
     seq INTEGER PRIMARY KEY AUTOINCREMENT,
     id TEXT NOT NULL UNIQUE,
     upload TEXT NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
     created_ms INTEGER NOT NULL,
     bytes INTEGER NOT NULL,
     sha256 TEXT NOT NULL
   ) STRICT;
   CREATE INDEX upload_parts_upload ON upload_parts (upload, seq);`,
  // What a restarted server needs to take jobs up again. Those without a task are of former versions.
  `ALTER TABLE jobs ADD COLUMN task TEXT;
   ALTER TABLE jobs ADD COLUMN queued_ms INTEGER;
   ALTER TABLE jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE jobs ADD COLUMN reached REAL NOT NULL DEFAULT 0;
   UPDATE jobs SET queued_ms = created_ms;`,
  `CREATE TABLE loads (
     id TEXT PRIMARY KEY,
     created_ms INTEGER NOT NULL,
     run TEXT NOT NULL
   ) STRICT;`,
  `CREATE TABLE adapters (
     model TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
     name TEXT NOT NULL,
     folder TEXT NOT NULL UNIQUE,
     created_ms INTEGER NOT NULL,
     info TEXT NOT NULL,
     PRIMARY KEY (model, name)
   ) STRICT;`,
  `CREATE TABLE model_speeds (
     model TEXT NOT NULL,
     version TEXT NOT NULL,
     speed TEXT NOT NULL,
     PRIMARY KEY (model, version),
     FOREIGN KEY (model, version) REFERENCES model_versions (model, version) ON DELETE CASCADE
   ) STRICT;`,
];

/** Commands write beside the server (`oatmill keys`), for less than a millisecond at a time. */
const BUSY_MS = 1000;

/**
 * Checks the whole file first (0.1 ms; 10 MB take 15): what is deleted at the start because no row names it must not
 * depend on rows that are broken.
 * @throws {OatmillError} storage_failed for a damaged file, of which nothing is changed
 */
export function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_MS });
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
    checkDatabase(database);
    migrate(database);
    return database;
  } catch (error) {
    database.close();
    throw asStorageError(
      error,
      `open the database "${path}" (put a copy of it back, or take another data folder to begin anew)`,
    );
  }
}
function checkDatabase(database: DatabaseSync): void {
  const { quick_check } = database.prepare("PRAGMA quick_check(1)").get() as { quick_check: string };
  if (quick_check === "ok") return;
  throw Object.assign(new Error(`database disk image is malformed: ${quick_check}`), {
    code: "ERR_SQLITE_ERROR",
  });
}
function migrate(database: DatabaseSync): void {
  const { user_version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (user_version > MIGRATIONS.length) {
    throw new RangeError(
      `Database version ${user_version} is newer than this program's ${MIGRATIONS.length}`,
    );
  }
  for (let version = user_version; version < MIGRATIONS.length; version++) {
    database.exec(`BEGIN; ${MIGRATIONS[version]}; PRAGMA user_version = ${version + 1}; COMMIT`);
  }
}

/**
 * Runs `work` as one transaction that is on the disk when this returns, as files are: an answer that says "stored" must
 * outlive a power cut too, and NORMAL leaves the last commits in the system's cache. What is committed is also moved out
 * of the log, which a damaged disk may give back shorter than it was. Both together: 0.4 ms on an idle disk, 8 on a busy one.
 * @throws {OatmillError} storage_failed
 */
export function durably<T>(database: DatabaseSync, work: () => T): T {
  database.exec("PRAGMA synchronous = FULL");
  try {
    database.exec("BEGIN IMMEDIATE");
    const result = work();
    database.exec("COMMIT");
    emptyLog(database);
    return result;
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw asStorageError(error, "write to the database");
  } finally {
    database.exec("PRAGMA synchronous = NORMAL");
  }
}
/** For notes on which nothing depends: a disk that does not take them must not fail what they are about. */
export function ifWritable(note: () => void): void {
  try {
    note();
  } catch (error) {
    if (asStorageError(error, "take a note") === error) throw error;
  }
}
function emptyLog(database: DatabaseSync): void {
  try {
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch {
    // A full disk: what is committed stands in the log.
  }
}
