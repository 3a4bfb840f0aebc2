/** Unpacks uploaded archives (.tar, .tar.gz, .zip) to disk, entry by entry; regular files and folders only. */
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
// @ts-types="@types/tar-stream"
import tar from "tar-stream";
import { OatmillError } from "../../errors.ts";
import { refuse } from "./archive_name.ts";
import { type ArchiveLimits, ArchiveTarget } from "./archive_target.ts";
import { extractZip } from "./archive_zip.ts";

export type { ArchiveLimits } from "./archive_target.ts";

/**
 * @param file the archive; its kind is told by its first bytes
 * @param into an empty or missing folder; emptied again when extraction fails
 * @returns paths of the files below `into`, "/" between segments
 * @throws {OatmillError} invalid_archive: broken, unsafe (paths that leave the folder, links, devices) or over the limits; storage_failed
 */
export async function extractArchive(file: string, into: string, limits: ArchiveLimits): Promise<string[]> {
  await Deno.mkdir(into, { recursive: true });
  for await (const entry of Deno.readDir(into)) {
    throw new RangeError(`The folder to extract into holds "${entry.name}"`);
  }
  const target = new ArchiveTarget(into, limits);
  try {
    const kind = await archiveKind(file);
    if (kind === "zip") await extractZip(file, target);
    else await extractTar(file, kind === "gzip", target);
    return target.files;
  } catch (cause) {
    await removeContents(into);
    if (cause instanceof OatmillError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    if (isDiskError(cause)) {
      throw new OatmillError("storage_failed", `Cannot write into "${into}": ${why.slice(0, 200)}`, null, {
        cause,
      });
    }
    throw new OatmillError(
      "invalid_archive",
      `Cannot extract the archive "${basename(file)}": ${why.slice(0, 200)}`,
      null,
      { cause },
    );
  }
}

async function archiveKind(path: string): Promise<"zip" | "gzip" | "tar"> {
  using file = await Deno.open(path, { read: true });
  const start = new Uint8Array(262);
  for (let filled = 0; filled < start.length;) {
    const n = await file.read(start.subarray(filled));
    if (n === null) break;
    filled += n;
  }
  const text = new TextDecoder("latin1").decode(start);
  if (text.startsWith("PK")) return "zip";
  if (start[0] === 0x1f && start[1] === 0x8b) return "gzip";
  if (text.slice(257) === "ustar") return "tar";
  throw new OatmillError(
    "invalid_archive",
    `Cannot extract "${basename(path)}": it is no .tar, .tar.gz or .zip archive`,
  );
}

async function extractTar(path: string, compressed: boolean, target: ArchiveTarget): Promise<void> {
  const extract = tar.extract();
  const source = createReadStream(path);
  const done = compressed ? pipeline(source, createGunzip(), extract) : pipeline(source, extract);
  // Whichever fails first is the cause; the other one only reports that the stream was closed.
  const results = await Promise.allSettled([writeEntries(extract, target), done]);
  const errors = results.filter((result) => result.status === "rejected").map(({ reason }) => reason);
  if (errors.length > 0) {
    throw errors.find((error) => error instanceof OatmillError) ??
      named(errors[errors.length - 1], compressed);
  }
}

async function writeEntries(extract: tar.Extract, target: ArchiveTarget): Promise<void> {
  try {
    for await (const entry of extract) {
      const { name, type, size = 0 } = entry.header;
      if (type === "directory") {
        await target.addFolder(name);
        entry.resume();
      } else if (type === "file" || type === "contiguous-file") await target.addFile(name, entry, size);
      else {throw refuse(
          name,
          `its type is ${type}, only files and folders are allowed (no link, device or fifo)`,
        );}
    }
  } catch (error) {
    extract.destroy(error instanceof Error ? error : undefined);
    throw error;
  }
}

/** Says which layer failed: zlib and tar-stream name neither. */
function named(cause: unknown, compressed: boolean): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new Error(`${compressed ? "gzip or tar" : "tar"} data is broken or truncated (${why})`, { cause });
}

function isDiskError(error: unknown): boolean {
  return error instanceof Deno.errors.PermissionDenied ||
    (error instanceof Error && "code" in error && error.code === "ENOSPC");
}

async function removeContents(folder: string): Promise<void> {
  for await (const entry of Deno.readDir(folder)) {
    await Deno.remove(`${folder}/${entry.name}`, { recursive: true });
  }
}
