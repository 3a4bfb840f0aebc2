/**
 * The folder in which one artifact is made: what is finished of it (journal.ts), the artifact as it grows, scratch files.
 * A run that is given the folder of an earlier one, with the same source and recipe, goes on where that one stopped.
 *
 * - `lock`             held by the run that uses the folder
 * - `manifest`         what the work is of (identity.ts), and how many threads share it: sums are in their order
 * - `units`, `values`  what is finished
 * - `artifact.partial` the artifact until its last tensor is written
 * - `artifact`         from there until its quality is measured; then it gets the name it was asked for
 * - `recovered`        the artifact that a recovery makes of that one, in its place
 * - `scratch`          of no use to another run
 */
import { basename, dirname, join } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { Recipe } from "../../models/recipe.ts";
import type { CompressOptions, CompressResult } from "../types.ts";
import { asWorkError } from "../work_space.ts";
import { differenceOf, type Identity, identityOf } from "./identity.ts";
import { Journal } from "./journal.ts";
import { readUnit, writeUnit } from "./unit_file.ts";

interface Manifest {
  readonly identity: Identity;
  readonly threads: number;
}

const RESULT = "result";

/** What a run in this folder came to, perhaps in another process; null when none came to its end. */
export const earlierResult = (folder: string): CompressResult | null =>
  Journal.open(folder).get<CompressResult>(RESULT);

/** The folder that `compress --out` works in, when it is to be found again. */
export const workFolderOf = (out: string): string => join(dirname(out), `.${basename(out)}.partial`);

export class WorkFolder implements Disposable {
  private constructor(
    readonly folder: string,
    readonly out: string,
    readonly journal: Journal,
    readonly threads: number,
    /** Held while the folder is to outlive the run; else it goes with it. */
    readonly lock: Deno.FsFile | null,
  ) {}

  /**
   * @throws {OatmillError} conflict: `out` exists, or another run uses the folder; storage_failed
   */
  static async open(options: CompressOptions, recipe: Recipe): Promise<WorkFolder> {
    const { out, work: wanted } = options;
    if (exists(out) && !(wanted && exists(wanted))) throw taken(out);
    const threads = options.threads ?? navigator.hardwareConcurrency;
    const folder = wanted ?? join(dirname(out), `.${basename(out)}.${crypto.randomUUID()}.work`);
    asWorkError(folder, () => Deno.mkdirSync(folder, { recursive: true, mode: 0o700 }));
    if (!wanted) return new WorkFolder(folder, out, Journal.open(null), threads, null);
    const lock = takeLock(folder);
    try {
      const manifest = await beginOrResume(folder, recipe, options);
      const work = new WorkFolder(folder, out, Journal.open(folder, options.onKept), manifest.threads, lock);
      if (exists(out) && !work.result()) throw taken(out);
      return work;
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  get artifact(): string {
    return join(this.folder, "artifact");
  }
  get partial(): string {
    return join(this.folder, "artifact.partial");
  }
  get recovered(): string {
    return join(this.folder, "recovered");
  }
  get scratch(): string {
    return join(this.folder, "scratch");
  }

  /** Of a run that had given the artifact its name; null when there was none. */
  result(): CompressResult | null {
    return exists(this.out) ? this.journal.get<CompressResult>(RESULT) : null;
  }

  /**
   * Gives the artifact its name: the recovered one, where there is one.
   * @throws {OatmillError} conflict, storage_failed
   */
  async publish(result: CompressResult): Promise<void> {
    await this.journal.put(RESULT, result);
    if (exists(this.out)) throw taken(this.out);
    const made = exists(this.recovered) ? this.recovered : this.artifact;
    asWorkError(this.out, () => Deno.renameSync(made, this.out));
  }

  [Symbol.dispose](): void {
    if (this.lock) this.lock.close();
    else remove(this.folder);
  }
}

const taken = (out: string) =>
  new OatmillError("conflict", `Cannot write artifact "${out}": the folder already exists`);

function takeLock(folder: string): Deno.FsFile {
  const path = join(folder, "lock");
  const lock = asWorkError(path, () => Deno.openSync(path, { create: true, write: true }));
  if (lock.tryLockSync(true)) return lock;
  lock.close();
  throw new OatmillError("conflict", `Cannot work in "${folder}": another compression is under way there`);
}

/** What the folder is for from now on; what it has of another work goes, and the caller hears why. */
async function beginOrResume(
  folder: string,
  recipe: Recipe,
  { source, threads, onResume }: CompressOptions,
): Promise<Manifest> {
  const path = join(folder, "manifest"), identity = await identityOf(source, recipe);
  const found = asWorkError(path, () => readUnit(path)) as Manifest | null;
  const otherThreads = found && threads !== undefined && threads !== found.threads;
  const why = found &&
    (differenceOf(found.identity, identity) ?? (otherThreads ? "another number of threads" : null));
  if (found && !why) {
    onResume?.({ resumed: true, why: null });
    return found;
  }
  if (why) onResume?.({ resumed: false, why });
  for (const { name } of Deno.readDirSync(folder)) {
    if (name !== "lock") remove(join(folder, name));
  }
  const manifest = { identity, threads: threads ?? navigator.hardwareConcurrency };
  await writeUnit(path, manifest).catch((error) =>
    asWorkError(path, () => {
      throw error;
    })
  );
  return manifest;
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
