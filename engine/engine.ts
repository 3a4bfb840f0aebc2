/**
 * The engine as the HTTP thread sees it: loads a packed model into shared memory, starts the compute threads, and turns
 * their messages into promises and event streams.
 */
import { OatmillError } from "../errors.ts";
import { createMemory, loadKernelModules, probeEncoding, writeConstants } from "../kernels/load.ts";
import { ATTENTION_MODULES } from "../kernels/manifest.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { TokenInput } from "../models/classifier.ts";
import type { ImageRows } from "../models/image_input.ts";
import type { LoraAdapter } from "../models/adapter.ts";
import type { PackedModel } from "../models/packed.ts";
import { buildPlan } from "../models/build_plan.ts";
import { readsTokens } from "../models/spec.ts";
import { Adapters, type AdaptersOptions } from "./adapters.ts";
import { availableMemory, defaultKvFormat, planCapacity } from "./capacity.ts";
import { ComputeThreads } from "./compute_threads.ts";
import { Grammars } from "./grammar/grammars.ts";
import { adviseHugePages } from "./huge_pages.ts";
import { LoadTimes } from "./load_times.ts";
import { weightsEnd } from "./segment_map.ts";
import { fillRope, ropeRows } from "./rope_tables.ts";
import type { SchedulerOptions } from "./scheduler.ts";
import { SharedStats } from "./shared_stats.ts";
import {
  type Engine,
  type EngineOptions,
  type EngineStats,
  type GenerateEvent,
  type GenerateRequest,
  GREEDY,
  type MeasureOptions,
} from "./types.ts";
import { chooseKernels } from "./tuning.ts";
import { fillWeights } from "./weights_reader.ts";
import type { FromWorker, ToLeader, WorkEvent, WorkKind, WorkRequest } from "./worker_messages.ts";

/** Rows of a step: prompts go in chunks of this many tokens (weights are read once a chunk). */
const MAX_ROWS = 256;
/** Most tokens or patches of an encoder's input: every one sees all others, so all are rows of one step. */
const ENCODER_ROWS = 4096;
const DEFAULT_SEQUENCES = 16;
const DEFAULT_WAITING = 256;

/**
 * Loads a model and starts its threads.
 * @throws {OatmillError} too_large when a part of the model does not fit into a memory, insufficient_memory when the
 * machine cannot hold it, what the model's `load()` throws
 */
export async function loadEngine(model: PackedModel, options: EngineOptions = {}): Promise<Engine> {
  const pool = new ComputeThreads(options.threads ?? navigator.hardwareConcurrency);
  try {
    return await loadInto(pool, model, options);
  } catch (error) {
    pool.terminate();
    throw error;
  }
}

async function loadInto(pool: ComputeThreads, model: PackedModel, options: EngineOptions): Promise<Engine> {
  const { spec } = model;
  const { times = new LoadTimes() } = options;
  const up = times.time("threads", () => pool.up);
  up.catch(() => {}); // awaited below
  const threads = pool.workers.length;
  const encoder = !spec.attention.causal;
  // One input of an encoder a step: 200 tokens use the kernels' batches as well as more would.
  const maxSequences = encoder ? 1 : options.maxSequences ?? DEFAULT_SEQUENCES;
  const maxRows = encoder
    ? Math.min(ENCODER_ROWS, spec.contextLength, options.contextLength ?? ENCODER_ROWS)
    : MAX_ROWS;
  const { kvFormat = defaultKvFormat(model) } = options;
  const plan = buildPlan(model);
  const { map, memoryBytes, contextLength, kvBlocks } = planCapacity(model, plan, {
    ...options,
    ...encoder ? { contextLength: maxRows } : {},
    threads,
    maxRows,
    maxSequences,
    kvFormat,
    availableBytes: availableMemory(),
  });
  const places = new Map<string, Uint8Array>();
  const memories = map.segments.map((segment) => {
    const memory = createMemory(segment.bytes);
    adviseHugePages(memory, weightsEnd(segment));
    for (const { address, entry } of Object.values(segment.tensors)) {
      places.set(entry.name, new Uint8Array(memory.buffer, address, entry.bytes));
    }
    return memory;
  });
  const filled = fillWeights(model, pool, { times, destination: ({ name }) => places.get(name)! });
  filled.catch(() => {}); // awaited below
  await options.meanwhile?.();
  const modules = await times.time(
    "kernels",
    async () =>
      await loadKernelModules(
        ["base", ATTENTION_MODULES[kvFormat].name, ...plan.modules],
        await chooseKernels(model.tensors, options.tuning),
      ),
  );
  const encoding = await probeEncoding();
  await times.time("tables", () =>
    map.segments.forEach((segment, i) => {
      writeConstants(memories[i], segment.consts, encoding);
      fillRope(memories[i], segment, spec, contextLength);
    }));
  await Promise.all([up, filled]);

  const scheduler: SchedulerOptions = {
    maxSequences,
    maxRows,
    kvBlocks,
    contextLength,
    maxWaiting: options.maxWaiting ?? DEFAULT_WAITING,
    // What an encoder stores of a token depends on what follows it.
    prefixCache: !encoder && (options.prefixCache ?? true),
    longBeyond: ropeRows(spec, contextLength).beyond,
  };
  const stats = new SharedStats();
  const init = {
    type: "init",
    modules,
    memories,
    encoding,
    plan,
    map,
    spec,
    blockChunks: model.blockChunks,
    threads,
    scheduler,
    speculation: options.speculation ?? true,
    stats: stats.buffer,
    maxWaitMs: options.maxWaitMs || Infinity,
  } as const;
  await times.time("ready", () => pool.ask((thread) => ({ ...init, thread })));
  times.end({ bytes: model.tensors.reduce((n, t) => n + t.bytes, 0), parallel: Boolean(model.file) });
  return new EngineHandle(pool.workers, {
    contextLength,
    vocabSize: spec.vocabSize,
    encoder,
    images: !readsTokens(spec),
    vectors: vectorsIn(places, model.tensors),
    threads,
    memoryBytes,
    stats,
    adapters: {
      plan: plan.adapters,
      segments: map.segments,
      memories,
      bytes: options.adapterBytes,
      memoryLimitBytes: options.memoryLimitBytes,
      availableBytes: availableMemory,
    },
  });
}

