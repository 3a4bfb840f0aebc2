/**
 * Which KV blocks are free, which are in use (by how many sequences) and which are kept for their contents though nobody
 * uses them now. Pure bookkeeping: the memory belongs to the executor.
 */
export class KvBlocks {
  readonly #free: number[];
  /** Users of each block. */
  readonly #users: Int32Array;
  /** Blocks without users that are kept, longest unused first. */
  readonly #kept = new Set<number>();

  /** @param onEvict hears of every kept block whose contents are given up */
  constructor(readonly total: number, readonly onEvict: (id: number) => void = () => {}) {
    this.#free = Array.from({ length: total }, (_, i) => total - 1 - i);
    this.#users = new Int32Array(total);
  }

  /** Blocks that `take()` can give: empty ones and kept ones. */
  get available(): number {
    return this.#free.length + this.#kept.size;
  }
  get kept(): number {
    return this.#kept.size;
  }
  get used(): number {
    return this.total - this.available;
  }
  usersOf(id: number): number {
    return this.#users[id];
  }

  /** @returns an empty block, else the longest unused of the kept ones, emptied; null when all are in use */
  take(): number | null {
    let id = this.#free.pop();
    if (id === undefined) {
      const [oldest] = this.#kept;
      if (oldest === undefined) return null;
      this.#kept.delete(oldest);
      this.onEvict(oldest);
      id = oldest;
    }
    this.#users[id] = 1;
    return id;
  }

  /**
   * One more user of a block that is in use or kept.
   * @throws {RangeError} when it is empty
   */
  share(id: number): void {
    if (this.#users[id] === 0 && !this.#kept.delete(id)) throw new RangeError(`KV block ${id} is empty`);
    this.#users[id]++;
  }

  /**
   * One user less; the last one leaves the block empty, or kept if its contents can be found again.
   * @throws {RangeError} when nobody uses it
   */
  release(id: number, keep: boolean): void {
    if (!(this.#users[id] > 0)) throw new RangeError(`KV block ${id} is not in use`);
    if (--this.#users[id] > 0) return;
    if (keep) this.#kept.add(id);
    else this.#free.push(id);
  }
}
