/**
 * Remembers that a file's SHA-256 was checked, so that it is not hashed at every start: as in git's index, a file whose
 * number, size and times are unchanged has unchanged content. (llama.cpp and Ollama hash what they download and nothing
 * when they load it; hashing 108 MB of weights takes 61 ms on one core with SHA instructions and 450 ms without, reading
 * them 16.) Whoever changes, replaces or copies the file changes its times or its number, and the next load hashes it.
 */
import { join } from "node:path";

/** Beside the file; holds its {@linkcode Stamp} as JSON. */
const STAMP_SUFFIX = ".verified";
/** A file changed within the same tick of the clock as it was checked keeps its times: only older ones are remembered. */
const SETTLED_MS = 2000;

interface Stamp {
  readonly sha256: string;
  readonly bytes: number;
  readonly inode: number | null;
  readonly modifiedMs: number | null;
  /** Of the inode: nobody can set it back. */
  readonly changedMs: number | null;
}

const stampOf = (info: Deno.FileInfo, sha256: string): Stamp => ({
  sha256,
  bytes: info.size,
  inode: info.ino,
  modifiedMs: info.mtime?.getTime() ?? null,
  changedMs: info.ctime?.getTime() ?? null,
});
const text = (stamp: Stamp): string => JSON.stringify(stamp) + "\n";

/** Is this the file that was found to have this hash? `info` is what `stat` says of it now. */
export async function isVerified(
  folder: string,
  name: string,
  { info, sha256 }: { readonly info: Deno.FileInfo; readonly sha256: string },
): Promise<boolean> {
  if (info.mtime === null) return false;
  const stored = await Deno.readTextFile(join(folder, name + STAMP_SUFFIX)).catch(() => null);
  return stored === text(stampOf(info, sha256));
}

/**
 * Remembers that the file has this hash.
 * @param options.info what `stat` said before it was hashed
 * @param options.askedMs when it said so: what is hashed later may have changed since, within the times
 * @param options.fresh the caller has just written it and nobody else knows its name: its times need not be old
 * @returns false when it is not remembered: the file is too new, or the folder cannot be written to
 */
export async function rememberVerified(
  folder: string,
  name: string,
  { info, sha256, askedMs = Date.now(), fresh = false }: {
    readonly info: Deno.FileInfo;
    readonly sha256: string;
    readonly askedMs?: number;
    readonly fresh?: boolean;
  },
): Promise<boolean> {
  const { mtime, ctime } = info;
  if (mtime === null) return false;
  const changed = Math.max(mtime.getTime(), ctime?.getTime() ?? 0);
  if (!fresh && askedMs - changed < SETTLED_MS) return false;
  return await Deno.writeTextFile(join(folder, name + STAMP_SUFFIX), text(stampOf(info, sha256)))
    .then(() => true, () => false);
}
