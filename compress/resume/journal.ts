/**
 * What a compression has finished, for a later run that goes on from there: small units by name (unit_file.ts) and large
 * values as plain files. Without a folder nothing is kept: the compression is then one that nobody resumes.
 */
import { join } from "node:path";
import { asWorkError, type Place } from "../work_space.ts";
import { readUnit, writeUnit } from "./unit_file.ts";

const UNITS = "units";
const VALUES = "values";
const SNAPSHOT = "progress";

export class Journal {
  /** Files of values that no unit relies on yet. */
  readonly #unsynced = new Set<string>();
  /** What is kept with every unit: how far the work is. */
  #snapshot: (() => unknown) | null = null;
  /** One after the other: workers end at once. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(readonly folder: string | null, readonly onKept: (unit: string) => void) {}

  /**
   * @param onKept hears of every unit
   * @throws {OatmillError} storage_failed
   */
  static open(folder: string | null, onKept: (unit: string) => void = () => {}): Journal {
    if (folder !== null) {
      for (const part of [UNITS, VALUES]) {
        const path = join(folder, part);
        asWorkError(path, () => Deno.mkdirSync(path, { recursive: true, mode: 0o700 }));
      }
    }
    return new Journal(folder, onKept);
  }

  /** Whether anything is kept. */
  get keeps(): boolean {
    return this.folder !== null;
  }

  /** A unit of this or an earlier run; null when there is none. */
  get<T>(name: string): T | null {
    if (this.folder === null) return null;
    const path = this.#unit(name);
    return asWorkError(path, () => readUnit(path)) as T | null;
  }

  /** Keeps a unit; the values written before it are on the disk then. @throws {OatmillError} storage_failed */
  async put(name: string, value: unknown): Promise<void> {
    const { folder } = this;
    if (folder === null) return;
    const written = this.#writing.then(() => asWorkErrors(folder, () => this.#write(name, value)));
    this.#writing = written.catch(() => {});
    await written;
    this.onKept(name);
  }

  async #write(name: string, value: unknown): Promise<void> {
    await this.#sync();
    await writeUnit(this.#unit(name), value);
    if (this.#snapshot) await writeUnit(this.#unit(SNAPSHOT), this.#snapshot());
  }

  /** Keeps with every unit what `take` says then; @returns what it said last in an earlier run */
  follow<T>(take: () => T): T | null {
    this.#snapshot = take;
    return this.get<T>(SNAPSHOT);
  }

  drop(name: string): void {
    if (this.folder !== null) removeFile(this.#unit(name));
  }

  /** The unit as an earlier run kept it, or made now. */
  async keep<T extends object>(name: string, make: () => Promise<T>): Promise<T> {
    const kept = this.get<T>(name);
    if (kept) return kept;
    const made = await make();
    await this.put(name, made);
    return made;
  }

  /** Where large values of this name stand. @throws {RangeError} nothing is kept */
  place(name: string): Place & string {
    if (this.folder === null) throw new RangeError("A journal without a folder keeps no values");
    const path = join(this.folder, VALUES, name);
    this.#unsynced.add(path);
    return path;
  }

  async #sync(): Promise<void> {
    for (const path of this.#unsynced) {
      using file = await Deno.open(path, { read: true, write: true }).catch(absentIsNull);
      await file?.syncData();
    }
    this.#unsynced.clear();
  }

  #unit(name: string): string {
    return join(this.folder!, UNITS, name);
  }
}

function absentIsNull(error: unknown): null {
  if (error instanceof Deno.errors.NotFound) return null;
  throw error;
}

function removeFile(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    absentIsNull(error);
  }
}

async function asWorkErrors<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    return asWorkError(path, () => {
      throw cause;
    });
  }
}
