/**
 * Speed of a real model's shape with random weights: the recipe that is asked for against others of the same shape, round
 * by round (A B A B ...) in one session. The layers are stored as compression would store them.
 */
import { OatmillError } from "../errors.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import {
  type Entrant,
  onnxEntrant,
  ownEntrant,
  type RoundOptions,
  type Runner,
} from "./_synthetic_entrants.ts";
import { askedModels, type RecipeOptions, rivalModels } from "./_synthetic_models.ts";
import { type Figures, ratios, summarise, type Summary } from "./figures.ts";

export interface BenchSyntheticOptions extends RecipeOptions, Omit<RoundOptions, "threads" | "promptTokens"> {
  /** Default: the machine's cores. */
  readonly threads?: number;
  /** Default: 512, an encoder's input 256; at most what the shape has. */
  readonly promptTokens?: number;
  readonly repeats: number;
  /** Packed bytes that may be loaded at once; more are loaded anew for every round. */
  readonly memoryBytes: number;
  readonly onProgress?: (done: number, total: number, what: string) => void;
}

/** A decoder's figures are prefill, decode and streams, an encoder's forward, each with `_tokens_per_second`. */
export interface SyntheticModelReport extends Summary {
  /** As in "oats 0.5 int4". */
  readonly name: string;
  readonly packed_bytes: number;
  /** Growth of the process by loading it and its first round. */
  readonly memory_bytes: number;
  readonly load_ms: number;
  /** Of an encoder: median time of a forward pass. */
  readonly forward_ms?: number;
  /** This model's speed divided by that of each rival; of the models that were asked for. */
  readonly ratios: Readonly<Record<string, Summary>>;
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

/** An entrant, what it measured, and its runner while it is loaded. */
class Participant {
  readonly rounds: Figures[] = [];
  memoryBytes = 0;
  loadMs = 0;
  #runner: Runner | null = null;
  constructor(readonly entrant: Entrant) {}

  /** The first round warms up and is not counted. */
  async round(): Promise<void> {
    const rss = Deno.memoryUsage().rss, first = this.loadMs === 0;
    if (this.#runner === null) {
      const start = performance.now();
      this.#runner = await this.entrant.open();
      if (first) this.loadMs = performance.now() - start;
    }
    const figures = await this.#runner.round();
    if (first) this.memoryBytes = Deno.memoryUsage().rss - rss;
    else this.rounds.push(figures);
  }

  async close(): Promise<void> {
    await this.#runner?.close();
    this.#runner = null;
  }
}

/**
 * Measures.
 * @throws {OatmillError} invalid_request when the shape has no such context or rival, too_large or insufficient_memory
 * when a model does not fit
 */
export async function benchSynthetic(options: BenchSyntheticOptions): Promise<BenchSyntheticReport> {
  const { shape, repeats } = options;
  const work = roundOptions(options);
  const mine = askedModels(options).map((model) => new Participant(ownEntrant(model, work)));
  const others = [
    ...rivalModels(options).map((model) => ownEntrant(model, work)),
    ...options.against.includes("onnxruntime") ? [onnxEntrant(SYNTHETIC_SPECS[shape], work)] : [],
  ].map((entrant) => new Participant(entrant));
  const all = [...mine, ...others];
  try {
    await takeRounds(all, options);
  } finally {
    await Promise.all(all.map((p) => p.close()));
  }
  return {
    shape,
    threads: work.threads,
    prompt_tokens: work.promptTokens,
    decode_tokens: work.decodeTokens,
    context: work.context,
    streams: work.streams,
    repeats,
    models: all.map((p) => modelReport(p, { rivals: mine.includes(p) ? others : [], work })),
  };
}

function modelReport(
  { entrant, memoryBytes, loadMs, rounds }: Participant,
  { rivals, work }: { readonly rivals: readonly Participant[]; readonly work: RoundOptions },
): SyntheticModelReport {
  const summary = summarise(rounds);
  const { forward_tokens_per_second: forward } = summary.median;
  return {
    name: entrant.name,
    packed_bytes: entrant.packedBytes,
    memory_bytes: memoryBytes,
    load_ms: loadMs,
    ...forward ? { forward_ms: work.promptTokens * 1000 / forward } : {},
    ...summary,
    ratios: Object.fromEntries(rivals.map((r) => [r.entrant.name, ratios(rounds, r.rounds)])),
  };
}

/** Prompts and decodes as long as the shape allows. */
function roundOptions(options: BenchSyntheticOptions): RoundOptions {
  const { shape, against, kvFormat, tuning, context, decodeTokens, streams } = options;
  const threads = options.threads ?? navigator.hardwareConcurrency;
  const { contextLength, attention: { causal } } = SYNTHETIC_SPECS[shape];
  const fail = (why: string) => new OatmillError("invalid_request", `Cannot measure "${shape}": ${why}`);
  if (context !== null && !causal) throw fail("an encoder decodes nothing");
  if (context !== null && (context > contextLength || context <= decodeTokens)) {
    throw fail(`it cannot decode ${decodeTokens} tokens up to ${context} in a context of ${contextLength}`);
  }
  if (causal && against.includes("onnxruntime")) throw fail("only encoders are compared with onnxruntime");
  const promptTokens = causal
    ? Math.min(options.promptTokens ?? 512, contextLength - 1)
    : Math.min(options.promptTokens ?? 256, contextLength);
  return {
    threads,
    kvFormat,
    tuning,
    promptTokens,
    decodeTokens: Math.min(decodeTokens, contextLength / 2),
    context,
    streams,
  };
}

/** One round more than is counted: the first warms up. */
async function takeRounds(all: readonly Participant[], options: BenchSyntheticOptions): Promise<void> {
  const { repeats, memoryBytes, onProgress } = options;
  const together = all.reduce((n, p) => n + p.entrant.packedBytes, 0) <= memoryBytes;
  const total = (repeats + 1) * all.length;
  for (let done = 0; done < total;) {
    for (const participant of all) {
      await participant.round();
      if (!together) await participant.close();
      onProgress?.(++done, total, participant.entrant.name);
    }
  }
}
