/** Which models there are and in which folder each lies. */
import type { DatabaseSync } from "node:sqlite";

export interface StoredModel {
  readonly id: string;
  /** Folder name below `models/` of the data folder. */
  readonly folder: string;
  readonly createdMs: number;
  /** What the caller wants to know without opening the artifact. */
  readonly info: unknown;
}

interface Row {
  id: string;
  folder: string;
  created_ms: number;
  info: string;
}
const fromRow = (r: Row): StoredModel => ({
  id: r.id,
  folder: r.folder,
  createdMs: r.created_ms,
  info: JSON.parse(r.info),
});

export class ModelStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }
  /** @returns false when the name is taken */
  add(model: StoredModel): boolean {
    const { changes } = this.#db.prepare(
      "INSERT OR IGNORE INTO models (id, folder, created_ms, info) VALUES (?, ?, ?, ?)",
    ).run(model.id, model.folder, model.createdMs, JSON.stringify(model.info));
    return changes === 1;
  }
  get(id: string): StoredModel | null {
    const row = this.#db.prepare("SELECT * FROM models WHERE id = ?").get(id);
    return row ? fromRow(row as unknown as Row) : null;
  }
  list(): StoredModel[] {
    const rows = this.#db.prepare("SELECT * FROM models ORDER BY created_ms, id").all();
    return (rows as unknown as Row[]).map(fromRow);
  }
  /** Notes a use; one that is older than the last is no news. */
  use(id: string, atMs: number): void {
    this.#db.prepare("UPDATE models SET used_ms = MAX(IFNULL(used_ms, 0), ?) WHERE id = ?").run(atMs, id);
  }
  /** @returns the id of the most recently used model, of the newest when none was used, null when there is none */
  lastUsed(): string | null {
    const row = this.#db.prepare("SELECT id FROM models ORDER BY used_ms DESC, created_ms DESC, id LIMIT 1")
      .get();
    return (row as { id: string } | undefined)?.id ?? null;
  }
  /** @returns the folder that is no model's any more */
  remove(id: string): string | null {
    const row = this.#db.prepare("DELETE FROM models WHERE id = ? RETURNING folder").get(id);
    return (row as { folder: string } | undefined)?.folder ?? null;
  }
}
