/** What the steps of one compression share. */
import type { Checkpoint } from "../models/checkpoint.ts";
import type { ArtifactWriter } from "../models/formats/artifact_writer.ts";
import type { Recipe } from "../models/recipe.ts";
import type { Residual } from "./forward/dense_forward.ts";
import type { LinalgPool } from "./linalg/pool.ts";
import type { ProgressReporter } from "./progress.ts";
import type { BlockUnit } from "./resume/block_units.ts";
import type { WorkFolder } from "./resume/work_folder.ts";
import type { CompressOptions } from "./types.ts";
import type { WorkSpace } from "./work_space.ts";

/** Of any source. */
export interface CompressionRun {
  readonly options: CompressOptions;
  readonly recipe: Recipe;
  readonly progress: ProgressReporter;
  readonly work: WorkFolder;
}

/** Of a model of blocks. */
export interface SourceContext extends CompressionRun {
  readonly checkpoint: Checkpoint;
  readonly pool: LinalgPool;
  readonly space: WorkSpace;
  /** Chunks per activation block (stored_parts.ts). */
  readonly blockChunks: number;
}

/** While the artifact is being written. */
export interface CompressionContext extends SourceContext {
  readonly writer: ArtifactWriter;
  /** Blocks that an earlier run wrote. */
  readonly finished: readonly BlockUnit[];
}

/** Hidden states of both texts, which go through the blocks side by side. */
export interface Residuals {
  readonly calibration: Residual;
  readonly heldOut: Residual;
}
