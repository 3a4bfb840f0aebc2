/**
 * The layout of the data folder (`OATMILL_DATA`, by default `.oatmill` in the working directory), main thread only:
 *
 * - `oatmill.db`  models and jobs (SQLite, WAL)
 * - `models/F/`   one artifact folder per model; `models.folder` in the database says which is whose
 * - `adapters/F/` one LoRA adapter's files; `adapters.folder` in the database says which is whose
 * - `blobs/`    content of files by its SHA-256 (blob_store.ts)
 * - `uploads/U/` parts of unfinished uploads (upload_storage.ts)
 * - `jobs/J/`     files and work of a compression that is not over, or may be tried again
 * - `tmp/F/`      everything unfinished: uploads, artifacts being written or deleted. What is there at start is rubbish.
 * - `tuning.json` what the autotuner measured; may be deleted at any time
 * - `lock`        held by the one process that uses the folder
 */
import { basename, dirname, join, resolve } from "node:path";
import { OatmillError } from "../errors.ts";

/** For commands that read and write rows while a server holds the folder. */
export const databasePath = (root: string): string => join(root, "oatmill.db");

/** Folders whose content rows own. */
const ROOMS = ["models", "adapters", "blobs", "uploads", "jobs"] as const;

export class DataFolder implements Disposable {
  private constructor(readonly root: string, readonly lock: Deno.FsFile) {}

  /** Creates what is missing, takes the lock and empties `tmp/`. @throws {OatmillError} conflict, storage_failed */
  static async open(path: string): Promise<DataFolder> {
    const root = resolve(path);
    const lock = await storing(`create the data folder "${root}"`, async () => {
      for (const room of ROOMS) {
        await Deno.mkdir(join(root, room), { recursive: true });
      }
      return await Deno.open(join(root, "lock"), { create: true, write: true });
    });
    if (!await lock.tryLock(true)) {
      lock.close();
      throw new OatmillError("conflict", `Cannot use the data folder "${root}": another process uses it`);
    }
    const folder = new DataFolder(root, lock);
    await folder.#emptyTemporary();
    return folder;
  }

  /**
   * Content whose database is gone must not be taken for what a crash left, which a start deletes.
   * @throws {OatmillError} storage_failed
   */
  async needDatabase(): Promise<void> {
    const size = await Deno.stat(this.database).then(({ size }) => size, () => 0);
    if (size > 0) return; // SQLite takes an empty file for a new database
    for (const room of ROOMS) {
      for await (const _ of Deno.readDir(join(this.root, room))) {
        throw new OatmillError(
          "storage_failed",
          `Cannot use the data folder "${this.root}": the database of what is in it is gone; ` +
            `put "${this.database}" back, or take another folder to begin anew`,
        );
      }
    }
  }
  get database(): string {
    return databasePath(this.root);
  }
  /** Which variants of the kernels are fastest on this machine (engine/tuning.ts). */
  get tuning(): string {
    return join(this.root, "tuning.json");
  }
  get blobs(): string {
    return join(this.root, "blobs");
  }
  get uploads(): string {
    return join(this.root, "uploads");
  }
  modelPath(folder: string): string {
    return join(this.root, "models", folder);
  }
  adapterPath(folder: string): string {
    return join(this.root, "adapters", folder);
  }
  /** Of a compression. */
  jobPath(id: string): string {
    return join(this.root, "jobs", id);
  }
  /** A new empty folder for unfinished work. */
  async temporary(): Promise<string> {
    const path = join(this.root, "tmp", crypto.randomUUID());
    await storing(`create "${path}"`, () => Deno.mkdir(path));
    return path;
  }

