/**
 * What LoRA adapters cost: one engine on one model, with random adapters on every layer, does the same work through none, one
 * and several of them, turn by turn; ratios are medians of the rounds' ratios.
 */
import { openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import { LINEAR_NAMES, linearShapes } from "../models/spec.ts";
import { syntheticAdapter } from "../models/synthetic_adapter.ts";
import { withinContext } from "./engine.ts";
import { type Figures, ratios, summarise } from "./figures.ts";
import { formatOf, OwnEngine } from "./own_engine.ts";
import type { Spread } from "./spread.ts";
import { takeTurns, type TurnOptions, type Work } from "./take_turns.ts";

export interface BenchAdaptersOptions
  extends Pick<OpenModelOptions, "values" | "threads" | "kvFormat" | "tuning">, TurnOptions {
  /** Most adapters at once. */
  readonly adapters: number;
  readonly rank: number;
}

/** Tokens per second through so many adapters, medians. */
export interface AdaptersRow {
  readonly adapters: number;
  readonly tokens_per_second: Figures<Work>;
  /** Speed divided by that of the model alone in the same round: medians. */
  readonly ratio: Figures<Work>;
  readonly ratio_spread: Readonly<Record<Work, Spread>>;
}
export interface BenchAdaptersReport {
  readonly model: string;
  readonly format: string;
  readonly threads: number;
  readonly rank: number;
  /** Layers that each adapter adds to. */
  readonly layers: number;
  readonly prompt_tokens: number;
  readonly decode_tokens: number;
  /** Generations at once: those of several adapters share them. */
  readonly streams: number;
  readonly repeats: number;
  /** By which the model's memory has grown. */
  readonly adapter_bytes: number;
  readonly rows: readonly AdaptersRow[];
}

/** @throws {OatmillError} invalid_request when the model is no decoder, insufficient_memory */
export async function benchAdapters(
  path: string,
  wanted: BenchAdaptersOptions,
): Promise<BenchAdaptersReport> {
  const { values, threads, kvFormat, tuning, streams, repeats, rank, adapters: most } = wanted;
  const maxSequences = Math.max(1, streams);
  const model = await openModel(path, {
    values,
    threads,
    kvFormat,
    tuning,
    maxSequences,
    speculation: false, // as for peers
    prefixCache: false, // contenders of one engine ask the same prompts
  });
  const { engine, spec } = model;
  try {
    if (!spec.attention.causal) {
      throw new OatmillError("invalid_request", `Cannot measure adapters: "${path}" is no decoder`);
    }
    const options = withinContext(wanted, engine.contextLength), before = engine.stats().memoryBytes;
    const kinds = LINEAR_NAMES.filter((kind) => linearShapes(spec)[kind]);
    const names = Array.from({ length: most }, (_, i) => `a${i}`);
    for (const [seed, name] of names.entries()) {
      await engine.addAdapter(name, syntheticAdapter(spec, { kinds, rank, seed, size: 0.1 }));
    }
    const counts = [...new Set([0, 1, most])], format = formatOf(model, values);
    const contenders = counts.map((n) => new OwnEngine(`${n} adapters`, format, engine, names.slice(0, n)));
    const [none, ...others] = await takeTurns(contenders, options);
    const rows = [none, ...others].map((rounds, i): AdaptersRow => {
      const ratio = ratios(rounds, none);
      return {
        adapters: counts[i],
        tokens_per_second: summarise(rounds).median,
        ratio: ratio.median,
        ratio_spread: ratio.spread,
      };
    });
    return {
      model: path,
      format,
      threads: engine.stats().threads,
      rank,
      layers: kinds.length * spec.blocks,
      prompt_tokens: options.promptTokens,
      decode_tokens: options.decodeTokens,
      streams,
      repeats,
      adapter_bytes: engine.stats().memoryBytes - before,
      rows,
    };
  } finally {
    await engine.close();
  }
}
