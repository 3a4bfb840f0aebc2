/**
 * A deterministic engine and tokenizer for route tests: one token per UTF-8 byte, and the "model" answers with a script
 * (or repeats the alphabet). Nothing outside tests may import it.
 */
import { OatmillError } from "../errors.ts";
import type {
  Engine,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  MeasureOptions,
  TokenLogprobs,
} from "../engine/types.ts";
import type { ChatMessage, Tokenizer } from "../models/tokenizer.ts";
import { until } from "./until.ts";

export const BOS = 256;
export const EOS = 257;
const VOCAB = 258;
const encoder = new TextEncoder();

export interface FakeEngineOptions {
  /** What is generated (after a prompt), as bytes; then EOS. Default: the alphabet, for ever. */
  readonly script?: string | ((prompt: string) => string);
  readonly contextLength?: number;
  readonly tokenDelayMs?: number;
  /** Thrown after so many tokens. */
  readonly failAfter?: number;
  /** Generations beyond are refused. */
  readonly maxRequests?: number;
  /** Generations beyond wait until one of these ends. */
  readonly slots?: number;
}

export class FakeEngine implements Engine {
  readonly vocabSize = VOCAB;
  readonly contextLength: number;
  readonly requests: GenerateRequest[] = [];
  /** With those that wait. */
  running = 0;
  #slotsTaken = 0;
  finished = 0;
  closed = false;
  constructor(readonly options: FakeEngineOptions = {}) {
    this.contextLength = options.contextLength ?? 512;
  }

  async *generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent, void, void> {
    if (this.closed) throw new OatmillError("unavailable", "The engine is closed");
    if (this.running >= (this.options.maxRequests ?? Infinity)) {
      await new Promise((done) => setTimeout(done)); // another thread says so
      throw new OatmillError("rate_limit_exceeded", "The queue is full");
    }
    this.requests.push(request);
    this.running++;
    try {
      await until(() => this.#slotsTaken < (this.options.slots ?? Infinity) || signal?.aborted === true);
      this.#slotsTaken++;
      try {
        yield* this.#run(request, signal);
        this.finished++;
      } finally {
        this.#slotsTaken--;
      }
    } finally {
      this.running--;
    }
  }
  async *#run(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent, void, void> {
    const { script, tokenDelayMs, failAfter } = this.options;
    const promptTokens = request.promptIds.length;
    const logprobs = request.promptLogprobs
      ? request.promptIds.map((id, i) => i === 0 ? null : this.#logprobs(id))
      : null;
    yield { type: "prompt", promptTokens, cachedTokens: 1, logprobs };
    const said = typeof script === "function" ? script(byteTokenizer.decode(request.promptIds)) : script;
    const bytes = said === undefined ? null : encoder.encode(said);
    let n = 0;
    let reason: "stop" | "length" = "length";
    for (; n < request.maxTokens; n++) {
      if (tokenDelayMs !== undefined) await new Promise((done) => setTimeout(done, tokenDelayMs));
      signal?.throwIfAborted();
      if (n === failAfter || this.closed) throw new OatmillError("unavailable", "The engine is closed");
      const token = bytes ? bytes[n] ?? EOS : 97 + (n + request.sampling.seed) % 26;
      if (request.stopIds.includes(token)) {
        reason = "stop";
        break;
      }
      yield {
        type: "token",
        token,
        logprobs: request.logprobs === null ? null : this.#logprobs(token, request.logprobs),
      };
    }
    const timings = { queueMs: 1, prefillMs: 2, decodeMs: 3, promptTokens, completionTokens: n };
    yield { type: "end", reason, timings };
  }
  #logprobs(token: number, top = 0): TokenLogprobs {
    return {
      logprob: -0.5,
      top: Array.from({ length: top }, (_, i) => [(token + i) % 256, -0.5 - i] as const),
    };
  }

  score(ids: readonly number[], { from = 0 }: MeasureOptions = {}): Promise<Float32Array> {
    return Promise.resolve(new Float32Array(ids.length - 1 - from).fill(1));
  }
  logits(ids: readonly number[], { from = ids.length - 1 }: MeasureOptions = {}): Promise<Float32Array> {
    return Promise.resolve(new Float32Array(VOCAB * (ids.length - from)));
  }
  encode(): Promise<Float32Array> {
    return Promise.reject(new OatmillError("invalid_request", "The model is a decoder"));
  }
  /** Names alone: what an adapter holds changes nothing here. */
  readonly #adapters = new Set<string>();
  addAdapter(name: string): Promise<void> {
    if (this.#adapters.has(name)) return Promise.reject(new OatmillError("conflict", `"${name}" is taken`));
    this.#adapters.add(name);
    return Promise.resolve();
  }
  removeAdapter(name: string): Promise<void> {
    if (this.#adapters.delete(name)) return Promise.resolve();
    return Promise.reject(new OatmillError("model_not_found", `There is no adapter "${name}"`));
  }
  adapters(): readonly string[] {
    return [...this.#adapters];
  }

  vector(_name: string): Float32Array | null {
    return null;
  }

  stats(): EngineStats {
    return {
      running: this.running,
      waiting: 0,
      kvBlocksUsed: this.running,
      kvBlocksTotal: 8,
      kvBlocksCached: 0,
      prefixQueries: 0,
      prefixHits: 0,
      prefixTokens: 0,
      draftedTokens: 0,
      acceptedTokens: 0,
      threads: 1,
      memoryBytes: 1024,
      stepsTotal: 0,
      batchTokens: 0,
    };
  }
  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

/** Bytes are tokens; BOS first. */
export const byteTokenizer: Tokenizer = {
  vocabSize: VOCAB,
  longestToken: 4,
  hasChatTemplate: true,
  toolSupport: "none",
  eosIds: [EOS],
  encode: (text, o) => [...o?.addSpecialTokens === false ? [] : [BOS], ...encoder.encode(text)],
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids.filter((id) => id < 256))),
  stream() {
    const decoder = new TextDecoder();
    return {
      push: (id) => id < 256 ? decoder.decode(Uint8Array.of(id), { stream: true }) : "",
      end: () => decoder.decode(),
    };
  },
  tokenText: (id) => id < 256 ? String.fromCharCode(id) : id === BOS ? "<s>" : "</s>",
  tokenBytes: (id) => id < 256 ? Uint8Array.of(id) : encoder.encode(id === BOS ? "<s>" : "</s>"),
  isSpecial: (id) => id >= 256,
  tokenId: (text) => text.length === 1 ? text.charCodeAt(0) : null,
  renderChat: (messages: ChatMessage[]) =>
    messages.map((m) => `${m.role}: ${m.content}\n`).join("") + "assistant:",
};
