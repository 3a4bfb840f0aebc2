/** What the steps of one compression share. */
import type { Checkpoint } from "../models/checkpoint.ts";
import type { ArtifactWriter } from "../models/formats/artifact.ts";
import type { Recipe } from "../models/recipe.ts";
import type { Residual } from "./forward/dense_forward.ts";
import type { LinalgPool } from "./linalg/pool.ts";
import type { ProgressReporter } from "./progress.ts";
import type { CompressOptions } from "./types.ts";
import type { WorkSpace } from "./work_space.ts";

export interface CompressionContext {
  readonly options: CompressOptions;
  readonly recipe: Recipe;
  readonly progress: ProgressReporter;
  readonly checkpoint: Checkpoint;
  readonly pool: LinalgPool;
  readonly writer: ArtifactWriter;
  readonly space: WorkSpace;
  /** Chunks per activation block (stored_parts.ts). */
  readonly blockChunks: number;
}

/** Hidden states of both texts, which go through the blocks side by side. */
export interface Residuals {
  readonly calibration: Residual;
  readonly heldOut: Residual;
}