/** Views of the tensors that are plain floats. */
function vectorsIn(
  places: ReadonlyMap<string, Uint8Array>,
  tensors: readonly TensorEntry[],
): ReadonlyMap<string, Float32Array> {
  const plain = tensors.filter(({ format }) => format.kind === "vector");
  return new Map(plain.map(({ name, bytes }) => {
    const { buffer, byteOffset } = places.get(name)!;
    return [name, new Float32Array(buffer, byteOffset, bytes / 4)];
  }));
}

/**
 * Most that a generation may be ahead of whoever reads it, in tokens and the alternatives reported with them: about 6 MB.
 * A whole answer without log-probabilities fits in most context windows, so that a slow reader holds memory and no KV block.
 */
const MOST_UNREAD = 2 ** 16;
const TOO_SLOW = "The answer was read too slowly: its generation was ended";

/** What a waiting caller hears. */
type Listener = (e: WorkEvent) => void;

class EngineHandle implements Engine {
  readonly contextLength: number;
  readonly vocabSize: number;
  readonly #encoder: boolean;
  readonly #images: boolean;
  readonly #vectors: ReadonlyMap<string, Float32Array>;
  readonly #workers: readonly Worker[];
  readonly #listeners = new Map<number, Listener>();
  readonly #fixed: Pick<EngineStats, "threads" | "memoryBytes">;
  readonly #stats: SharedStats;
  readonly #grammars: Grammars;
  readonly #adapters: Adapters;
  #nextId = 1;
  #closed: Promise<void> | null = null;
  /** Set when a thread died: nothing can run any more. */
  #failure: string | null = null;

  constructor(
    workers: readonly Worker[],
    o: {
      contextLength: number;
      vocabSize: number;
      encoder: boolean;
      images: boolean;
      vectors: ReadonlyMap<string, Float32Array>;
      threads: number;
      memoryBytes: number;
      stats: SharedStats;
      adapters: Omit<AdaptersOptions, "drop">;
    },
  ) {
    this.#workers = workers;
    this.contextLength = o.contextLength;
    this.vocabSize = o.vocabSize;
    this.#encoder = o.encoder;
    this.#images = o.images;
    this.#vectors = o.vectors;
    this.#fixed = { threads: o.threads, memoryBytes: o.memoryBytes };
    this.#stats = o.stats;
    this.#grammars = new Grammars(o.vocabSize);
    this.#adapters = new Adapters({ ...o.adapters, drop: (slot) => this.#post({ type: "drop", slot }) });
    workers[0].onmessage = (e: MessageEvent<FromWorker>) => {
      if (e.data.type === "events") {
        for (const event of e.data.events) this.#listeners.get(event.id)?.(event);
      } else if (e.data.type === "dropped") this.#adapters.dropped(e.data.slot);
    };
    for (const w of workers) {
      w.onerror = (e) => {
        e.preventDefault();
        this.#failure = `A compute thread failed: ${e.message}`;
        this.#fail(this.#failure);
      };
    }
  }

