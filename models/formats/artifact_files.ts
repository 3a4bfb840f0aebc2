/** Names of an artifact's files, and what its reader and its writer both do with files. */
import { createHash } from "node:crypto";

export const HEADER_FILE = "oatmill.json";
export const WEIGHTS_FILE = "model.safetensors";
/** Read size: large enough for full disk speed, small enough to stay in the L2/L3 cache for hashing. */
export const READ_BYTES = 1 << 20;

export async function hashFile(path: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  using file = await Deno.open(path);
  const buffer = new Uint8Array(READ_BYTES);
  for (let n = await file.read(buffer); n !== null; n = await file.read(buffer)) {
    hash.update(buffer.subarray(0, n));
    bytes += n;
  }
  return { bytes, sha256: hash.digest("hex") };
}

export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (e) {
    if (e instanceof Deno.errors.NotFound || e instanceof Deno.errors.NotADirectory) return false;
    throw e;
  }
}
