/**
 * Uploads in parts, which come in any order and in parallel and outlive a restart: `uploads/<upload>/<part>`. A part is
 * stored whole or not at all; the same content twice is one part, so that a client whose answer was lost sends it again and
 * gets the same id. Main thread only.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { OatmillError } from "../errors.ts";
import { readContent } from "./blob_store.ts";
import { removeTree, storing, syncFolder } from "./data_folder.ts";
import { durably, ifWritable } from "./database.ts";
import type { FileStorage, NewContent } from "./file_storage.ts";
import type { StoredFile } from "./file_store.ts";
import { RETENTION, type Retention } from "./retention.ts";
import type { StorageQuota } from "./storage_quota.ts";
import { type StoredPart, type StoredUpload, type UploadState, UploadStore } from "./upload_store.ts";
import { storeStream } from "./upload.ts";

/** An upload that nobody adds to for so long expires, as OpenAI says. */
export const UPLOAD_IDLE_MS = 60 * 60_000;
const SWEEP_MS = 60_000;
/** Of one upload; with parts of 64 MiB 640 GB. */
export const MOST_PARTS = 10_000;

export interface UploadStorageOptions {
  /** Folder of the uploads. */
  readonly root: string;
  readonly files: FileStorage;
  readonly quota: StorageQuota;
  /** A new empty folder for unfinished work. */
  readonly temporary: () => Promise<string>;
  /** Milliseconds of a clock that nobody sets: one that jumps would end uploads under way. */
  readonly monotonicMs?: () => number;
  /** Default: {@linkcode MOST_PARTS}. */
  readonly mostParts?: number;
  /** Of uploads that are over; default: {@linkcode RETENTION}. */
  readonly retention?: Retention;
}
export interface Completion {
  /** In the order of the file. */
  readonly partIds: readonly string[];
  /** Hexadecimal, of the whole file. */
  readonly sha256?: string;
  readonly md5?: string;
}
export interface Upload extends StoredUpload {
  readonly fileObject: StoredFile | null;
}