  async *generate(request: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GenerateEvent> {
    this.#check("generate", request.promptIds, request.maxTokens > 0 ? 1 : 0);
    if (request.adapter !== undefined) this.#adapters.use(request.adapter);
    const { grammar, ...plain } = request; // the leader knows its masks alone
    if (!grammar) return yield* this.#generate(plain, signal);
    using masks = await this.#grammars.open(grammar);
    this.#check("generate", request.promptIds, 0); // it may have been closed meanwhile
    yield* this.#generate({ ...plain, masks: masks.buffer }, signal);
  }

  async *#generate(
    request: Omit<GenerateRequest, "grammar"> & Pick<WorkRequest, "masks">,
    signal?: AbortSignal,
  ): AsyncGenerator<GenerateEvent> {
    const queue: WorkEvent[] = [];
    let wake = () => {}, unread = 0;
    const id = this.#start("generate", request, (e) => {
      queue.push(e);
      unread += sizeOf(e);
      if (unread > MOST_UNREAD) {
        this.#listeners.delete(id);
        queue.push({ id, error: { code: "request_timeout", message: TOO_SLOW } }); // for when it gets there
        this.#post({ type: "cancel", id });
      }
      wake();
    });
    const onAbort = () => wake();
    signal?.addEventListener("abort", onAbort);
    let ended = false;
    try {
      while (!ended) {
        if (signal?.aborted) throw cancelled(signal);
        if (queue.length === 0) {
          await new Promise<void>((resolve) => wake = resolve);
          continue;
        }
        for (const e of queue.splice(0)) {
          if ("error" in e) {
            ended = true;
            throw new OatmillError(e.error.code, e.error.message);
          }
          if (!("event" in e)) continue;
          ended = e.event.type === "end";
          yield e.event;
          unread -= sizeOf(e);
          if (signal?.aborted) throw cancelled(signal);
        }
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#listeners.delete(id);
      if (!ended) this.#post({ type: "cancel", id });
    }
  }

  async score(
    ids: readonly number[],
    { from = 0, adapter, signal }: MeasureOptions = {},
  ): Promise<Float32Array> {
    this.#check("score", ids, -1);
    if (adapter !== undefined) this.#adapters.use(adapter);
    if (ids.length === 1) return new Float32Array();
    // The last id is only looked up in what its predecessor says.
    return await this.#values("score", { ids, rows: ids.length - 1, from, adapter }, signal);
  }

  async logits(
    ids: readonly number[],
    { from = ids.length - 1, adapter, signal }: MeasureOptions = {},
  ): Promise<Float32Array> {
    this.#check("logits", ids, 0);
    return await this.#values("logits", { ids, rows: ids.length, from, adapter }, signal);
  }

  async encode(input: Parameters<Engine["encode"]>[0], signal?: AbortSignal): Promise<Float32Array> {
    if ("patches" in input) return await this.#encodeImage(input, signal);
    const { ids, types }: TokenInput = "ids" in input ? input : { ids: input };
    this.#check("encode", ids, 0);
    return await this.#values("encode", { ids, rows: ids.length, from: 0, types }, signal);
  }

  async #encodeImage(image: ImageRows, signal?: AbortSignal): Promise<Float32Array> {
    const { rows } = image;
    this.#checkKind("encode", "images");
    if (rows > this.contextLength) {
      throw new OatmillError(
        "context_length_exceeded",
        `The image has ${rows} patches and tokens, the model takes ${this.contextLength}: make it smaller`,
        "image",
      );
    }
    const ids = new Array<number>(rows).fill(0);
    return await this.#values("encode", { ids, rows, from: 0, image }, signal);
  }

  vector(name: string): Float32Array | null {
    return this.#vectors.get(name) ?? null;
  }

  get failure(): string | null {
    return this.#failure;
  }

  async addAdapter(name: string, adapter: LoraAdapter): Promise<void> {
    this.#checkRuns();
    await this.#adapters.add(name, adapter);
  }
  async removeAdapter(name: string): Promise<void> {
    await this.#adapters.remove(name);
  }
  adapters(): readonly string[] {
    return this.#adapters.names();
  }

  stats(): EngineStats {
    const { threads, memoryBytes } = this.#fixed;
    return { ...this.#stats.read(), threads, memoryBytes: memoryBytes + this.#adapters.grownBytes };
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#fail("The engine was closed");
    this.#grammars.close();
    const leader = this.#workers[0];
    // After a thread's death the leader may never answer.
    if (this.#failure === null) {
      await new Promise<void>((resolve) => {
        for (const w of this.#workers) {
          w.onerror = (e) => {
            e.preventDefault();
            resolve();
          };
        }
        leader.onmessage = (e: MessageEvent<FromWorker>) => {
          if (e.data.type === "closed") resolve();
        };
        this.#post({ type: "close" });
      });
    }
    // Helpers leave their loop by themselves; terminate() makes sure that nothing outlives close().
    for (const w of this.#workers) w.terminate();
  }

  async #values(
    kind: Exclude<WorkKind, "generate">,
    { ids, rows, from, ...input }:
      & { readonly ids: readonly number[]; readonly rows: number; readonly from: number }
      & Pick<WorkRequest, "types" | "image">
      & Pick<MeasureOptions, "adapter">,
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    if (!(Number.isInteger(from) && from >= 0 && from < Math.max(rows, 1))) {
      throw new RangeError(`Cannot begin at position ${from}: there are ${rows}`);
    }
    return await new Promise((resolve, reject) => {
      const done = (act: () => void) => {
        signal?.removeEventListener("abort", onAbort);
        this.#listeners.delete(id);
        act();
      };
      const request = {
        promptIds: ids,
        maxTokens: 0,
        stopIds: [],
        sampling: GREEDY,
        logprobs: null,
        measure: { rows, from },
        ...input,
      };
      const id = this.#start(kind, request, (e) => {
        if ("values" in e) done(() => resolve(e.values));
        if ("error" in e) done(() => reject(new OatmillError(e.error.code, e.error.message)));
      });
      const onAbort = () =>
        done(() => {
          this.#post({ type: "cancel", id });
          reject(cancelled(signal!));
        });
      signal?.addEventListener("abort", onAbort);
      if (signal?.aborted) onAbort();
    });
  }

  #checkRuns(): void {
    if (this.#failure !== null) throw new OatmillError("unavailable", this.#failure);
    if (this.#closed) throw new OatmillError("unavailable", "The engine is closed");
  }

  /** Whether it runs, and the model is of the kind that is asked. */
  #checkKind(kind: WorkKind, given: "images" | "text"): void {
    this.#checkRuns();
    if ((kind === "encode") !== this.#encoder) {
      throw new OatmillError(
        "invalid_request",
        this.#encoder
          ? "The model is an encoder: it has hidden states and no next token"
          : "The model is a decoder: it has no hidden states to give",
        "model",
      );
    }
    const reads = this.#images ? "images" : "text";
    if (given !== reads) {
      throw new OatmillError("invalid_request", `The model reads ${reads}, not ${given}`, "input");
    }
  }

  #check(kind: WorkKind, ids: readonly number[], room: number): void {
    this.#checkKind(kind, "text");
    if (ids.length === 0) throw new OatmillError("invalid_request", "The prompt has no tokens", "prompt");
    if (ids.length + room > this.contextLength) {
      throw new OatmillError(
        "context_length_exceeded",
        `The prompt has ${ids.length} tokens, the model's context window holds ${this.contextLength}`,
        "prompt",
      );
    }
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabSize) {
        throw new OatmillError(
          "invalid_request",
          `Token id ${id} is outside the vocabulary of ${this.vocabSize}`,
          "prompt",
        );
      }
    }
  }

  /** @throws {OatmillError} model_not_found when there is no such adapter */
  #start(
    kind: WorkKind,
    { adapter: name, ...request }: Omit<WorkRequest, "adapter"> & Pick<GenerateRequest, "adapter">,
    listener: Listener,
  ): number {
    const adapter = name === undefined ? null : this.#adapters.use(name);
    const id = this.#nextId++;
    this.#listeners.set(id, listener);
    this.#post({ type: "add", id, kind, request: { ...request, adapter } });
    return id;
  }

  #post(m: ToLeader): void {
    this.#workers[0].postMessage(m);
  }

  /** Ends every request with an error. */
  #fail(message: string): void {
    this.#adapters.close();
    for (const [id, listener] of [...this.#listeners]) {
      listener({ id, error: { code: "unavailable", message } });
    }
  }
}

/** In tokens and alternatives; the prompt's are there once. */
const sizeOf = (e: WorkEvent): number =>
  "event" in e && e.event.type === "token" ? 1 + (e.event.logprobs?.top.length ?? 0) : 0;

function cancelled(signal: AbortSignal): OatmillError {
  return new OatmillError("cancelled", "The request was cancelled", null, { cause: signal.reason });
}
