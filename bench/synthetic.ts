/**
 * Speed of a real model's shape with random weights: the recipe that is asked for against others of the same shape, round
 * by round (A B A B ...) in one session. The layers are stored as compression would store them.
 */
import type { KvFormat } from "../kernels/kv_layout.ts";
import { loadEngine } from "../engine/engine.ts";
import { OatmillError } from "../errors.ts";
import { chooseBlockChunks, factorKind, storedParts } from "../compress/stored_parts.ts";
import type { WeightFormat } from "../kernels/layout.ts";
import { DENSE_BLOCK_CHUNKS, type DenseValues } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import { syntheticModel } from "../models/synthetic.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { DECODE_PROMPT } from "./contender.ts";
import { type Figures, ratios, summarise, type Summary } from "./figures.ts";
import { OwnEngine } from "./own_engine.ts";
import type { Rival } from "./rivals.ts";

export interface BenchSyntheticOptions {
  readonly shape: SyntheticShape;
  /** ρ of each model that is asked for; 0 is a dense one. */
  readonly rates: readonly number[];
  readonly rankRatio: number;
  readonly values: DenseValues;
  readonly against: readonly Rival[];
  readonly threads?: number;
  readonly kvFormat?: KvFormat;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  /** Where a decode ends; null: as soon as it may. */
  readonly context: number | null;
  readonly streams: number;
  readonly repeats: number;
  /** Packed bytes that may be loaded at once; more are loaded anew for every round. */
  readonly memoryBytes: number;
  readonly onProgress?: (done: number, total: number, what: string) => void;
}

export type SyntheticFigure =
  | "prefill_tokens_per_second"
  | "decode_tokens_per_second"
  | "streams_tokens_per_second";

export interface SyntheticModelReport extends Summary<SyntheticFigure> {
  /** As in "oats 0.5 int4". */
  readonly name: string;
  readonly packed_bytes: number;
  /** Growth of the process by loading it and running its first prompt. */
  readonly memory_bytes: number;
  readonly load_ms: number;
  /** This model's speed divided by that of each rival. */
  readonly ratios: Readonly<Record<string, Summary<SyntheticFigure>>>;
}

export interface BenchSyntheticReport {
  readonly shape: SyntheticShape;
  readonly threads: number;
  readonly prompt_tokens: number;
  readonly decode_tokens: number;
  readonly context: number | null;
  readonly streams: number;
  readonly repeats: number;
  readonly models: readonly SyntheticModelReport[];
}

/** @param rate ρ, uniform over the layers; 0 with method `none` */
function compressed(
  shape: SyntheticShape,
  recipe: { method: "none" | "wanda" | "oats"; rate: number; rank_ratio: number; values: DenseValues },
): PackedModel {
  const spec = SYNTHETIC_SPECS[shape];
  const dense = recipe.method === "none";
  const blockChunks = dense ? DENSE_BLOCK_CHUNKS : chooseBlockChunks(spec);
  const table: WeightFormat = { kind: factorKind(recipe) };
  const name = dense ? `dense ${recipe.values}` : `${recipe.method} ${recipe.rate} ${recipe.values}`;
  return syntheticModel(name, spec, {
    blockChunks,
    parts: (size) =>
      storedParts(size, recipe.rate, { recipe: { ...recipe, pattern: "windows" }, blockChunks }),
    table,
    inputScales: !dense && recipe.values !== "f32",
  });
}

function asked(rate: number, { shape, rankRatio, values }: BenchSyntheticOptions): PackedModel {
  return compressed(shape, { method: rate === 0 ? "none" : "oats", rate, rank_ratio: rankRatio, values });
}

/** Models to compare with; Wanda at every rate. */
function rivals({ shape, against, rates, values }: BenchSyntheticOptions): PackedModel[] {
  return against.flatMap((rival) =>
    rival === "wanda"
      ? rates.filter((rate) => rate > 0).map((rate) =>
        compressed(shape, { method: "wanda", rate, rank_ratio: 0, values })
      )
      : [compressed(shape, {
        method: "none",
        rate: 0,
        rank_ratio: 0,
        values: rival.slice("dense-".length) as DenseValues,
      })]
  );
}

/** A model that may be loaded several times, and what its rounds measured. */
class Entrant {
  readonly rounds: Figures<SyntheticFigure>[] = [];
  readonly packedBytes: number;
  memoryBytes = 0;
  loadMs = 0;
  #engine: OwnEngine | null = null;

