/** One dense block over the hidden states, and what its linear layers read on the way. */
import { collectGarbage } from "../engine/collect_garbage.ts";
import type { CompressionContext, Residuals } from "./compression_context.ts";
import { checkStatistics } from "./finite.ts";
import { type BlockWeights, type Residual, runBlockOver } from "./forward/dense_forward.ts";
import type { BlockStatistics } from "./statistics.ts";

/**
 * Tokens behind each H, at most: the reference rows (64 sequences of 512) stand on as many. Half of them would save 10 s of
 * SmolLM2's 190 s and cost 5 perplexity at rate 0.5: the choice of entries fits what it sees.
 */
const MOMENT_TOKENS = 32_768;
/** A block passed without statistics. */
const PLAIN = { collect: false, momentSequences: 0, write: true, sink: false };

type PassContext = Pick<CompressionContext, "checkpoint" | "pool">;

/** Takes the hidden states of both texts through a block. Null without calibration text. */
export async function passWithStatistics(
  weights: BlockWeights,
  { calibration, heldOut }: Residuals,
  { block, moments, write, context: { checkpoint, pool, recipe } }: {
    readonly block: number;
    /** Whether to collect X'X. */
    readonly moments: boolean;
    /** Whether the calibration's hidden states go on as well. */
    readonly write: boolean;
    readonly context: PassContext & Pick<CompressionContext, "recipe">;
  },
): Promise<BlockStatistics | null> {
  await pass(heldOut, weights, { block, context: { checkpoint, pool } });
  const statistics = await runBlockOver(calibration, weights, {
    block,
    checkpoint,
    pool,
    collect: true,
    momentSequences: moments ? momentSequences(calibration) : 0,
    write,
    sink: moments,
    products: recipe.calibration.products,
  });
  return checkStatistics(statistics, block);
}

/** Takes hidden states through a block. */
export async function pass(
  residual: Residual,
  weights: BlockWeights,
  { block, context: { checkpoint, pool } }: { readonly block: number; readonly context: PassContext },
): Promise<void> {
  await runBlockOver(residual, weights, { block, checkpoint, pool, ...PLAIN });
}

function momentSequences({ sequences, length }: Residual): number {
  return Math.min(sequences, Math.max(1, Math.floor(MOMENT_TOKENS / length)));
}

/** Blocks between two collections: their shared memory stands outside the heap, which sees no reason to collect. */
const COLLECT_BLOCKS = 4;

/** Gives back what blocks up to this one have left behind, every few blocks. */
export function collectBehind(block: number): void {
  if (block % COLLECT_BLOCKS === COLLECT_BLOCKS - 1) collectGarbage();
}
