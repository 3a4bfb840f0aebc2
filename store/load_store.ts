/** Loads that were run on this server, for those who compare them later: the last ones, each as JSON that means nothing here. */
import type { DatabaseSync } from "node:sqlite";

/** Loads that are kept: some 100 KB each. */
export const LOADS_KEPT = 20;

export interface StoredLoad {
  readonly id: string;
  readonly createdMs: number;
  readonly run: unknown;
}

export class LoadStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }
  /** Oldest first. */
  list(): StoredLoad[] {
    const rows = this.#db.prepare("SELECT * FROM loads ORDER BY created_ms, id").all();
    return (rows as unknown as { id: string; created_ms: number; run: string }[]).map((r) => ({
      id: r.id,
      createdMs: r.created_ms,
      run: JSON.parse(r.run),
    }));
  }
  /** Forgets the oldest beyond {@linkcode LOADS_KEPT}. */
  put({ id, createdMs, run }: StoredLoad): void {
    this.#db.prepare("INSERT OR REPLACE INTO loads (id, created_ms, run) VALUES (?, ?, ?)")
      .run(id, createdMs, JSON.stringify(run));
    this.#db.prepare(
      "DELETE FROM loads WHERE id NOT IN (SELECT id FROM loads ORDER BY created_ms DESC, id DESC LIMIT ?)",
    ).run(LOADS_KEPT);
  }
}
