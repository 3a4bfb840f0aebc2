/**
 * A finished unit of work as a file: written under another name, synced and renamed, so that it is there whole or not at
 * all. Values come back bit by bit (V8's own serialisation: typed arrays, NaN, -0, Maps), behind the SHA-256 of their
 * bytes.
 */
import { createHash } from "node:crypto";
import { deserialize, serialize } from "node:v8";
import { Buffer } from "node:buffer";

const HASH_BYTES = 32;

const sha256 = (bytes: Uint8Array): Uint8Array => createHash("sha256").update(bytes).digest();

/** Replaces the file at once; whoever reads it meanwhile has the old one. */
export async function writeUnit(path: string, value: unknown): Promise<void> {
  const bytes = serialize(value), temporary = `${path}.tmp`;
  {
    using file = await Deno.open(temporary, { write: true, create: true, truncate: true, mode: 0o600 });
    for (const part of [sha256(bytes), bytes]) {
      for (let done = 0; done < part.length;) done += await file.write(part.subarray(done));
    }
    await file.syncData();
  }
  await Deno.rename(temporary, path);
}

/** What was written; null when there is no such file or it is damaged: the unit is then to be made again. */
export function readUnit(path: string): unknown {
  try {
    const bytes = Deno.readFileSync(path), body = bytes.subarray(HASH_BYTES);
    const isWhole = Buffer.compare(sha256(body), bytes.subarray(0, HASH_BYTES)) === 0;
    return isWhole ? deserialize(body) : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
