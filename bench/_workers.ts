/** Worker threads that a benchmark asks one question after the other. */
export class Workers {
  readonly #workers: readonly Worker[];

  /** @param entry the module that every thread runs; it answers each message with one */
  constructor(entry: URL, count: number) {
    this.#workers = Array.from({ length: count }, () => new Worker(entry, { type: "module" }));
  }

  /**
   * Asks the first `threads` threads.
   * @returns their answers, by thread
   */
  ask<T>(threads: number, message: (thread: number) => unknown): Promise<T[]> {
    return Promise.all(
      this.#workers.slice(0, threads).map((worker, i) =>
        new Promise<T>((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = (event) => {
            event.preventDefault();
            reject(new Error(event.message));
          };
          worker.postMessage(message(i));
        })
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) worker.terminate();
  }
}
