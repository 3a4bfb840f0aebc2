/** Insight of a model that was never measured. Tests only. */
import {
  ENERGY_SHARES,
  FILL_BINS,
  type Insight,
  newInsight,
  OUTLIER_MULTIPLES,
  SCALE_BINS,
  type Spectrum,
  SPECTRUM_STEPS,
} from "../formats/insight_file.ts";
import { LINEAR_NAMES } from "../spec.ts";

const counts = (length: number) => Array.from({ length }, (_, i) => i);

function spectrum(block: number): Spectrum {
  return {
    method: "exact",
    largest: 4 + block,
    quantiles: Array.from({ length: SPECTRUM_STEPS + 1 }, (_, i) => 1 - i / SPECTRUM_STEPS),
    effectiveRank: 40.5,
    energy: ENERGY_SHARES.map((share) => Math.sqrt(share)),
    energyOfRank: 0.25,
  };
}

/** Every field is filled; names are those of a model with gated MLPs. */
export function insightSample({ blocks }: { readonly blocks: number }): Insight {
  const each = counts(blocks);
  const outliers = OUTLIER_MULTIPLES.map((m) => 0.5 / m);
  return newInsight({
    calibration: { text: "self", sequences: 4, length: 64 },
    blocks: each.map(() => ({ outliers })),
    inputs: each.flatMap((i) =>
      ["attn", "o", "mlp", "down"].map((name) => ({
        name: `block.${i}.${name}`,
        columns: 64,
        dead: 1,
        rms: 1.5,
        median: 1.25,
        histogram: counts(SCALE_BINS.count),
        outlierCount: 1,
        outlierColumns: [{ column: 7, ratio: 8.5 }],
      }))
    ),
    layers: each.flatMap((i) =>
      LINEAR_NAMES.map((name) => ({
        name: `block.${i}.${name}`,
        outliers,
        inputError: 0.125,
        scaled: spectrum(i),
        plain: spectrum(i + 1),
        windows: {
          places: 80,
          filled: 60,
          kinds: [{ view: "A" as const, capacity: 4, windows: [1, 0, 2, 3, 9] }],
          blocks: counts(FILL_BINS),
        },
      }))
    ),
  });
}
