/** Which LoRA adapters a model's name has, and the folder in which each lies. They go with the name. */
import type { DatabaseSync } from "node:sqlite";
import { durably } from "./database.ts";

export interface StoredAdapter {
  /** The model's name. */
  readonly model: string;
  readonly name: string;
  /** Folder name below `adapters/` of the data folder. */
  readonly folder: string;
  readonly createdMs: number;
  /** What the caller wants to know without opening the files. */
  readonly info: unknown;
}

interface Row {
  model: string;
  name: string;
  folder: string;
  created_ms: number;
  info: string;
}

export class AdapterStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** @returns false when the model is gone or has an adapter of that name */
  add({ model, name, folder, createdMs, info }: StoredAdapter): boolean {
    return durably(this.#db, () => {
      const { changes } = this.#db.prepare(
        `INSERT OR IGNORE INTO adapters (model, name, folder, created_ms, info)
         SELECT id, ?2, ?3, ?4, ?5 FROM models WHERE id = ?1`,
      ).run(model, name, folder, createdMs, JSON.stringify(info));
      return changes === 1;
    });
  }
  /** In the order in which they came. */
  list(model: string): StoredAdapter[] {
    return this.#rows("WHERE model = ? ORDER BY created_ms, name", model);
  }
  all(): StoredAdapter[] {
    return this.#rows("");
  }
  remove(model: string, name: string): void {
    durably(
      this.#db,
      () => this.#db.prepare("DELETE FROM adapters WHERE model = ? AND name = ?").run(model, name),
    );
  }

  #rows(where: string, ...values: string[]): StoredAdapter[] {
    const rows = this.#db.prepare(`SELECT * FROM adapters ${where}`).all(...values) as unknown as Row[];
    return rows.map(({ created_ms: createdMs, info, ...row }) => ({
      ...row,
      createdMs,
      info: JSON.parse(info),
    }));
  }
}
