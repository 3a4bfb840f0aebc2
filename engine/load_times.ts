/** How long the parts of a model's load took. Parts run at once where they can: their sum is more than the whole. */

/**
 * `header` reading and checking what describes the model, `weights` reading (and where needed hashing or packing) the
 * tensors, `threads` until all listen, `kernels` compiling and choosing variants, `tables` what is computed into memory, `ready`
 * binding the kernels in every thread.
 */
export type LoadPhase = "header" | "tokenizer" | "weights" | "threads" | "kernels" | "tables" | "ready";

export class LoadTimes {
  readonly #start = performance.now();
  readonly #ms: Partial<Record<LoadPhase, number>> = {};
  #total: { readonly ms: number; readonly bytes: number; readonly parallel: boolean } | null = null;

  /** Runs and times a part. */
  async time<T>(phase: LoadPhase, work: () => T | Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.add(phase, performance.now() - start);
    }
  }
  add(phase: LoadPhase, ms: number): void {
    this.#ms[phase] = (this.#ms[phase] ?? 0) + ms;
  }
  /** @param weights bytes of the tensors; `parallel` when all threads read them, from a file that was checked before */
  end(weights: { readonly bytes: number; readonly parallel: boolean }): void {
    this.#total = { ms: performance.now() - this.#start, ...weights };
  }
  /** null until the model is loaded. */
  get total(): { readonly ms: number; readonly bytes: number; readonly parallel: boolean } | null {
    return this.#total;
  }
  /** Milliseconds by part. */
  get ms(): Readonly<Partial<Record<LoadPhase, number>>> {
    return this.#ms;
  }
}
