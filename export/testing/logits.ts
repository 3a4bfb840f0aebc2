/** Logits of models on the exact path, and how far they lie apart. Tests only. */
import { openModel } from "../../engine/open_model.ts";

/** Two f32 models that add S + U V in another order, as {@linkcode distance}. */
export const F32_NOISE = 1e-4;

const IDS = [3, 17, 5, 60, 8, 21, 34, 2, 9, 41, 11, 7, 30, 19, 4, 25, 13, 6, 50, 1];

/** After the last of the ids; f32 weights, keys and values. */
export async function logitsOfPath(path: string, ids: readonly number[] = IDS): Promise<Float32Array> {
  const { engine } = await openModel(path, { threads: 1, kvFormat: "f32" });
  try {
    return (await engine.logits(ids)).slice();
  } finally {
    await engine.close();
  }
}

/** ||a - b|| / ||a|| */
export function distance(a: Float32Array, b: Float32Array): number {
  return Math.hypot(...a.map((value, i) => value - b[i])) / Math.hypot(...a);
}
