/** The rows of files. Which blobs are needed, and how much they take, is read from them alone. */
import type { DatabaseSync } from "node:sqlite";
import type { BlobContent } from "./blob_store.ts";

export interface StoredFile extends BlobContent {
  readonly id: string;
  readonly createdMs: number;
  readonly filename: string;
  readonly purpose: string;
  /** What a read found wrong with the content; null while nothing is known. */
  readonly damage: string | null;
}
export interface FileQuery {
  readonly limit: number;
  /** The id of the last file of the former page. */
  readonly after?: string;
  readonly order: "asc" | "desc";
  readonly purpose?: string;
}

interface Row {
  id: string;
  created_ms: number;
  filename: string;
  purpose: string;
  bytes: number;
  sha256: string;
  damage: string | null;
}
const fromRow = ({ created_ms, ...row }: Row): StoredFile => ({ ...row, createdMs: created_ms });
const COLUMNS = "id, created_ms, filename, purpose, bytes, sha256, damage";

export class FileStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** Its content was just written: whatever was known of older copies is no longer so. */
  add(file: Omit<StoredFile, "damage">): StoredFile {
    const { id, createdMs, filename, purpose, bytes, sha256 } = file;
    this.#db.prepare(
      "INSERT INTO files (id, created_ms, filename, purpose, bytes, sha256) VALUES (?, ?, ?, ?, ?, ?)",
    ).run(id, createdMs, filename, purpose, bytes, sha256);
    this.mark(sha256, null);
    return { ...file, damage: null };
  }
  get(id: string): StoredFile | null {
    const row = this.#db.prepare(`SELECT ${COLUMNS} FROM files WHERE id = ?`).get(id);
    return row ? fromRow(row as unknown as Row) : null;
  }
  /** In the order in which they came, whatever the clock said. */
  list({ limit, after, order, purpose }: FileQuery): StoredFile[] {
    const [past, direction] = order === "asc" ? [">", "ASC"] : ["<", "DESC"];
    const rows = this.#db.prepare(
      `SELECT ${COLUMNS} FROM files
       WHERE (?1 IS NULL OR seq ${past} (SELECT seq FROM files WHERE id = ?1)) AND (?2 IS NULL OR purpose = ?2)
       ORDER BY seq ${direction} LIMIT ?3`,
    ).all(after ?? null, purpose ?? null, limit);
    return (rows as unknown as Row[]).map(fromRow);
  }
  remove(id: string): void {
    this.#db.prepare("DELETE FROM files WHERE id = ?").run(id);
  }
  /** Notes damage (or, with null, its end) at all files with this content. */
  mark(sha256: string, damage: string | null): void {
    this.#db.prepare("UPDATE files SET damage = ?2 WHERE sha256 = ?1 AND damage IS NOT ?2").run(
      sha256,
      damage,
    );
  }
  refersTo(sha256: string): boolean {
    return this.#db.prepare("SELECT 1 FROM files WHERE sha256 = ? LIMIT 1").get(sha256) !== undefined;
  }
  /** Of all content, each once. */
  totalBytes(): number {
    const row = this.#db.prepare(
      "SELECT IFNULL(SUM(bytes), 0) AS total FROM (SELECT DISTINCT sha256, bytes FROM files)",
    ).get();
    return (row as { total: number }).total;
  }
}
