/** A model in another program's format. */
import { OatmillError } from "../errors.ts";
import { type DenseModel, openDenseModel } from "./dense_model.ts";
import type { FloatType } from "./float_types.ts";
import { type ExportFormat, type ExportType, TYPES_OF } from "./formats.ts";
import { exportGguf } from "./gguf.ts";
import { exportOnnx } from "./onnx.ts";
import { exportPeft } from "./peft.ts";
import { exportSafetensors, SHARD_BYTES } from "./safetensors.ts";

export interface ExportOptions {
  /** artifact folder, Hugging Face folder or .gguf file */
  readonly model: string;
  readonly to: ExportFormat;
  /** Must not exist. */
  readonly out: string;
  /** Default: the format's. */
  readonly type?: ExportType;
  /** config.json, or the source model, of an artifact that does not know its own. */
  readonly config?: string;
  /** safetensors only. */
  readonly shardBytes?: number;
  readonly parts?: boolean;
  /** peft only: what the adapter is added to, an artifact or any other model of the same shape. */
  readonly base?: string;
  /** peft only. */
  readonly rank?: number;
  readonly onProgress?: (done: number, total: number) => void;
}

interface Written {
  readonly files: readonly string[];
  /** Of the tensors. */
  readonly bytes: number;
  /** peft only. */
  readonly rank?: number;
  readonly modules?: number;
  readonly rest?: number;
}

export interface Exported extends Written {
  readonly out: string;
  readonly format: ExportFormat;
  readonly type: ExportType;
}

type Write = (
  model: DenseModel,
  options: ExportOptions & { readonly type: ExportType },
) => Promise<Written>;

// TYPES_OF says which types each may get.
const WRITE: Readonly<Record<ExportFormat, Write>> = {
  safetensors: (model, { out, type, shardBytes = SHARD_BYTES, parts, onProgress: onTensor }) =>
    exportSafetensors(model, out, { type: type as FloatType, shardBytes, parts, onTensor }),
  gguf: (model, { out, type, onProgress: onTensor }) => exportGguf(model, out, { type, onTensor }),
  onnx: (model, { out, onProgress: onTensor }) => exportOnnx(model, out, { onTensor }),
  peft: async (model, { out, type, base: path, rank, config, onProgress: onTensor }) => {
    await using base = await openDenseModel(path!, { config }); // checked
    return await exportPeft(model, out, { type: type as FloatType, base, rank, onTensor });
  },
};

/**
 * Nothing is left at `out` after an error.
 * @throws {OatmillError} invalid_request, conflict (`out` exists), invalid_config, unsupported_architecture, unsupported_format,
 *   storage_failed, and what opening throws
 */
export async function exportModel(options: ExportOptions): Promise<Exported> {
  const { to: format, out, type = TYPES_OF[format][0] } = options;
  if (!TYPES_OF[format].includes(type)) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot write ${format} as ${type}: it takes ${TYPES_OF[format].join(", ")}`,
    );
  }
  if (format !== "safetensors" && (options.parts || options.shardBytes !== undefined)) {
    throw new OatmillError(
      "invalid_request",
      `Cannot write ${format} in parts or shards: only safetensors can`,
    );
  }
  if (
    (format === "peft") !== (options.base !== undefined) || (format !== "peft" && options.rank !== undefined)
  ) {
    throw new OatmillError(
      "invalid_request",
      format === "peft"
        ? "Cannot write an adapter without the model that it is added to (--base)"
        : `Cannot write ${format} with a base or a rank: only peft has them`,
      "base",
    );
  }
  await using model = await openDenseModel(options.model, options);
  const written = await WRITE[format](model, { ...options, type });
  return { out, format, type, ...written };
}
