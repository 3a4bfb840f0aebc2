/**
 * The coordinates in which layers are trained. AdamW moves all values by about the same, so units matter: columns in the unit
 * of the packed codes (of large inputs small weights), and U and V sharing each direction's length evenly. SmolLM2-135M at rate
 * 0.5, after 12,800 tokens: KL 0.3505 with columns, 0.3556 without, at one learning rate.
 */
import type { BlockParameters, LayerParameters } from "./parameters.ts";

/** From the model's own coordinates to those. */
export function toTrained(block: BlockParameters): void {
  for (const layer of block.layers) {
    scaleColumns(layer, (unit) => unit > 0 ? 1 / unit : 0); // a dead column stays 0
    balance(layer);
  }
}

/** Back; U and V stay balanced. */
export function toModel(block: BlockParameters): void {
  for (const layer of block.layers) scaleColumns(layer, (unit) => unit);
}

function scaleColumns(
  { kept, V, shape: [, dIn], columns }: LayerParameters,
  factor: (unit: number) => number,
): void {
  if (!columns) return;
  const factors = Float32Array.from(columns, factor);
  for (let i = 0; i < kept.values.length; i++) kept.values[i] *= factors[kept.indices[i] % dIn];
  for (let i = 0; i < V.length; i++) V[i] *= factors[i % dIn];
}

/** Makes column r of U and row r of V equally long; their product stays. */
function balance({ U, V, rank, shape: [dOut, dIn] }: LayerParameters): void {
  for (let r = 0; r < rank; r++) {
    let u = 0, v = 0;
    for (let i = 0; i < dOut; i++) u += U[i * rank + r] ** 2;
    for (let j = r * dIn; j < (r + 1) * dIn; j++) v += V[j] ** 2;
    if (u === 0 || v === 0) continue; // one of them has yet to be learnt
    const ratio = (v / u) ** 0.25;
    for (let i = 0; i < dOut; i++) U[i * rank + r] *= ratio;
    for (let j = r * dIn; j < (r + 1) * dIn; j++) V[j] /= ratio;
  }
}
