/**
 * How fast a model answers as it is stored, and how fast a dense int8 model of its shape would (random weights: speed does not
 * depend on values, models/synthetic.ts). Both take turns in one session, and the time is bounded.
 */
import { loadEngine } from "../engine/engine.ts";
import type { TuningOptions } from "../engine/tuning.ts";
import { OatmillError } from "../errors.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import { DENSE_BLOCK_CHUNKS } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import type { ModelSpec } from "../models/spec.ts";
import { syntheticModel } from "../models/synthetic.ts";
import { DECODE_PROMPT } from "./contender.ts";
import { type Figures, ratios, summarise } from "./figures.ts";
import { openOwn, OwnEngine } from "./own_engine.ts";
import { takeTurns, type TurnOptions, type Work } from "./take_turns.ts";

export interface DenseSpeed {
  readonly threads: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly streams: number;
  /** Tokens per second, medians over the rounds. */
  readonly stored: Figures<Work>;
  readonly dense: Figures<Work>;
  /** stored / dense of the same round, their median. */
  readonly ratio: Figures<Work>;
}
export interface DenseSpeedOptions {
  /** Default: all cores. */
  readonly threads?: number;
  readonly tuning?: TuningOptions;
  readonly work?: Partial<Pick<TurnOptions, "promptTokens" | "decodeTokens" | "streams" | "repeats">>;
}

const WORK = { promptTokens: 128, decodeTokens: 32, streams: 4, repeats: 5 };
/** Of the machine's free memory, for both models. */
const MEMORY_SHARE = 0.8;

/** @throws {OatmillError} invalid_request: no decoder, or of another shape than its dense model; insufficient_memory */
export async function denseSpeed(artifact: string, options: DenseSpeedOptions = {}): Promise<DenseSpeed> {
  const { header } = await openArtifact(artifact), { spec, recipe, name, bytes } = header;
  const refused = !spec.attention.causal
    ? "it generates no text"
    : recipe.method === "structured"
    ? "its dense model had another shape"
    : null;
  if (refused) {
    throw new OatmillError("invalid_request", `Cannot measure "${name}" beside a dense model: ${refused}`);
  }
  const model = denseInt8(spec);
  checkMemory(bytes + model.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0));
  const { threads, tuning } = options, work = { ...WORK, ...options.work };
  const shared = { threads, tuning, maxSequences: work.streams };
  await using engines = new AsyncDisposableStack();
  const opened = <T extends OwnEngine>(own: T): T => engines.adopt(own, (one) => one.close());
  const stored = opened(await openOwn(artifact, "stored", shared));
  const contextLength = Math.min(spec.contextLength, stored.engine.contextLength);
  const dense = opened(
    new OwnEngine("dense", "int8", await loadEngine(model, { ...shared, contextLength, speculation: false })),
  );
  const turns = {
    ...work,
    promptTokens: Math.min(work.promptTokens, contextLength - 1),
    decodeTokens: Math.min(work.decodeTokens, contextLength - DECODE_PROMPT),
  };
  const [mine, theirs] = await takeTurns([stored, dense], turns);
  return {
    threads: stored.engine.stats().threads,
    promptTokens: turns.promptTokens,
    decodeTokens: turns.decodeTokens,
    streams: turns.streams,
    stored: summarise(mine).median,
    dense: summarise(theirs).median,
    ratio: ratios(mine, theirs).median,
  };
}

/** As `method: "none"` stores it. */
const denseInt8 = (spec: ModelSpec): PackedModel =>
  syntheticModel("dense int8", spec, {
    blockChunks: DENSE_BLOCK_CHUNKS,
    parts: (shape) => [{ part: "w", format: { kind: "q8" }, shape }],
    table: { kind: "q8" },
    inputScales: false,
  });

function checkMemory(neededBytes: number): void {
  const { available } = Deno.systemMemoryInfo();
  if (neededBytes <= MEMORY_SHARE * available) return;
  const gb = (bytes: number) => (bytes / 1e9).toFixed(1);
  throw new OatmillError(
    "insufficient_memory",
    `Cannot measure: both models take ${gb(neededBytes)} GB, ${gb(available)} GB are free`,
  );
}
