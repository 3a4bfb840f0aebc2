/**
 * The grammars of one engine, a thread each, started when a request first needs one (HTTP thread). Grammars that nobody uses
 * are kept for the next request until others need their place.
 */
import { OatmillError } from "../../errors.ts";
import type { FromGrammar, GrammarSource, ToGrammar } from "./grammar_worker.ts";
import { MaskMailbox } from "./mask_mailbox.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";

/** What a generation's text must follow. */
export interface GrammarRequest {
  readonly source: GrammarSource;
  readonly vocabulary: () => Promise<GrammarVocabulary>;
  /** The request's field, which errors name. */
  readonly param: string;
}

/** A thread takes 95 MB with a vocabulary of 49,152. */
const MOST_THREADS = 4;
/** Loading and compiling: with a vocabulary of 49,152 a small schema takes 0.8 s, an enum of 5,000 0.2 s more. */
const COMPILE_DEADLINE_MS = 10_000;

export class Grammars {
  readonly #threads = new Map<string, GrammarThread>();
  #closed = false;

  /** @param vocab length of a row of logits */
  constructor(readonly vocab: number) {}

  /**
   * Masks for one generation; dispose it when the generation is over.
   * @throws {OatmillError} invalid_request when the schema cannot be compiled, or not within 10 s; rate_limit_exceeded when
   *   4 other grammars are in use; unavailable (closed)
   */
  async open(request: GrammarRequest): Promise<Disposable & { readonly buffer: SharedArrayBuffer }> {
    if (this.#closed) throw new OatmillError("unavailable", "The engine is closed");
    const key = JSON.stringify(request.source);
    const thread = this.#threads.get(key) ?? this.#start(request);
    this.#threads.delete(key);
    this.#threads.set(key, thread); // the newest last
    try {
      return await thread.open();
    } catch (error) {
      if (thread.ended && this.#threads.get(key) === thread) this.#threads.delete(key);
      throw error;
    }
  }

  #start(request: GrammarRequest): GrammarThread {
    for (const [key, thread] of this.#threads) {
      if (!thread.ended && (this.#threads.size < MOST_THREADS || thread.users > 0)) continue;
      thread.close();
      this.#threads.delete(key);
    }
    if (this.#threads.size >= MOST_THREADS) {
      const message = `${MOST_THREADS} other grammars are in use. Retry later`;
      throw new OatmillError("rate_limit_exceeded", message, request.param);
    }
    return new GrammarThread(request, this.vocab);
  }

  /** Ends all threads, and what still runs under their grammars. */
  close(): void {
    this.#closed = true;
    for (const thread of this.#threads.values()) thread.close();
    this.#threads.clear();
  }
}

class GrammarThread {
  readonly #worker: Worker;
  readonly #mailboxes = new Set<MaskMailbox>();
  readonly #compiled: Promise<void>;
  #refuse: (error: Error) => void = () => {};
  /** Generations under the grammar, or waiting for it. */
  users = 0;
  ended = false;

  constructor(readonly request: GrammarRequest, readonly vocab: number) {
    this.#worker = new Worker(new URL("./grammar_worker.ts", import.meta.url), {
      type: "module",
      name: "grammar",
    });
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.close();
    };
    this.#compiled = this.#compile();
    this.#compiled.catch(() => {}); // told to whoever opens
  }

  async #compile(): Promise<void> {
    const { source, vocabulary, param } = this.request;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#refuse = reject;
    const invalid = (reason: string) =>
      new OatmillError("invalid_request", `Cannot use the schema of "${param}": ${reason}`, param);
    this.#worker.onmessage = ({ data }: MessageEvent<FromGrammar>) =>
      data.type === "compiled" ? resolve() : reject(invalid(data.reason));
    const late = `compiling took longer than ${COMPILE_DEADLINE_MS / 1000} s; make it smaller`;
    const timer = setTimeout(() => reject(invalid(late)), COMPILE_DEADLINE_MS);
    try {
      this.#post({ type: "compile", source, vocabulary: await vocabulary(), vocab: this.vocab });
      await promise;
    } catch (error) {
      this.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async open(): Promise<Disposable & { readonly buffer: SharedArrayBuffer }> {
    this.users++;
    try {
      await this.#compiled;
    } catch (error) {
      this.users--;
      throw error;
    }
    const mailbox = MaskMailbox.create(this.vocab);
    if (this.ended) mailbox.close();
    this.#mailboxes.add(mailbox);
    this.#post({ type: "open", buffer: mailbox.buffer });
    return {
      buffer: mailbox.buffer,
      [Symbol.dispose]: () => {
        if (!this.#mailboxes.delete(mailbox)) return;
        this.users--;
        mailbox.close();
      },
    };
  }

  #post(m: ToGrammar): void {
    this.#worker.postMessage(m);
  }

  close(): void {
    this.ended = true;
    this.#refuse(new OatmillError("unavailable", "The grammar's thread ended"));
    this.#worker.terminate();
    for (const mailbox of this.#mailboxes) mailbox.close();
  }
}
