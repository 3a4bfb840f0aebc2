/** So many requests at once; one that comes when all places are taken waits for the first that is given back. */
export class Places {
  /** When one that waited last got a place. */
  freedMs = -Infinity;
  #free: number;
  readonly #waiting: (() => void)[] = [];
  constructor(places: number) {
    this.#free = places;
  }

  /** @returns null when there was a place at once */
  take(): Promise<void> | null {
    if (this.#free > 0) {
      this.#free--;
      return null;
    }
    return new Promise((done) => this.#waiting.push(done));
  }
  give(): void {
    const next = this.#waiting.shift();
    if (!next) return void this.#free++;
    this.freedMs = performance.now();
    next();
  }
  /** Lets everyone go on, place or not. */
  close(): void {
    while (this.#waiting.length > 0) this.give();
  }
}
