/**
 * Tokens of texts that would hold the HTTP thread too long (1 to 10 MB/s is usual, a single word of 256 KB takes seconds):
 * a thread of the model's own reads them, started with the first of them. HTTP thread only.
 */
import { OatmillError } from "../errors.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import type { FromLongTexts, ToLongTexts } from "./_long_texts_worker.ts";
import type { OpenedModel } from "./open_model.ts";

/** Characters of a request that are read at once: 5 ms of English, 0.1 s of the worst text met. */
const AT_ONCE_CHARS = 16 * 1024;
/** The same for tokens to be turned into text. */
const AT_ONCE_IDS = 64 * 1024;
/** Requests that may wait for the thread. */
const MOST_WAITING = 32;
/** Characters that normalizers may make one of; beyond that a text is too long whatever they do. */
const CHARS_INTO_ONE = 4;

interface Task {
  readonly message: Exclude<ToLongTexts, { type: "open" }>;
  readonly resolve: (answer: FromLongTexts) => void;
  readonly reject: (error: Error) => void;
}

export class LongTexts {
  #worker: Worker | null = null;
  /** The first is under way. */
  readonly #tasks: Task[] = [];
  #closed = false;

  /** @param folder of the artifact */
  constructor(readonly folder: string) {}

  /** @throws {OatmillError} rate_limit_exceeded when too many wait, unavailable (closed, thread ended) */
  async ask(message: Task["message"], signal?: AbortSignal): Promise<FromLongTexts> {
    if (this.#closed) throw new OatmillError("unavailable", "The model was unloaded");
    if (this.#tasks.length >= MOST_WAITING) {
      throw new OatmillError(
        "rate_limit_exceeded",
        `${this.#tasks.length} long texts wait to be read. Retry later`,
      );
    }
    return await new Promise((resolve, reject) => {
      const task = { message, resolve, reject };
      this.#tasks.push(task);
      if (this.#tasks.length === 1) this.#begin();
      signal?.addEventListener("abort", () => this.#drop(task, signal), { once: true });
    });
  }

  #begin(): void {
    const [task] = this.#tasks;
    if (task) (this.#worker ??= this.#start()).postMessage(task.message);
  }
  #start(): Worker {
    const worker = new Worker(new URL("./_long_texts_worker.ts", import.meta.url), {
      type: "module",
      name: "long texts",
    });
    worker.onmessage = ({ data }: MessageEvent<FromLongTexts>) => {
      const task = this.#tasks.shift();
      if (data.type === "failed") {
        task?.reject(new OatmillError("unavailable", `Cannot read long texts: ${data.message}`));
      } else task?.resolve(data);
      this.#begin();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(`The thread that reads long texts failed: ${event.message}`);
    };
    worker.postMessage({ type: "open", folder: this.folder } satisfies ToLongTexts);
    return worker;
  }
  /** What is under way cannot be stopped: its answer is nobody's. */
  #drop(task: Task, { reason }: AbortSignal): void {
    const i = this.#tasks.indexOf(task);
    if (i > 0) this.#tasks.splice(i, 1);
    task.reject(new OatmillError("cancelled", "The request was cancelled", null, { cause: reason }));
  }
  #end(why: string): void {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#tasks.splice(0)) reject(new OatmillError("unavailable", why));
  }
  close(): void {
    this.#closed = true;
    this.#end("The model was unloaded");
  }
}

export interface EncodeTextsOptions {
  readonly addSpecialTokens?: boolean;
  readonly signal?: AbortSignal;
  /** The request's field that they came in, for texts that must fit the context window; absent: they need not. */
  readonly param?: string;
}
type Reader = Pick<OpenedModel, "engine" | "longTexts">;

/**
 * Token ids of each text, by the model's tokenizer.
 * @throws {OatmillError} context_length_exceeded for a text that has more characters than the context window's tokens can
 *   stand for, read or not; rate_limit_exceeded when many long texts wait; unavailable
 */
export async function encodeTexts(
  model: Reader,
  tokenizer: Tokenizer,
  { texts, addSpecialTokens = true, signal, param }: EncodeTextsOptions & {
    readonly texts: readonly string[];
  },
): Promise<number[][]> {
  const most = model.engine.contextLength * tokenizer.longestToken * CHARS_INTO_ONE;
  for (const { length } of param === undefined ? [] : texts) {
    if (length > most) throw tooLong(length, model.engine.contextLength, param!);
  }
  const chars = texts.reduce((sum, { length }) => sum + length, 0);
  const { longTexts } = model;
  if (chars <= AT_ONCE_CHARS || !longTexts) {
    return texts.map((text) => tokenizer.encode(text, { addSpecialTokens }));
  }
  const answer = await longTexts.ask({ type: "encode", texts, addSpecialTokens }, signal);
  return (answer as FromLongTexts & { type: "encoded" }).ids.map((ids) => Array.from(ids)); // as was asked
}

/** The text of many tokens; @throws {OatmillError} as {@linkcode encodeTexts} */
export async function decodeTokens(
  { longTexts }: Reader,
  tokenizer: Tokenizer,
  { ids, signal }: { readonly ids: readonly number[]; readonly signal?: AbortSignal },
): Promise<string> {
  if (ids.length <= AT_ONCE_IDS || !longTexts) return tokenizer.decode(ids);
  const answer = await longTexts.ask({ type: "decode", ids: Int32Array.from(ids) }, signal);
  return (answer as FromLongTexts & { type: "decoded" }).text; // as was asked
}

const tooLong = (chars: number, contextLength: number, param: string): OatmillError =>
  new OatmillError(
    "context_length_exceeded",
    `This model's context holds ${contextLength} tokens, far fewer than a text of ${chars} characters has: shorten it`,
    param,
  );
