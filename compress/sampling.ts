/** Sequences sampled from a model: calibration text for those who have none. */
import { loadEngine } from "../engine/engine.ts";
import { type Engine, GREEDY } from "../engine/types.ts";
import { KV_BLOCK_TOKENS, TILE_SIZES } from "../kernels/abi.ts";
import type { PackedModel } from "../models/packed.ts";
import { startToken } from "../models/spec.ts";

export interface SampleOptions {
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onStep?: (done: number, total: number) => void;
}

/**
 * Most sequences that the engine decodes together. The more, the fewer steps and rests of a tile: 72 sequences of SmolLM2
 * take 7 % less processor time at once than 32, 32 and 8 of them.
 */
const MOST_AT_ONCE = 128;

/**
 * How many sequences to decode together: as many each time, in whole tiles.
 * @param room sequences that the KV cache holds to their ends: one more would be computed again and again
 */
export function sampleBatch(sequences: number, room: number): number {
  const most = Math.max(1, Math.min(MOST_AT_ONCE, room));
  const even = Math.ceil(sequences / Math.ceil(sequences / most));
  return Math.min(most, Math.ceil(even / TILE) * TILE);
}

/** Rows of the largest tile. */
const TILE = Math.max(...TILE_SIZES);

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
    maxSequences: Math.min(MOST_AT_ONCE, sequences),
    contextLength: Math.min(length, model.spec.contextLength),
  });
  try {
    const room = Math.floor(engine.stats().kvBlocksTotal / Math.ceil(length / KV_BLOCK_TOKENS));
    const found: Int32Array[] = [];
    let next = 0, done = 0;
    const sampleSome = async () => {
      while (next < sequences) {
        const i = next++;
        found[i] = await sampleOne(engine, { start, length, seed: sequenceSeed(seed, i) }, signal);
        onStep?.(++done, sequences);
      }
    };
    await Promise.all(Array.from({ length: sampleBatch(sequences, room) }, sampleSome));
    return found;
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
