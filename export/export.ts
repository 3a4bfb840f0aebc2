/** A model in another program's format. */
import { OatmillError } from "../errors.ts";
import { openDenseModel } from "./dense_model.ts";
import type { FloatType } from "./float_types.ts";
import { type ExportFormat, type ExportType, TYPES_OF } from "./formats.ts";
import { exportSafetensors, SHARD_BYTES } from "./safetensors.ts";

export interface ExportOptions {
  /** artifact folder, Hugging Face folder or .gguf file */
  readonly model: string;
  readonly to: ExportFormat;
  /** Must not exist. */
  readonly out: string;
  /** Default: the format's. */
  readonly type?: ExportType;
  /** config.json of an artifact that does not know its own. */
  readonly config?: string;
  /** safetensors only. */
  readonly shardBytes?: number;
  readonly parts?: boolean;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Exported {
  readonly out: string;
  readonly format: ExportFormat;
  readonly type: ExportType;
  readonly files: readonly string[];
  /** Of the tensors. */
  readonly bytes: number;
}

/**
 * Nothing is left at `out` after an error.
 * @throws {OatmillError} conflict (`out` exists), invalid_config, unsupported_format, storage_failed, and what opening throws
 */
export async function exportModel(options: ExportOptions): Promise<Exported> {
  const { to: format, out, type = TYPES_OF[format][0], shardBytes = SHARD_BYTES, parts } = options;
  if (!TYPES_OF[format].includes(type)) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot write ${format} as ${type}: it takes ${TYPES_OF[format].join(", ")}`,
    );
  }
  await using model = await openDenseModel(options.model, options);
  const onTensor = options.onProgress;
  const written = await exportSafetensors(model, out, {
    type: type as FloatType,
    shardBytes,
    parts,
    onTensor,
  });
  return { out, format, type, ...written };
}
