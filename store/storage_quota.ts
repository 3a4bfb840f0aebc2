/** What files and uploads may take: a limit of the operator's, and what the disk has left. */
import { statfs } from "node:fs/promises";
import { OatmillError } from "../errors.ts";
import type { ByteQuota } from "./upload.ts";

/** Bytes that are free for this process where `path` lies; null where the system does not say. */
export async function freeBytes(path: string): Promise<number | null> {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch {
    return null; // without --allow-sys=statfs, or a file system that knows no such thing
  }
}

/** By how much a reservation of unknown length grows: the rows are asked once per step, not per chunk. */
const STEP_BYTES = 2 ** 20;

export interface StorageQuotaOptions {
  /** Infinity: only the disk limits. */
  readonly maxBytes: number;
  /** What rows tell of: content, each once, and uploads under way. */
  readonly used: () => number;
  readonly free: () => Promise<number | null>;
}

export class StorageQuota {
  readonly #o: StorageQuotaOptions;
  /** Being written, and in no row yet. */
  #reserved = 0;

  constructor(options: StorageQuotaOptions) {
    this.#o = options;
  }
  /** Also of what is being written. */
  get takenBytes(): number {
    return this.#o.used() + this.#reserved;
  }
  /** @throws {OatmillError} storage_quota_exceeded */
  check(bytes: number): void {
    const { maxBytes } = this.#o;
    if (maxBytes === Infinity) return;
    const taken = this.takenBytes;
    if (taken + bytes <= maxBytes) return;
    throw new OatmillError(
      "storage_quota_exceeded",
      `Cannot take ${bytes} bytes: files and uploads have ${taken} of the ${maxBytes} that they may have; ` +
        "delete files or cancel uploads that are not needed",
    );
  }
  /** Before it is written rather than after an hour of it. @throws {OatmillError} storage_failed */
  async checkDisk(bytes: number): Promise<void> {
    const free = await this.#o.free();
    if (free === null || bytes <= free) return;
    throw new OatmillError("storage_failed", `Cannot take ${bytes} bytes: the disk has ${free} left`);
  }
  /**
   * For a file that is on its way.
   * @param bytes that it has at least
   * @throws {OatmillError} storage_quota_exceeded, storage_failed
   */
  async reserve(bytes: number): Promise<Reservation> {
    await this.checkDisk(bytes);
    const reservation = new Reservation((more) => {
      this.check(more);
      this.#reserved += more;
    }, (all) => this.#reserved -= all);
    reservation.grow(bytes);
    return reservation;
  }
}

/** Bytes that nobody else gets, until it is disposed of: then a row tells of them, or they are gone. */
export class Reservation implements ByteQuota, Disposable {
  #reserved = 0;
  #taken = 0;
  constructor(readonly add: (bytes: number) => void, readonly release: (bytes: number) => void) {}

  grow(bytes: number): void {
    this.add(bytes);
    this.#reserved += bytes;
  }
  take(bytes: number): void {
    this.#taken += bytes;
    const missing = this.#taken - this.#reserved;
    if (missing <= 0) return;
    try {
      this.grow(Math.max(missing, STEP_BYTES));
    } catch {
      this.grow(missing); // the last step can be shorter
    }
  }
  [Symbol.dispose](): void {
    this.release(this.#reserved);
    this.#reserved = 0;
  }
}
