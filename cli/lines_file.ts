/** JSON lines written as they come. A disk that is full costs the rest of the lines, not the command's result. */
import { note } from "./output.ts";

const encoder = new TextEncoder();

export class LinesFile implements Disposable {
  #file: Deno.FsFile | null;
  /** @throws {Deno.errors} when it cannot be made: before there is anything to lose */
  constructor(readonly path: string) {
    this.#file = Deno.openSync(path, { write: true, create: true, truncate: true });
  }
  write(row: object): void {
    const bytes = encoder.encode(JSON.stringify(row) + "\n");
    try {
      for (let done = 0; this.#file && done < bytes.length;) {
        done += this.#file.writeSync(bytes.subarray(done));
      }
    } catch (error) {
      note(`oatmill: "${this.path}" ends here: ${(error as Error).message}`);
      this[Symbol.dispose]();
    }
  }
  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = null;
  }
}
