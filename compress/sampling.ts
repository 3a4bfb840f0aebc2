/** Sequences sampled from a model: calibration text for those who have none. */
import { loadEngine } from "../engine/engine.ts";
import { type Engine, GREEDY } from "../engine/types.ts";
import type { PackedModel } from "../models/packed.ts";
import { startToken } from "../models/spec.ts";

export interface SampleOptions {
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onStep?: (done: number, total: number) => void;
}

/** Sequences that the engine decodes together while it samples. */
const SAMPLE_BATCH = 32;

/**
 * Sequences drawn at temperature 1, each from BOS (or the end token where there is no BOS). An end token does not stop
 * a sequence: the model goes on with the next text, as it was trained to.
 */
export async function sampleSequences(
  model: PackedModel,
  request: { readonly sequences: number; readonly length: number; readonly seed: number },
  { threads, signal, onStep }: SampleOptions,
): Promise<Int32Array[]> {
  const { sequences, length, seed } = request;
  const start = startToken(model.spec);
  const engine = await loadEngine(model, {
    threads,
    maxSequences: SAMPLE_BATCH,
    maxWaiting: sequences,
    contextLength: Math.min(length, model.spec.contextLength),
  });
  try {
    let done = 0;
    return await Promise.all(Array.from({ length: sequences }, async (_, i) => {
      const ids = await sampleOne(engine, { start, length, seed: sequenceSeed(seed, i) }, signal);
      onStep?.(++done, sequences);
      return ids;
    }));
  } finally {
    await engine.close();
  }
}

/** Modulo 2^53: as floats, large seeds would give all sequences the same one. */
function sequenceSeed(seed: number, index: number): number {
  return Number(BigInt.asUintN(53, BigInt(seed) * 1_000_003n + BigInt(index)));
}

async function sampleOne(
  engine: Engine,
  { start, length, seed }: { readonly start: number; readonly length: number; readonly seed: number },
  signal?: AbortSignal,
): Promise<Int32Array> {
  const ids = [start];
  const request = {
    promptIds: [start],
    maxTokens: length - 1,
    stopIds: [],
    sampling: { ...GREEDY, temperature: 1, seed },
    logprobs: null,
  };
  for await (const event of engine.generate(request, signal)) {
    if (event.type === "token") ids.push(event.token);
  }
  return Int32Array.from(ids);
}
