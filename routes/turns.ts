/** Work that comes one after the other for each key, and side by side for different ones. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** When all work that was given so far has ended. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#last.values());
  }
  /** Does the work when all that came before for this key has ended, well or not. */
  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#last.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key);
    }
  }
}
