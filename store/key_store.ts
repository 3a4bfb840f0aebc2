/** API keys, of which only hashes are stored: whoever reads the database cannot call with what stands in it. */
import type { DatabaseSync } from "node:sqlite";
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { ifWritable } from "./database.ts";

export interface StoredKey {
  /** Public: a part of the key, by which it is found, listed and revoked. */
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly createdMs: number;
  /** YYYY-MM-DD (UTC) of its last use, null before the first. */
  readonly lastUsedDay: string | null;
}

interface Row {
  id: string;
  name: string;
  hash: Uint8Array;
  scopes: string;
  created_ms: number;
  last_used_day: string | null;
}
const fromRow = (r: Row): StoredKey => ({
  id: r.id,
  name: r.name,
  scopes: r.scopes.split(","),
  createdMs: r.created_ms,
  lastUsedDay: r.last_used_day,
});

const ID_BYTES = 6;
/** 256 bits: nobody guesses them, so that a fast hash without salt is enough. */
const SECRET_BYTES = 32;
const KEY = new RegExp(`^oatmill-([0-9a-f]{${2 * ID_BYTES}})-[\\w-]{43}$`);

/** SHA-256, 32 bytes: equally long for every text, as {@linkcode timingSafeEqual} needs it. */
export const hashKey = (key: string): Uint8Array => createHash("sha256").update(key).digest();

export class KeyStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }
  /** @returns the key itself: it can be shown now and never again */
  add(name: string, scopes: readonly string[], nowMs = Date.now()): StoredKey & { readonly key: string } {
    const id = randomBytes(ID_BYTES).toString("hex");
    const key = `oatmill-${id}-${randomBytes(SECRET_BYTES).toString("base64url")}`;
    this.#db.prepare("INSERT INTO api_keys (id, name, hash, scopes, created_ms) VALUES (?, ?, ?, ?, ?)")
      .run(id, name, hashKey(key), scopes.join(","), nowMs);
    return { id, name, scopes, createdMs: nowMs, lastUsedDay: null, key };
  }
  list(): StoredKey[] {
    const rows = this.#db.prepare("SELECT * FROM api_keys ORDER BY created_ms, id").all();
    return (rows as unknown as Row[]).map(fromRow);
  }
  any(): boolean {
    return this.#db.prepare("SELECT 1 FROM api_keys LIMIT 1").get() !== undefined;
  }
  /** @returns whose key it is, null for one that does not exist or is revoked. Notes the day. */
  find(key: string, nowMs = Date.now()): StoredKey | null {
    const id = KEY.exec(key)?.[1];
    if (id === undefined) return null;
    const row = this.#db.prepare("SELECT * FROM api_keys WHERE id = ?").get(id) as unknown as Row | undefined;
    if (row === undefined || !timingSafeEqual(row.hash, hashKey(key))) return null;
    const day = new Date(nowMs).toISOString().slice(0, 10);
    if (row.last_used_day !== day) { // one write a day, not one a request
      ifWritable(() => this.#db.prepare("UPDATE api_keys SET last_used_day = ? WHERE id = ?").run(day, id));
    }
    return fromRow({ ...row, last_used_day: day });
  }
  /** @returns false when there is no such key */
  revoke(id: string): boolean {
    return this.#db.prepare("DELETE FROM api_keys WHERE id = ?").run(id).changes === 1;
  }
}
