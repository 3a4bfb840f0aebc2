/** The rows of uploads in parts. States only move forward: pending -> completed | cancelled | expired. */
import type { DatabaseSync } from "node:sqlite";
import type { BlobContent } from "./blob_store.ts";
import type { Retention } from "./retention.ts";

export type UploadState = "pending" | "completed" | "cancelled" | "expired";

export interface StoredUpload {
  readonly id: string;
  readonly state: UploadState;
  readonly createdMs: number;
  /** Of one that is over: when it would have expired. */
  readonly expiresMs: number;
  readonly filename: string;
  readonly purpose: string;
  /** What its parts must add up to. */
  readonly bytes: number;
  /** Once completed: the file's id, and the parts it was made of. */
  readonly file: string | null;
  readonly partIds: readonly string[] | null;
}
export interface StoredPart extends BlobContent {
  readonly id: string;
  readonly upload: string;
  readonly createdMs: number;
}

type Row = Record<string, string | number | null>;
const uploadFromRow = (r: Row): StoredUpload => ({
  id: r.id as string,
  state: r.state as UploadState,
  createdMs: r.created_ms as number,
  expiresMs: r.expires_ms as number,
  filename: r.filename as string,
  purpose: r.purpose as string,
  bytes: r.bytes as number,
  file: r.file as string | null,
  partIds: r.part_ids === null ? null : JSON.parse(r.part_ids as string),
});
const partFromRow = (r: Row): StoredPart => ({
  id: r.id as string,
  upload: r.upload as string,
  createdMs: r.created_ms as number,
  bytes: r.bytes as number,
  sha256: r.sha256 as string,
});

export class UploadStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  add(upload: Omit<StoredUpload, "state" | "file" | "partIds">): void {
    const { id, createdMs, expiresMs, filename, purpose, bytes } = upload;
    this.#db.prepare(
      "INSERT INTO uploads (id, state, created_ms, expires_ms, filename, purpose, bytes) VALUES (?, 'pending', ?, ?, ?, ?, ?)",
    ).run(id, createdMs, expiresMs, filename, purpose, bytes);
  }
  get(id: string): StoredUpload | null {
    const row = this.#db.prepare("SELECT * FROM uploads WHERE id = ?").get(id);
    return row ? uploadFromRow(row as Row) : null;
  }
  pending(): StoredUpload[] {
    const rows = this.#db.prepare("SELECT * FROM uploads WHERE state = 'pending' ORDER BY rowid").all();
    return (rows as Row[]).map(uploadFromRow);
  }
  /** Removes uploads that have been over for too long, and all but the newest of those that are over. */
  forgetEnded({ most, ms }: Retention): void {
    this.#db.prepare(
      `DELETE FROM uploads WHERE state <> 'pending' AND (expires_ms < ?1 OR id NOT IN (
         SELECT id FROM uploads WHERE state <> 'pending' ORDER BY expires_ms DESC, rowid DESC LIMIT ?2))`,
    ).run(Date.now() - ms, most);
  }
  /** What pending uploads were promised. */
  pendingBytes(): number {
    const row = this.#db.prepare(
      "SELECT IFNULL(SUM(bytes), 0) AS total FROM uploads WHERE state = 'pending'",
    ).get();
    return (row as { total: number }).total;
  }
  /** Ends it: its parts' rows go. */
  finish(
    id: string,
    end: {
      readonly state: Exclude<UploadState, "pending">;
      readonly expiresMs: number;
      readonly file?: string;
      readonly partIds?: readonly string[];
    },
  ): void {
    this.#db.prepare("UPDATE uploads SET state = ?, expires_ms = ?, file = ?, part_ids = ? WHERE id = ?")
      .run(end.state, end.expiresMs, end.file ?? null, end.partIds ? JSON.stringify(end.partIds) : null, id);
    this.#db.prepare("DELETE FROM upload_parts WHERE upload = ?").run(id);
  }

  addPart({ id, upload, createdMs, bytes, sha256 }: StoredPart): void {
    this.#db.prepare(
      "INSERT INTO upload_parts (id, upload, created_ms, bytes, sha256) VALUES (?, ?, ?, ?, ?)",
    ).run(id, upload, createdMs, bytes, sha256);
  }
  /** In the order in which they came. */
  parts(upload: string): StoredPart[] {
    const rows = this.#db.prepare("SELECT * FROM upload_parts WHERE upload = ? ORDER BY seq").all(upload);
    return (rows as Row[]).map(partFromRow);
  }
  removePart(id: string): void {
    this.#db.prepare("DELETE FROM upload_parts WHERE id = ?").run(id);
  }
}