export class UploadStorage implements Disposable {
  readonly rows: UploadStore;
  readonly #database: DatabaseSync;
  readonly #o: UploadStorageOptions;
  readonly #now: () => number;
  /** Of pending uploads: when something last came for them. The hour begins anew with the server. */
  readonly #activeMs = new Map<string, number>();
  /** Parts on their way, by upload. */
  readonly #held = new Map<string, number>();
  readonly #completing = new Map<string, { readonly key: string; readonly done: Promise<Upload> }>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(database: DatabaseSync, options: UploadStorageOptions) {
    this.#database = database;
    this.#o = options;
    this.#now = options.monotonicMs ?? (() => performance.now());
    this.rows = new UploadStore(database);
    for (const { id } of this.rows.pending()) this.#touch(id);
    this.#timer = setInterval(() => this.#tidy().catch(() => {}), SWEEP_MS); // a full disk: the next minute
    Deno.unrefTimer(this.#timer as unknown as number);
  }
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  /** Makes rows and folders agree after a crash. At start only. @returns the parts that the disk lost */
  async sweep(): Promise<string[]> {
    const pending = new Set(this.rows.pending().map(({ id }) => id));
    for await (const { name } of Deno.readDir(this.#o.root)) {
      if (!pending.has(name)) await removeTree(this.#path(name));
    }
    const lost: string[] = [];
    for (const id of pending) lost.push(...await this.#sweepParts(id));
    this.#forgetEnded();
    return lost;
  }
  async #tidy(): Promise<void> {
    await this.#expireIdle();
    this.#forgetEnded();
  }
  #forgetEnded(): void {
    ifWritable(() => this.rows.forgetEnded(this.#o.retention ?? RETENTION));
  }
  async #sweepParts(upload: string): Promise<string[]> {
    await Deno.mkdir(this.#path(upload), { recursive: true });
    const sizes = new Map<string, number>();
    for await (const { name } of Deno.readDir(this.#path(upload))) {
      sizes.set(name, (await Deno.stat(this.#path(upload, name))).size);
    }
    const parts = this.rows.parts(upload);
    const lost = parts.filter(({ id, bytes }) => sizes.get(id) !== bytes);
    for (const { id } of lost) this.rows.removePart(id);
    const kept = new Set(parts.filter((part) => !lost.includes(part)).map(({ id }) => id));
    for (const name of sizes.keys()) if (!kept.has(name)) await removeTree(this.#path(upload, name));
    return lost.map(({ id }) => id);
  }

  /** @throws {OatmillError} storage_quota_exceeded, storage_failed */
  async create(about: Pick<StoredUpload, "filename" | "purpose" | "bytes">): Promise<Upload> {
    await this.#expireIdle();
    await this.#o.quota.checkDisk(about.bytes);
    const id = `upload_${randomId()}`;
    await storing("make a folder for the upload", () => Deno.mkdir(this.#path(id)));
    try {
      await syncFolder(this.#o.root);
      const createdMs = Date.now();
      durably(this.#database, () => {
        this.#o.quota.check(about.bytes);
        this.rows.add({ id, createdMs, expiresMs: createdMs + UPLOAD_IDLE_MS, ...about });
      });
    } catch (error) {
      await removeTree(this.#path(id));
      throw error;
    }
    this.#touch(id);
    return this.get(id);
  }
  /** @throws {OatmillError} not_found */
  get(id: string): Upload {
    const upload = this.rows.get(id);
    if (!upload) {
      throw new OatmillError("not_found", `Upload ${JSON.stringify(id.slice(0, 100))} does not exist`, "id");
    }
    const expiresMs = upload.state === "pending" ? this.#expiresMs(id) : upload.expiresMs;
    return {
      ...upload,
      expiresMs,
      fileObject: upload.file === null ? null : this.#o.files.rows.get(upload.file),
    };
  }
  /** In the order in which they came; none once the upload is over. */
  parts(id: string): StoredPart[] {
    return this.rows.parts(this.get(id).id);
  }

  /** While a part is on its way, its upload does not expire. @throws {OatmillError} not_found, conflict */
  async hold(id: string): Promise<Disposable> {
    await this.#expireIdle();
    this.#needPending(id, "add a part to");
    this.#touch(id);
    this.#held.set(id, (this.#held.get(id) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = this.#held.get(id)! - 1;
        if (left > 0) this.#held.set(id, left);
        else this.#held.delete(id);
      },
    };
  }
  /** @throws {OatmillError} not_found, conflict, invalid_request when there are more bytes than announced, storage_failed */
  async addPart(upload: string, { path, bytes, sha256 }: NewContent): Promise<StoredPart> {
    const part = { id: `part_${randomId()}`, upload, createdMs: Date.now(), bytes, sha256 };
    const known = this.#samePart(part);
    if (known) return known;
    const target = this.#path(upload, part.id);
    try {
      await storing("store the part", async () => {
        await Deno.rename(path, target);
        await syncFolder(this.#path(upload));
      });
      return durably(this.#database, () => {
        // Others may have come meanwhile; from here to the end of the transaction nothing can.
        const known = this.#samePart(part);
        if (known) return known;
        this.rows.addPart(part);
        this.#touch(upload);
        return part;
      });
    } catch (error) {
      this.#needPending(upload, "add a part to"); // cancelled meanwhile: its folder is gone
      throw error;
    } finally {
      if (!this.rows.parts(upload).some(({ id }) => id === part.id)) await removeTree(target);
    }
  }
  /** The part that is there already with the same content; null when there is room for a new one. */
  #samePart({ upload, bytes, sha256 }: StoredPart): StoredPart | null {
    const promised = this.#needPending(upload, "add a part to").bytes;
    const parts = this.rows.parts(upload);
    const same = parts.find((part) => part.sha256 === sha256);
    if (same) return same;
    const { mostParts = MOST_PARTS } = this.#o;
    if (parts.length >= mostParts) {
      throw invalid(`The upload has ${mostParts} parts already: send fewer, larger ones`, "data");
    }
    const there = total(parts);
    if (there + bytes <= promised) return null;
    throw new OatmillError(
      "invalid_request",
      `Cannot add a part of ${bytes} bytes: the upload's parts have ${there} of the ${promised} that it announced`,
      "data",
    );
  }

  /**
   * Puts the parts together. The same completion again gives the same file.
   * @throws {OatmillError} not_found, conflict, invalid_request (parts, sizes, checksums), damaged_file, storage_failed
   */
  complete(id: string, completion: Completion): Promise<Upload> {
    const { state, partIds } = this.get(id);
    const key = JSON.stringify(completion.partIds);
    const running = this.#completing.get(id);
    if (running?.key === key) return running.done;
    if (state === "completed" && JSON.stringify(partIds) === key) return Promise.resolve(this.get(id));
    this.#needPending(id, "complete");
    const done = this.#complete(id, completion).finally(() => this.#completing.delete(id));
    this.#completing.set(id, { key, done });
    return done;
  }
  async #complete(id: string, completion: Completion): Promise<Upload> {
    const { bytes, filename, purpose, expiresMs } = this.get(id);
    const { partIds } = completion;
    const parts = this.#chosen(id, completion);
    if (total(parts) !== bytes) {
      throw invalid(`The parts have ${total(parts)} bytes, the upload announced ${bytes}`, "part_ids");
    }
    await this.#o.quota.checkDisk(bytes);
    const folder = await this.#o.temporary();
    try {
      const content = await this.#assemble(parts, join(folder, "content"), completion);
      await this.#o.files.add(content, { filename, purpose }, ({ id: file }) => {
        this.#needState(id, "complete");
        this.rows.finish(id, { state: "completed", expiresMs, file, partIds });
      });
    } finally {
      await removeTree(folder);
    }
    await this.#forget(id);
    return this.get(id);
  }
  #chosen(id: string, { partIds }: Completion): StoredPart[] {
    const known = new Map(this.rows.parts(id).map((part) => [part.id, part]));
    return partIds.map((partId, i) => {
      const part = known.get(partId);
      if (part) return part;
      throw invalid(`The upload has no part ${JSON.stringify(partId.slice(0, 100))}`, `part_ids.${i}`);
    });
  }
  async #assemble(
    parts: readonly StoredPart[],
    path: string,
    { md5, sha256 }: Completion,
  ): Promise<NewContent> {
    const check = md5 === undefined ? null : createHash("md5");
    const chunks = async function* (this: UploadStorage) {
      for (const part of parts) {
        for await (const chunk of this.#readPart(part)) {
          check?.update(chunk);
          yield chunk;
        }
      }
    };
    const content = await storeStream(chunks.call(this), path, { take() {} });
    checkSum("md5", md5, check?.digest("hex"));
    checkSum("sha256", sha256, content.sha256);
    return { ...content, path };
  }
  /** What the disk lost is forgotten, so that the client can send it again. */
  async *#readPart(part: StoredPart): AsyncGenerator<Uint8Array> {
    const path = this.#path(part.upload, part.id);
    try {
      yield* readContent(path, part);
    } catch (error) {
      if (!(error instanceof OatmillError) || error.code !== "damaged_file") throw error;
      durably(this.#database, () => this.rows.removePart(part.id));
      await removeTree(path);
      throw new OatmillError(
        "damaged_file",
        `Part "${part.id}" is damaged and was dropped: send it again`,
        "part_ids",
      );
    }
  }

  /** @throws {OatmillError} not_found, conflict */
  async cancel(id: string): Promise<Upload> {
    this.#needPending(id, "cancel");
    await this.#end(id, "cancelled");
    return this.get(id);
  }
  async #end(id: string, state: Exclude<UploadState, "pending" | "completed">): Promise<void> {
    const expiresMs = this.#expiresMs(id);
    durably(this.#database, () => this.rows.finish(id, { state, expiresMs }));
    await this.#forget(id);
  }
  async #forget(id: string): Promise<void> {
    this.#activeMs.delete(id);
    await removeTree(this.#path(id)).catch(() => {}); // the next start finds it
  }
  async #expireIdle(): Promise<void> {
    for (const [id, activeMs] of [...this.#activeMs]) {
      const idle = this.#now() - activeMs >= UPLOAD_IDLE_MS;
      if (idle && !this.#held.has(id) && !this.#completing.has(id)) await this.#end(id, "expired");
    }
  }

  /** Pending, and not about to be something else. */
  #needPending(id: string, action: string): StoredUpload {
    if (this.#completing.has(id)) throw stateForbids(action, id, "being completed");
    return this.#needState(id, action);
  }
  #needState(id: string, action: string): StoredUpload {
    const upload = this.get(id);
    if (upload.state === "pending") return upload;
    throw stateForbids(action, id, upload.state);
  }
  #touch(id: string): void {
    this.#activeMs.set(id, this.#now());
  }
  #expiresMs(id: string): number {
    const idleMs = this.#now() - (this.#activeMs.get(id) ?? this.#now());
    return Math.round(Date.now() + UPLOAD_IDLE_MS - idleMs);
  }
  #path(...names: string[]): string {
    return join(this.#o.root, ...names);
  }
}

const randomId = () => crypto.randomUUID().replaceAll("-", "");
const total = (parts: readonly StoredPart[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);
const stateForbids = (action: string, id: string, state: string) =>
  new OatmillError("conflict", `Cannot ${action} upload "${id}": it is ${state}`, "id");

function checkSum(name: "md5" | "sha256", expected: string | undefined, actual: string | undefined): void {
  if (expected === undefined || expected.toLowerCase() === actual) return;
  throw invalid(`The ${name} of the parts in this order is ${actual}, not ${expected}`, name);
}
