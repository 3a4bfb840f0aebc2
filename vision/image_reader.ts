/**
 * Image files to pixels beside the thread that asks: decoding takes up to a second, and HTTP must not wait for it. One
 * worker, one image at a time, so that only one decoded image stands in memory.
 */
import { OatmillError } from "../errors.ts";
import { readImageHeader } from "./image_header.ts";
import type { Pixels } from "../models/classifier.ts";
import type { ProcessorConfig } from "./processor_config.ts";
import type { FromWorker, ToWorker } from "./_worker.ts";

export interface ReadOptions {
  readonly config: ProcessorConfig;
  /** What messages call the image. */
  readonly name?: string;
}

/** A JPEG of thousands of progressive scans costs minutes; an honest one of 25 megapixels about a second. */
const MAX_MS = 20_000;
/** Memory that WebAssembly once took it keeps; after a larger image than this the worker is replaced. */
const KEEP_PIXELS = 4_000_000;

/** `close()` when no more images come. */
export class ImageReader {
  #worker: Worker | null = null;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;
  /** Refuses the question that the worker is at. */
  #refuse: (error: Error) => void = () => {};

  /**
   * @throws {OatmillError} what `decodeImage()` and `prepareImage()` throw; invalid_image when it takes longer than 20 s;
   *   unavailable after `close()`
   */
  read(bytes: Uint8Array, { config, name = "the image" }: ReadOptions): Promise<Pixels> {
    const header = readImageHeader(bytes, name); // before it waits, and before its bytes are copied
    const result = this.#last.then(async () => {
      try {
        const pixels = await this.#ask({ bytes, name, config });
        if (header.width * header.height > KEEP_PIXELS) this.#drop();
        return pixels;
      } catch (error) {
        this.#drop();
        throw error;
      }
    });
    this.#last = result.catch(() => {});
    return result;
  }

  async #ask(question: ToWorker): Promise<Pixels> {
    if (this.#closed) throw closed();
    const { promise, resolve, reject } = Promise.withResolvers<Pixels>();
    this.#refuse = reject;
    const worker = this.#worker ??= new Worker(new URL("./_worker.ts", import.meta.url), {
      type: "module",
      name: "images",
    });
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if ("pixels" in data) resolve(data.pixels);
      else if (data.code === null) reject(new Error(data.message));
      else reject(new OatmillError(data.code, data.message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(question);
    const timer = setTimeout(() => reject(tooSlow(question.name)), MAX_MS);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }
  #drop(): void {
    this.#worker?.terminate();
    this.#worker = null;
  }

  /** Ends the worker; who still waits is refused. */
  close(): void {
    this.#closed = true;
    this.#refuse(closed());
    this.#drop();
  }
}

const closed = () => new OatmillError("unavailable", "The image reader is closed");

const tooSlow = (name: string) =>
  new OatmillError(
    "invalid_image",
    `Cannot read ${name}: decoding took longer than ${MAX_MS / 1000} s; save it again, not progressive`,
  );
