/** OWL's outlier ratios of a model's blocks, from a dense pass of its own. */
import { inputOf } from "../../models/spec.ts";
import type { CompressionContext } from "../compression_context.ts";
import { firstSequences, readBlock, type Residual, runBlockOver } from "../forward/dense_forward.ts";
import { compressedNames } from "../linear_layers.ts";

/** Sequences that the pass takes: 1/8 of the default calibration. */
export const OWL_SEQUENCES = 16;

/**
 * The ratio of each block, its layers that are compressed taken together.
 * @param calibration hidden states before the first block; they stay as they are
 */
export async function outlierRatios(
  calibration: Residual,
  { recipe, checkpoint, progress, pool }: CompressionContext,
): Promise<number[]> {
  const { blocks, hiddenSize } = checkpoint.spec, names = compressedNames(checkpoint.spec, recipe);
  const sequences = Math.min(OWL_SEQUENCES, calibration.sequences);
  const residual = firstSequences(calibration, sequences, hiddenSize);
  const ratios: number[] = [];
  for (let i = 0; i < blocks; i++) {
    await progress.time("allocate", async () => {
      const weights = await readBlock(checkpoint, i);
      const statistics = await runBlockOver(residual, weights, {
        block: i,
        checkpoint,
        pool,
        collect: true,
        momentSequences: 0,
        write: true,
        sink: false,
      });
      const layers = names.map((name) => ({ W: weights[name].data, d: statistics![inputOf(name)].d }));
      const multiples = [recipe.allocation.m];
      ratios.push(...await pool.run<"outliers">({ kind: "outliers", layers, multiples }));
    }, { block: { pass: "outliers", index: i } });
    progress.report("allocate", i + 1, blocks);
  }
  return ratios;
}
