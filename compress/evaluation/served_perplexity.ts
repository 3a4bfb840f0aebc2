/** Perplexity of a packed model as the engine serves it. */
import { loadEngine } from "../../engine/engine.ts";
import { KV_BLOCK_TOKENS } from "../../kernels/abi.ts";
import type { PackedModel } from "../../models/packed.ts";
import { scoreAll, type ScoreOptions } from "./score_windows.ts";

/** exp of the mean negative log-likelihood of every token but the first of each sequence. */
export async function servedPerplexity(
  model: PackedModel,
  sequences: readonly Int32Array[],
  { threads, ...options }: ScoreOptions & { readonly threads?: number },
): Promise<number> {
  // One sequence at a time: a cache of the default size could be too short for it, or larger than this needs.
  const longest = sequences.reduce((n, ids) => Math.max(n, ids.length), 1);
  const engine = await loadEngine(model, {
    threads,
    maxSequences: 1,
    contextLength: longest,
    kvTokens: Math.ceil(longest / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS,
  });
  try {
    const { nll, scored } = await scoreAll(
      engine,
      sequences.map((ids) => ({ ids: [...ids], from: 0 })),
      options,
    );
    return Math.exp(nll / scored);
  } finally {
    await engine.close();
  }
}
