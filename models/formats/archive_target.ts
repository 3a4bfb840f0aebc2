/** The folder an archive goes into: counts files and bytes as they come, never what headers claim. */
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";
import { entrySegments, refuse } from "./archive_name.ts";

export interface ArchiveLimits {
  /** Of all files together, unpacked. */
  readonly maxBytes: number;
  /** Files and folders. */
  readonly maxFiles: number;
}

export class ArchiveTarget {
  /** Paths of the files, "/" between segments, in the order they came. */
  readonly files: string[] = [];
  /** Lower case, because some file systems know no other; true = a file. */
  readonly #seen = new Map<string, boolean>();
  #bytes = 0;
  #entries = 0;

  constructor(readonly folder: string, readonly limits: ArchiveLimits) {}

  async addFolder(name: string): Promise<void> {
    this.#countEntry();
    const segments = entrySegments(name);
    this.#claimFolders(name, segments);
    if (segments.length > 0) await Deno.mkdir(join(this.folder, ...segments), { recursive: true });
  }

  /** Writes a new file; never follows or replaces anything. */
  async addFile(name: string, content: AsyncIterable<Uint8Array>, claimedBytes: number): Promise<void> {
    this.#countEntry();
    const segments = entrySegments(name);
    if (segments.length === 0) throw refuse(name, "the name is empty");
    if (claimedBytes > this.limits.maxBytes - this.#bytes) throw this.#tooLarge();
    this.#claimFolders(name, segments.slice(0, -1));
    const key = segments.join("/").toLowerCase();
    if (this.#seen.has(key)) throw refuse(name, "the name is duplicate");
    this.#seen.set(key, true);
    await Deno.mkdir(join(this.folder, ...segments.slice(0, -1)), { recursive: true });
    await this.#write(join(this.folder, ...segments), content);
    this.files.push(segments.join("/"));
  }

  async #write(path: string, content: AsyncIterable<Uint8Array>): Promise<void> {
    using file = await Deno.open(path, { write: true, createNew: true });
    for await (const chunk of content) {
      this.#bytes += chunk.length;
      if (this.#bytes > this.limits.maxBytes) throw this.#tooLarge();
      for (let written = 0; written < chunk.length;) written += await file.write(chunk.subarray(written));
    }
  }

  #claimFolders(name: string, segments: readonly string[]): void {
    segments.forEach((_, i) => {
      const key = segments.slice(0, i + 1).join("/").toLowerCase();
      if (this.#seen.get(key)) throw refuse(name, "a part of the path is a file of the archive");
      this.#seen.set(key, false);
    });
  }

  #countEntry(): void {
    if (++this.#entries <= this.limits.maxFiles) return;
    throw new OatmillError(
      "invalid_archive",
      `Cannot extract the archive: more than ${this.limits.maxFiles} files, the limit`,
    );
  }

  #tooLarge(): OatmillError {
    return new OatmillError(
      "invalid_archive",
      `Cannot extract the archive: its size unpacked is over the limit of ${this.limits.maxBytes} bytes`,
    );
  }
}
