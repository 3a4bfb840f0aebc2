/** Runs of addresses that are taken and given back: where adapters lie in a memory that only grows. Pure bookkeeping. */

interface Extent {
  readonly address: number;
  readonly bytes: number;
}

/** Addresses from `begin` on, of which `end` is the first that nobody ever had. */
export class Extents {
  /** Given back, by address, never side by side. */
  #free: Extent[] = [];
  #end: number;

  constructor(readonly begin: number) {
    this.#end = begin;
  }
  get end(): number {
    return this.#end;
  }

  /** Where the next `bytes` would lie, and the end as it would be then: the first gap that holds them, else the end. */
  find(bytes: number): { readonly address: number; readonly end: number } {
    const gap = this.#free.find((extent) => extent.bytes >= bytes);
    if (gap) return { address: gap.address, end: this.#end };
    const last = this.#free.at(-1);
    const address = last && last.address + last.bytes === this.#end ? last.address : this.#end;
    return { address, end: address + bytes };
  }

  /** Takes what `find()` says. @returns its address */
  take(bytes: number): number {
    const { address, end } = this.find(bytes);
    const i = this.#free.findIndex((extent) => extent.address === address);
    if (i >= 0) {
      const { bytes: had } = this.#free[i];
      this.#free.splice(i, 1, ...(had > bytes ? [{ address: address + bytes, bytes: had - bytes }] : []));
    }
    this.#end = end;
    return address;
  }

  /** Gives back what was taken. */
  give(address: number, bytes: number): void {
    if (bytes === 0) return;
    const all = [...this.#free, { address, bytes }].sort((a, b) => a.address - b.address);
    this.#free = [];
    for (const extent of all) {
      const last = this.#free.at(-1);
      if (last && last.address + last.bytes === extent.address) {
        this.#free[this.#free.length - 1] = { address: last.address, bytes: last.bytes + extent.bytes };
      } else this.#free.push(extent);
    }
  }
}