  /** Makes a finished folder of `tmp/` or `jobs/` a model's folder; returns its name. */
  async publish(path: string, folder: string = crypto.randomUUID()): Promise<string> {
    await this.#place(path, this.modelPath(folder), `store the artifact "${folder}"`);
    return folder;
  }
  /** Makes a folder of `tmp/` an adapter's; returns its name. */
  async publishAdapter(path: string): Promise<string> {
    const folder = crypto.randomUUID();
    await this.#place(path, this.adapterPath(folder), `store the adapter "${folder}"`);
    return folder;
  }
  async #place(from: string, to: string, action: string): Promise<void> {
    await storing(action, async () => {
      await Deno.rename(from, to);
      await syncFolder(dirname(to));
    });
  }
  /** Undoes {@linkcode publish}. A disk that refuses leaves a folder of no model, which the next start deletes. */
  async takeBack(folder: string, path: string): Promise<void> {
    await Deno.rename(this.modelPath(folder), path).catch(() => {});
  }
  /** Takes a model's folder away at once (rename) and deletes it. */
  async remove(folder: string): Promise<void> {
    await this.#bury(this.modelPath(folder));
  }
  /** The same for an adapter's. */
  async removeAdapter(folder: string): Promise<void> {
    await this.#bury(this.adapterPath(folder));
  }
  async #bury(path: string): Promise<void> {
    const grave = join(this.root, "tmp", `removed-${basename(path)}`);
    try {
      await Deno.rename(path, grave);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    await removeTree(grave);
  }
  /** Deletes folders of a room that no row owns (a crash between rename and database). */
  async removeOrphans(room: "models" | "adapters", owned: ReadonlySet<string>): Promise<string[]> {
    const orphans: string[] = [];
    for await (const { name } of Deno.readDir(join(this.root, room))) {
      if (owned.has(name)) continue;
      orphans.push(name);
      await removeTree(join(this.root, room, name));
    }
    return orphans;
  }

  /**
   * Deletes folders of `jobs/`. Each is taken away at once with the question: while one is deleted, jobs come and others
   * are tried again, which need theirs.
   */
  async removeJobs(isUnneeded: (id: string) => boolean): Promise<void> {
    for await (const { name } of Deno.readDir(join(this.root, "jobs"))) {
      if (!isUnneeded(name)) continue;
      const grave = join(this.root, "tmp", crypto.randomUUID());
      try {
        Deno.renameSync(this.jobPath(name), grave);
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) continue;
        throw error;
      }
      await removeTree(grave);
    }
  }

  async #emptyTemporary(): Promise<void> {
    const path = join(this.root, "tmp");
    await removeTree(path);
    await storing(`create "${path}"`, () => Deno.mkdir(path));
  }
  [Symbol.dispose](): void {
    this.lock.close();
  }
}

/** Again where a file came in meanwhile, of an upload that is not over yet. */
const REMOVE_TRIES = 5;

export async function removeTree(path: string): Promise<void> {
  for (let left = REMOVE_TRIES;; left--) {
    try {
      return await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      if (left === 1 || !/os error 39\b|ENOTEMPTY/.test((error as Error).message)) throw error;
    }
  }
}

/** fsync of a folder: makes renames inside it durable. Not every system can; then the rename stands without it. */
export async function syncFolder(path: string): Promise<void> {
  try {
    using folder = await Deno.open(path);
    await folder.sync();
  } catch {
    // Windows cannot open folders.
  }
}

/** Turns a failing disk into storage_failed. */
export async function storing<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asStorageError(error, action);
  }
}

/** SQLite's words for READONLY, IOERR, CORRUPT, FULL, CANTOPEN and NOTADB: node:sqlite gives no numbers here. */
const SQLITE_STORAGE =
  /readonly database|disk I\/O error|image is malformed|disk is full|unable to open database|not a database/;

/** EIO, EXDEV (a room of the folder on another disk), EFBIG, ENOSPC, EROFS, EDQUOT, EACCES by number or by Deno's class, or SQLite's words for them; anything else stays itself. */
export function asStorageError(error: unknown, action: string): unknown {
  const database = error instanceof Error && (error as { code?: unknown }).code === "ERR_SQLITE_ERROR" &&
    SQLITE_STORAGE.test(error.message);
  const denied = error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable;
  const full = error instanceof Error &&
    /os error (5|18|27|28|30|122)\b|EIO|EXDEV|EFBIG|ENOSPC|EROFS|EDQUOT/.test(error.message);
  if (!denied && !full && !database) return error;
  return new OatmillError("storage_failed", `Cannot ${action}: ${error.message}`, null, { cause: error });
}
