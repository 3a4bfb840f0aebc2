/** Worker side: all linear layers that read one input (q, k and v; gate and up). What they share is made once. */
import type { Shape2 } from "../kernels/layout.ts";
import type { Recipe } from "../models/recipe.ts";
import { compressLayer, type LayerContext, type LayerInput, type LayerResult } from "./layer.ts";
import type { Linalg } from "./linalg/runtime.ts";
import { layerMethod } from "./methods/mod.ts";
import { inputScale, toPackedMoments } from "./quantize.ts";
import { roundingMoments } from "./quantizers/rounding.ts";
import { unitMoments } from "./refine.ts";

export interface InputGroupJob {
  readonly kind: "inputGroup";
  readonly layers: readonly LayerInput[];
  /** `[dIn]`; null with method `none`. */
  readonly d: Float32Array<SharedArrayBuffer> | null;
  /** `[dIn, dIn]`, when the method, the refit or the rounding needs it. */
  readonly H: Float32Array<SharedArrayBuffer> | null;
  readonly recipe: Recipe;
  readonly blockChunks: number;
  /** Put S + L in the place of W. */
  readonly replace: boolean;
}

/**
 * About what a job takes besides the weights and H that threads share: a dozen matrices of its largest layer while
 * entries are chosen anew, three that wait for their collection, and H scaled and on its way into a product.
 */
export function inputGroupBytes(
  { layers, H }: { readonly layers: readonly { readonly shape: Shape2 }[]; readonly H: Float32Array | null },
): number {
  const largest = Math.max(...layers.map(({ shape }) => shape[0] * shape[1]));
  return 4 * (15 * largest + 2 * (H?.length ?? 0));
}

/** @returns one result for each of the job's layers, in their order */
export async function compressInputGroup(job: InputGroupJob, linalg: Linalg): Promise<LayerResult[]> {
  const context = await prepare(job, linalg);
  const results: LayerResult[] = [];
  for (const layer of job.layers) results.push(await compressLayer(layer, context));
  return results;
}

/**
 * Columns smaller than this share of the largest count as dead: no sum in f32 would notice them, but a refit could hand
 * them any weight, up to infinity, to mend what other columns miss.
 */
const VANISHING = 1e-12;

function withoutVanishing(d: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const least = VANISHING * d.reduce((most, x) => Math.max(most, x), 0);
  return d.map((x) => x < least ? 0 : x);
}

async function prepare(job: InputGroupJob, linalg: Linalg): Promise<LayerContext> {
  const { recipe, blockChunks, replace } = job;
  const measured = job.d ? new Float32Array(job.d) : new Float32Array(job.layers[0].shape[1]).fill(1);
  const d = withoutVanishing(measured);
  const { H } = job;
  const method = job.layers.every(({ plan }) => plan.budget === null) ? null : layerMethod(recipe);
  const scale = recipe.values === "f32" || !job.d ? null : inputScale(measured, recipe);
  return {
    recipe,
    blockChunks,
    replace,
    d,
    inputs: job.d && { d: measured, H },
    scale,
    method: method ? await method.prepare({ d, H }, { recipe, linalg }) : null,
    moments: H && recipe.refine ? unitMoments(d, H) : null,
    roundingMoments: H && scale && recipe.rounding === "feedback"
      ? await roundingMoments(toPackedMoments(H, scale), linalg)
      : null,
    linalg,
  };
}
