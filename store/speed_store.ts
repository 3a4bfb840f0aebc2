/** Speeds that were measured of a model's versions, each as JSON that means nothing here; they go with the version. */
import type { DatabaseSync } from "node:sqlite";

export interface StoredSpeed {
  readonly model: string;
  readonly version: string;
  readonly speed: unknown;
}

export class SpeedStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }
  list(): StoredSpeed[] {
    const rows = this.#db.prepare("SELECT * FROM model_speeds ORDER BY model, version").all();
    return (rows as unknown as { model: string; version: string; speed: string }[])
      .map((r) => ({ ...r, speed: JSON.parse(r.speed) }));
  }
  /** Of a version that is there; of one that went meanwhile nothing is kept. */
  put({ model, version, speed }: StoredSpeed): void {
    this.#db.prepare(
      `INSERT OR REPLACE INTO model_speeds (model, version, speed)
       SELECT model, version, ? FROM model_versions WHERE model = ? AND version = ?`,
    ).run(JSON.stringify(speed), model, version);
  }
}
