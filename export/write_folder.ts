/** What is exported appears whole or not at all. */
import { basename, dirname, join } from "node:path";
import { OatmillError } from "../errors.ts";

/**
 * Runs `write` with a new folder beside `out`, which then gets that name; after an error nothing is left.
 * @throws {OatmillError} conflict (`out` exists), storage_failed
 */
export async function writeFolder<T>(out: string, write: (folder: string) => Promise<T>): Promise<T> {
  return await writeWhole(out, async (path) => {
    await Deno.mkdir(path, { recursive: true });
    return await write(path);
  });
}

/** As {@linkcode writeFolder}, for a single file: `write` makes it. */
export async function writeWhole<T>(out: string, write: (path: string) => Promise<T>): Promise<T> {
  const temp = join(dirname(out), `.${basename(out)}.${crypto.randomUUID()}.tmp`);
  const taken = await Deno.lstat(out).then(() => true, () => false);
  if (taken) throw new OatmillError("conflict", `Cannot write "${out}": it already exists`);
  try {
    const result = await write(temp);
    await Deno.rename(temp, out);
    return result;
  } catch (error) {
    await Deno.remove(temp, { recursive: true }).catch(() => {});
    throw storageError(out, error);
  }
}

/** Errors of the file system say why (disk full, read-only); others are passed on. */
function storageError(out: string, error: unknown): unknown {
  const ofSystem = error instanceof Error && "code" in error && typeof error.code === "string";
  if (error instanceof OatmillError || !ofSystem) return error;
  return new OatmillError("storage_failed", `Cannot write "${out}": ${error.message}`, null, {
    cause: error,
  });
}
