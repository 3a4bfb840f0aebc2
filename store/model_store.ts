/**
 * Which models there are: names, the versions of each, and the folder in which each version lies. A name's current
 * version is the one it came to point at last.
 */
import type { DatabaseSync } from "node:sqlite";
import { ifWritable } from "./database.ts";

/** One version of a model. */
export interface StoredModel {
  /** The model's name. */
  readonly id: string;
  /** What it holds, as a hash; what that is of, the caller knows. */
  readonly version: string;
  /** Folder name below `models/` of the data folder. */
  readonly folder: string;
  readonly createdMs: number;
  /** What the caller wants to know without opening the artifact. */
  readonly info: unknown;
}

interface Row {
  model: string;
  version: string;
  folder: string;
  created_ms: number;
  info: string;
}
const fromRow = (r: Row): StoredModel => ({
  id: r.model,
  version: r.version,
  folder: r.folder,
  createdMs: r.created_ms,
  info: JSON.parse(r.info),
});

export class ModelStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** A new name points at it at once; a name that has others when {@linkcode point} says so. */
  add({ id, version, folder, createdMs, info }: StoredModel): void {
    this.#atOnce(() => {
      const { changes } = this.#db.prepare("INSERT OR IGNORE INTO models (id, created_ms) VALUES (?, ?)")
        .run(id, createdMs);
      this.#db.prepare(
        "INSERT INTO model_versions (model, version, folder, created_ms, info, turn) VALUES (?, ?, ?, ?, ?, ?)",
      ).run(id, version, folder, createdMs, JSON.stringify(info), changes);
    });
  }
  /** The current version; null when there is no such name. */
  get(id: string): StoredModel | null {
    const row = this.#db.prepare(
      "SELECT * FROM model_versions WHERE model = ? ORDER BY turn DESC, created_ms DESC, version LIMIT 1",
    ).get(id);
    return row ? fromRow(row as unknown as Row) : null;
  }
  /** The current one first, then in the order in which the name pointed at them last. */
  versions(id: string): StoredModel[] {
    const rows = this.#db.prepare(
      "SELECT * FROM model_versions WHERE model = ? ORDER BY turn DESC, created_ms DESC, version",
    ).all(id);
    return (rows as unknown as Row[]).map(fromRow);
  }
  /** The current version of each name, names in the order in which they came. */
  list(): StoredModel[] {
    const rows = this.#db.prepare(
      `SELECT v.* FROM models m JOIN model_versions v ON v.model = m.id
       WHERE v.turn = (SELECT MAX(turn) FROM model_versions WHERE model = m.id)
       ORDER BY m.created_ms, m.id`,
    ).all();
    return (rows as unknown as Row[]).map(fromRow);
  }
  /** Every version of every name. */
  all(): StoredModel[] {
    return (this.#db.prepare("SELECT * FROM model_versions").all() as unknown as Row[]).map(fromRow);
  }
  /** Makes a version the name's current one: one statement, so that nobody sees the name without. */
  point(id: string, version: string): void {
    this.#db.prepare(
      `UPDATE model_versions SET turn = (SELECT MAX(turn) + 1 FROM model_versions WHERE model = ?1)
       WHERE model = ?1 AND version = ?2`,
    ).run(id, version);
  }
  /** Notes a use; one that is older than the last is no news. */
  use(id: string, atMs: number): void {
    ifWritable(() =>
      this.#db.prepare("UPDATE models SET used_ms = MAX(IFNULL(used_ms, 0), ?) WHERE id = ?").run(atMs, id)
    );
  }
  /** @returns the name of the most recently used model, of the newest when none was used, null when there is none */
  lastUsed(): string | null {
    const row = this.#db.prepare("SELECT id FROM models ORDER BY used_ms DESC, created_ms DESC, id LIMIT 1")
      .get();
    return (row as { id: string } | undefined)?.id ?? null;
  }
  /** Takes versions away, and the name with the last of them. Their folders are no model's any more. */
  remove(id: string, versions: readonly string[]): void {
    this.#atOnce(() => {
      const one = this.#db.prepare("DELETE FROM model_versions WHERE model = ? AND version = ?");
      for (const version of versions) one.run(id, version);
      this.#db.prepare(
        "DELETE FROM models WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM model_versions WHERE model = ?1)",
      ).run(id);
    });
  }
  /** Says what a folder holds that came before models had versions. */
  identify(folder: string, version: string): void {
    this.#db.prepare("UPDATE model_versions SET version = ? WHERE folder = ?").run(version, folder);
  }

  #atOnce(change: () => void): void {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      change();
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }
}
