/** What the engine is asked for and what it answers; plain data, so that it crosses worker borders. */
import type { KvFormat } from "../kernels/kv_layout.ts";
import type { TokenInput } from "../models/classifier.ts";
import type { ImageRows } from "../models/image_input.ts";
import type { LoraAdapter } from "../models/adapter.ts";
import type { GrammarRequest } from "./grammar/grammars.ts";
import type { TuningOptions } from "./tuning.ts";
import type { LoadTimes } from "./load_times.ts";

export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 = all. */
  readonly topK: number;
  readonly minP: number;
  readonly repeatPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
  readonly seed: number;
}
export const GREEDY: SamplingOptions = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: [],
  seed: 0,
};

export interface GenerateRequest {
  readonly promptIds: readonly number[];
  /** Most tokens to produce (>= 0). */
  readonly maxTokens: number;
  /** Tokens that end the generation (not emitted). */
  readonly stopIds: readonly number[];
  readonly sampling: SamplingOptions;
  /** How many top log-probabilities to report per token; null = none at all, 0 = the chosen token's only. */
  readonly logprobs: number | null;
  /** Also report the prompt tokens' log-probabilities (echo). */
  readonly promptLogprobs?: boolean;
  /** What the text must follow, to its end (a stop token) or to `maxTokens`. */
  readonly grammar?: GrammarRequest;
  /** Name of the LoRA adapter that the sequence goes through; absent: none. */
  readonly adapter?: string;
}

export interface TokenLogprobs {
  readonly logprob: number;
  readonly top: readonly (readonly [token: number, logprob: number])[];
}

export type GenerateEvent =
  | {
    readonly type: "prompt";
    readonly promptTokens: number;
    readonly cachedTokens: number;
    readonly logprobs: readonly (TokenLogprobs | null)[] | null;
  }
  | { readonly type: "token"; readonly token: number; readonly logprobs: TokenLogprobs | null }
  | { readonly type: "end"; readonly reason: "stop" | "length"; readonly timings: Timings };

export interface Timings {
  readonly queueMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly kvBlocksUsed: number;
  readonly kvBlocksTotal: number;
  /** KV blocks that nobody uses now, kept for prompts that begin alike. */
  readonly kvBlocksCached: number;
  /** Since the model was loaded: prompts looked for in the prefix cache, prompts it knew some of, tokens it saved. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  readonly prefixTokens: number;
  /** Since the model was loaded: tokens computed on trial, and those of them that were right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly threads: number;
  readonly memoryBytes: number;
  readonly stepsTotal: number;
  /** Tokens in the last step. */
  readonly batchTokens: number;
}

export interface MeasureOptions {
  /** First position whose prediction is asked for. */
  readonly from?: number;
  /** Name of a LoRA adapter. */
  readonly adapter?: string;
  readonly signal?: AbortSignal;
}

/** A loaded model that generates, or an encoder, which only encodes. Created by `loadEngine()` in engine/engine.ts; calls are safe from the HTTP thread. */
export interface Engine {
  readonly contextLength: number;
  readonly vocabSize: number;
  /** Why nothing can run any more (a thread died); null or absent: it runs. */
  readonly failure?: string | null;
  /**
   * Yields one "prompt" event, the tokens, one "end" event. Aborting the signal or leaving the loop frees everything
   * within one step.
   * @throws {OatmillError} context_length_exceeded, rate_limit_exceeded (queue full), queue_timeout, unavailable (closed), invalid_request
   * when the grammar cannot be compiled, model_not_found when the adapter is unknown
   */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<GenerateEvent>;
  /**
   * Negative log-likelihood of ids[from + 1..] given all that stands before each: `[ids.length - 1 - from]`, natural log.
   * The last id is not computed, so one more than the context window may come; what stands before `from` may come from
   * the prefix cache.
   * @param options.from default 0: all that have something before them
   */
  score(ids: readonly number[], options?: MeasureOptions): Promise<Float32Array>;
  /**
   * Logits after ids[from..], `[(ids.length - from) x vocab]`.
   * @param options.from default: the last id alone
   */
  logits(ids: readonly number[], options?: MeasureOptions): Promise<Float32Array>;
  /**
   * An encoder's hidden states after the final norm (of a model that has one for them), `[tokens or patches x hidden]`.
   * @throws {OatmillError} invalid_request when the model is no encoder or reads something else, context_length_exceeded
   */
  encode(input: readonly number[] | TokenInput | ImageRows, signal?: AbortSignal): Promise<Float32Array>;
  /** A vector of the model by its name, `[n]` or a matrix's rows one after the other; null: it has none. Not to be changed. */
  vector(name: string): Float32Array | null;
  /**
   * Makes a LoRA adapter known by a name, beside what runs: requests that give the name go through it, in the same steps as
   * those of other adapters and of none. It is stored as the model's weights are (f32 beside f32 ones, else 8 bits), in
   * memory that grows by it; what `removeAdapter()` frees is used again.
   * @throws {OatmillError} conflict when the name is taken or there are too many, insufficient_memory (`adapterBytes`, the
   * memory's or the machine's limit), invalid_request when a layer is not the model's (experts take none), has another shape or rank,
   * or the model is no decoder, non_finite_weights
   */
  addAdapter(name: string, adapter: LoraAdapter): Promise<void>;
  /**
   * New requests no longer find the adapter; those that use it go on to their ends.
   * @returns when the last of them has ended and the adapter's memory is free
   * @throws {OatmillError} model_not_found
   */
  removeAdapter(name: string): Promise<void>;
  /** Names of the adapters. */
  adapters(): readonly string[];
  stats(): EngineStats;
  close(): Promise<void>;
}

export interface EngineOptions {
  /** Compute threads; default: the machine's cores. */
  readonly threads?: number;
  /** Most sequences in one step. */
  readonly maxSequences?: number;
  /** Tokens of KV cache over all sequences; default: enough for maxSequences, at most 1 GiB or one context, and what fits. */
  readonly kvTokens?: number;
  /** How keys and values are stored; default: int8 beside quantised weights, f32 beside f32 ones (the exact path). */
  readonly kvFormat?: KvFormat;
  /** Most waiting requests. */
  readonly maxWaiting?: number;
  /** Requests that wait longer for their first step are refused (`queue_timeout`); default, and 0: never. */
  readonly maxWaitMs?: number;
  /** Cap on the context window. */
  readonly contextLength?: number;
  /** Let prompts that begin alike share KV blocks; default true. Results are the same. */
  readonly prefixCache?: boolean;
  /** Try tokens that a text's own repetitions suggest, several a step; default true. Results are the same. */
  readonly speculation?: boolean;
  /** Which variants of the kernels run; default: those that are faster here, measured once a process. */
  readonly tuning?: TuningOptions;
  /** Most bytes of one WebAssembly memory; default (and most): what 32-bit addresses reach. */
  readonly memoryLimitBytes?: number;
  /** Most bytes of all LoRA adapters together; default: 1 GiB. */
  readonly adapterBytes?: number;
  /** Takes the times of the load. */
  readonly times?: LoadTimes;
  /** Work for this thread while the compute threads come up and read the weights; what it throws ends the load. */
  readonly meanwhile?: () => void | Promise<void>;
}