  constructor(readonly model: PackedModel, readonly options: BenchSyntheticOptions) {
    this.packedBytes = model.tensors.reduce((n, t) => n + t.bytes, 0);
  }

  async open(): Promise<OwnEngine> {
    if (this.#engine) return this.#engine;
    const { promptTokens, threads, kvFormat, streams } = this.options;
    const before = Deno.memoryUsage().rss, start = performance.now();
    const tokens = this.#contextLength();
    const engine = await loadEngine(this.model, {
      threads,
      kvFormat,
      // Text that a random model makes soon repeats itself: drafts would come true as they never do.
      speculation: false,
      contextLength: tokens,
      maxSequences: Math.max(1, streams),
      kvTokens: tokens + streams * (DECODE_PROMPT + this.options.decodeTokens + 16),
    });
    this.#engine = new OwnEngine("oatmill", this.model.name, engine);
    if (this.loadMs === 0) {
      this.loadMs = performance.now() - start;
      await this.#engine.prefill(promptTokens);
      this.memoryBytes = Deno.memoryUsage().rss - before;
    }
    return this.#engine;
  }

  #contextLength(): number {
    const { promptTokens, decodeTokens, context } = this.options;
    return Math.max(promptTokens + 1, DECODE_PROMPT + decodeTokens, context ?? 0);
  }

  /** Everything once. */
  async round(): Promise<Figures<SyntheticFigure>> {
    const { promptTokens, decodeTokens, streams, context } = this.options;
    const engine = await this.open();
    return {
      prefill_tokens_per_second: await engine.prefill(promptTokens),
      decode_tokens_per_second: await engine.decode(
        decodeTokens,
        context === null ? undefined : context - decodeTokens,
      ),
      streams_tokens_per_second: await engine.streams(streams, decodeTokens),
    };
  }

  async close(): Promise<void> {
    await this.#engine?.close();
    this.#engine = null;
  }
}

/**
 * Measures.
 * @throws {OatmillError} invalid_request when the shape has no such context, too_large when a model does not fit into the engine's memory
 */
export async function benchSynthetic(wanted: BenchSyntheticOptions): Promise<BenchSyntheticReport> {
  const options = withinContext(wanted);
  const mine = options.rates.map((rate) => new Entrant(asked(rate, options), options));
  const others = rivals(options).map((model) => new Entrant(model, options));
  const all = [...mine, ...others];
  const together = all.reduce((n, e) => n + e.packedBytes, 0) <= options.memoryBytes;
  try {
    await takeRounds(all, { ...options, together });
    return {
      shape: options.shape,
      threads: options.threads ?? navigator.hardwareConcurrency,
      prompt_tokens: options.promptTokens,
      decode_tokens: options.decodeTokens,
      context: options.context,
      streams: options.streams,
      repeats: options.repeats,
      models: all.map((e) => ({
        name: e.model.name,
        packed_bytes: e.packedBytes,
        memory_bytes: e.memoryBytes,
        load_ms: e.loadMs,
        ...summarise(e.rounds),
        ratios: mine.includes(e)
          ? Object.fromEntries(others.map((o) => [o.model.name, ratios(e.rounds, o.rounds)]))
          : {},
      })),
    };
  } finally {
    await Promise.all(all.map((e) => e.close()));
  }
}

/** Prompts and decodes as long as the shape allows. */
function withinContext(options: BenchSyntheticOptions): BenchSyntheticOptions {
  const { contextLength } = SYNTHETIC_SPECS[options.shape];
  const context = options.context ?? contextLength;
  if (context > contextLength || context <= options.decodeTokens) {
    throw new OatmillError(
      "invalid_request",
      `Cannot decode ${options.decodeTokens} tokens up to ${context}: "${options.shape}" has a context of ${contextLength}`,
    );
  }
  return {
    ...options,
    promptTokens: Math.min(options.promptTokens, contextLength - 1),
  };
}

/** One round warms up and is not counted. */
async function takeRounds(
  all: readonly Entrant[],
  options: BenchSyntheticOptions & { readonly together: boolean },
): Promise<void> {
  const total = (options.repeats + 1) * all.length;
  for (let round = 0, done = 0; round <= options.repeats; round++) {
    for (const entrant of all) {
      const figures = await entrant.round();
      if (round > 0) entrant.rounds.push(figures);
      if (!options.together) await entrant.close();
      options.onProgress?.(++done, total, entrant.model.name);
    }
  }
}
