/** Files: rows over blobs. What it says is stored is on the disk; what a row names is never deleted. Main thread only. */
import type { DatabaseSync } from "node:sqlite";
import { OatmillError } from "../errors.ts";
import { type BlobContent, BlobStore, type ByteRange, checkContent, readContent } from "./blob_store.ts";
import { storing } from "./data_folder.ts";
import { durably, ifWritable } from "./database.ts";
import { type FileQuery, FileStore, type StoredFile } from "./file_store.ts";

/** A finished, fsynced file in `tmp/`. */
export interface NewContent extends BlobContent {
  readonly path: string;
}
export interface FileStorageOptions {
  /** Folder of the blobs. */
  readonly blobs: string;
  /** What is under way and needs the file, in words; null when it may go. */
  readonly neededBy: (id: string) => string | null;
  readonly onDamage: (file: StoredFile, damage: string) => void;
}

export class FileStorage {
  readonly rows: FileStore;
  readonly #blobs: BlobStore;
  readonly #database: DatabaseSync;
  readonly #o: FileStorageOptions;

  constructor(database: DatabaseSync, options: FileStorageOptions) {
    this.#database = database;
    this.#o = options;
    this.rows = new FileStore(database);
    this.#blobs = new BlobStore(options.blobs, (sha256) => this.rows.refersTo(sha256));
  }
  /** Deletes content that no file has. At start only. @returns its hashes */
  sweep(): Promise<string[]> {
    return this.#blobs.sweep();
  }

  /**
   * @param also what belongs to the same transaction
   * @throws {OatmillError} storage_failed; then nothing is stored
   */
  async add(
    content: NewContent,
    about: Pick<StoredFile, "filename" | "purpose">,
    also: (file: StoredFile) => void = () => {},
  ): Promise<StoredFile> {
    const { path, bytes, sha256 } = content;
    using _pin = await this.#blobs.adopt(path, sha256);
    return durably(this.#database, () => {
      const id = `file-${crypto.randomUUID().replaceAll("-", "")}`;
      const file = this.rows.add({ id, createdMs: Date.now(), ...about, bytes, sha256 });
      also(file);
      return file;
    });
  }
  /** @throws {OatmillError} not_found */
  get(id: string): StoredFile {
    const file = this.rows.get(id);
    if (file) return file;
    throw new OatmillError("not_found", `File ${JSON.stringify(id.slice(0, 100))} does not exist`, "id");
  }
  /** @throws {OatmillError} not_found when there is no file to come after */
  list(query: FileQuery): StoredFile[] {
    if (query.after !== undefined) this.get(query.after);
    return this.rows.list(query);
  }
  /** @throws {OatmillError} not_found, conflict while it is needed, storage_failed */
  remove(id: string): void {
    const { sha256 } = this.get(id);
    const needed = this.#o.neededBy(id);
    if (needed !== null) {
      throw new OatmillError("conflict", `Cannot delete file "${id}": ${needed} needs it`, "id");
    }
    durably(this.#database, () => this.rows.remove(id));
    this.#blobs.collect(sha256);
  }

  /**
   * A read of all bytes ends with an error where they are damaged. Who has begun gets all of a file that is deleted
   * meanwhile.
   * @throws {OatmillError} damaged_file
   */
  async *read(id: string, range?: ByteRange): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const file = this.get(id);
    using _pin = this.#blobs.pin(file.sha256);
    await this.#recheck(file);
    try {
      yield* readContent(this.#blobs.path(file.sha256), file, range);
    } catch (error) {
      throw this.#note(file, error);
    }
  }
  /**
   * Gives the file a second name without copying it, after a look at every byte: what follows may take an hour.
   * @throws {OatmillError} not_found, damaged_file, storage_failed
   */
  async link(id: string, target: string): Promise<StoredFile> {
    const file = this.get(id), path = this.#blobs.path(file.sha256);
    using _pin = this.#blobs.pin(file.sha256); // the look takes a second per gigabyte, and deletions do not wait for it
    try {
      await checkContent(path, file);
    } catch (error) {
      throw this.#note(file, error);
    }
    if (file.damage !== null) this.rows.mark(file.sha256, null);
    await storing(
      `link file "${id}"`,
      () =>
        Deno.link(path, target).catch((error) => {
          // A copy would write into what is there, which can be another file's content under a second name.
          if (error instanceof Deno.errors.AlreadyExists) throw error;
          return Deno.copyFile(path, target); // file systems without links: exFAT, some network ones
        }),
    );
    return file;
  }

  /** What was damaged may have been put right on the disk. */
  async #recheck(file: StoredFile): Promise<void> {
    if (file.damage === null) return;
    try {
      await checkContent(this.#blobs.path(file.sha256), file);
    } catch (error) {
      throw this.#note(file, error);
    }
    this.rows.mark(file.sha256, null);
  }
  #note(file: StoredFile, error: unknown): unknown {
    if (!(error instanceof OatmillError) || error.code !== "damaged_file") return error;
    ifWritable(() => this.rows.mark(file.sha256, error.message)); // else the next read finds it again
    this.#o.onDamage(file, error.message);
    return new OatmillError("damaged_file", `Cannot read file "${file.id}": ${error.message}`, "id", {
      cause: error,
    });
  }
}
