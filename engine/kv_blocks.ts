/** The free list of KV blocks. Pure bookkeeping: the memory belongs to the executor. */
export class KvBlocks {
  readonly #free: number[];
  readonly #used = new Set<number>();

  constructor(readonly total: number) {
    this.#free = Array.from({ length: total }, (_, i) => total - 1 - i);
  }

  get free(): number {
    return this.#free.length;
  }
  get used(): number {
    return this.#used.size;
  }

  /** @returns a block id, or null when none is free */
  take(): number | null {
    const id = this.#free.pop();
    if (id === undefined) return null;
    this.#used.add(id);
    return id;
  }

  /** @throws {RangeError} when the block was not taken */
  release(id: number): void {
    if (!this.#used.delete(id)) throw new RangeError(`KV block ${id} is not in use`);
    this.#free.push(id);
  }
}
