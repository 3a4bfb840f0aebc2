/**
 * Insight of a model that is not being compressed: a dense model's, or an artifact's beside the model it was made from. One
 * block's weights and packed tensors are in memory at a time, and the hidden states of the calibration sequences.
 */
import { basename } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { Artifact } from "../../models/formats/artifact.ts";
import { openTensors, type TensorReader } from "../../models/formats/artifact_tensors.ts";
import type { StoredPart } from "../../models/formats/artifact_header.ts";
import type { Insight } from "../../models/formats/insight_file.ts";
import { openCheckpoint } from "../../models/open.ts";
import { inputOf, type LinearName, linearNames, readsTokens } from "../../models/spec.ts";
import { imageFiles, ImageSet } from "../calibration_images.ts";
import { ImageEmbedding } from "../embed_inputs.ts";
import {
  type BlockWeights,
  embed,
  readBlock,
  readEmbedding,
  type Residual,
  runBlockOver,
} from "../forward/dense_forward.ts";
import { LinalgPool } from "../linalg/pool.ts";
import type { PackedTensor } from "../quantize.ts";
import { type BlockStatistics, shared } from "../statistics.ts";
import { calibrationSequences } from "../texts.ts";
import { InsightCollector } from "./collector.ts";

export interface MeasureOptions {
  /** Model folder or .gguf file: the dense model. Null: only what an artifact's packed tensors tell. */
  readonly source: string | null;
  readonly artifact: Artifact | null;
  /** As in a recipe. */
  readonly calibration: {
    readonly text: string;
    readonly sequences: number;
    readonly length: number;
    readonly seed: number;
  };
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (p: {
    readonly phase: "sample" | "measure";
    readonly done: number;
    readonly total: number;
  }) => void;
}

/**
 * @throws {OatmillError} invalid_request when the artifact was made from another model, cancelled, and what reading
 * the models and the calibration text throws
 */
export async function measureInsight(options: MeasureOptions): Promise<Insight> {
  const { source, artifact, threads } = options;
  const checkpoint = source === null ? null : await openCheckpoint(source);
  try {
    if (checkpoint && artifact) checkSame(checkpoint, artifact);
    await using tensors = artifact && await openTensors(artifact);
    using pool = new LinalgPool(threads);
    const residual = checkpoint && await embedCalibration(checkpoint, { pool, options });
    return await new Measurement({ options, checkpoint, tensors, pool }).run(residual);
  } finally {
    checkpoint?.close();
  }
}

function checkSame({ spec, path }: Checkpoint, artifact: Artifact): void {
  const { blocks, hiddenSize, vocabSize } = artifact.spec;
  if (spec.blocks === blocks && spec.hiddenSize === hiddenSize && spec.vocabSize === vocabSize) return;
  throw new OatmillError(
    "invalid_request",
    `Cannot compare "${artifact.path}" with "${path}": the artifact has ${blocks} blocks of ${hiddenSize} and a vocabulary of ${vocabSize}, the model ${spec.blocks}, ${spec.hiddenSize} and ${spec.vocabSize}`,
  );
}

/** Hidden states before the first block, of token sequences or of images. */
async function embedCalibration(
  checkpoint: Checkpoint,
  { pool, options }: { readonly pool: LinalgPool; readonly options: MeasureOptions },
): Promise<Residual> {
  const { calibration, threads, signal, onProgress } = options;
  const onStep = (done: number, total: number) => {
    if (signal?.aborted) throw cancelled();
    onProgress?.({ phase: "sample", done, total });
  };
  if (readsTokens(checkpoint.spec)) {
    const length = Math.min(calibration.length, checkpoint.spec.contextLength);
    const sequences = await calibrationSequences(checkpoint, { ...calibration, length }, {
      threads,
      signal,
      onStep,
    });
    return embed(await readEmbedding(checkpoint), sequences, shared);
  }
  const { text, sequences: count, seed } = calibration;
  const files = await imageFiles(text, { count, seed, param: "calibration.text" });
  const images = await ImageEmbedding.of({ checkpoint, pool });
  return await images.residual(files, { set: new ImageSet(checkpoint), place: shared, onImage: onStep });
}

const cancelled = () => new OatmillError("cancelled", "The measurement was cancelled");

interface Context {
  readonly options: MeasureOptions;
  readonly checkpoint: Checkpoint | null;
  readonly tensors: TensorReader | null;
  readonly pool: LinalgPool;
}

class Measurement {
  readonly #collector: InsightCollector;

  constructor(readonly context: Context) {
    this.#collector = new InsightCollector(context.pool);
  }

  async run(residual: Residual | null): Promise<Insight> {
    const { checkpoint, options } = this.context;
    const { blocks } = (checkpoint ?? options.artifact!).spec;
    for (let i = 0; i < blocks; i++) {
      if (options.signal?.aborted) throw cancelled();
      await this.#block(i, residual);
      options.onProgress?.({ phase: "measure", done: i + 1, total: blocks });
    }
    return this.#collector.result(
      residual && {
        text: basename(options.calibration.text),
        sequences: residual.sequences,
        length: residual.length,
      },
    );
  }

  async #block(index: number, residual: Residual | null): Promise<void> {
    const { checkpoint, pool, tensors } = this.context;
    const weights = checkpoint && await readBlock(checkpoint, index);
    const statistics = weights && residual && await runBlockOver(residual, weights, {
      block: index,
      checkpoint: checkpoint!,
      pool,
      collect: true,
      momentSequences: tensors ? residual.sequences : 0, // without packed weights there is no error to measure
      write: true,
      sink: false,
    });
    await this.#collector.addBlock(weights, statistics);
    const { spec } = checkpoint ?? this.context.options.artifact!;
    const layers = await Promise.all(
      linearNames(spec).map((name) => this.#layer(index, name, { weights, statistics })),
    );
    for (const layer of layers) if (layer) this.#collector.addLayer(layer);
  }

  async #layer(
    index: number,
    name: LinearName,
    { weights, statistics }: {
      readonly weights: BlockWeights | null;
      readonly statistics: BlockStatistics | null;
    },
  ) {
    const { tensors, pool } = this.context;
    const parts = tensors ? packedParts(tensors, `block.${index}.${name}`) : [];
    const weight = weights?.[name], shape = weight?.shape ?? parts[0]?.shape;
    if (!shape) return null; // nothing is known of it
    const input = inputOf(name), scale = tensors?.read(`block.${index}.${input}.scale`);
    return await pool.run<"layerInsight">({
      kind: "layerInsight",
      name: `block.${index}.${name}`,
      shape: [shape[0], shape[1]],
      W: weight?.data ?? null,
      d: statistics?.[input].d ?? null,
      H: statistics?.[input].H ?? null,
      tensors: parts,
      scale: scale ? new Float32Array(scale.bytes.buffer) : null,
    });
  }
}

/** The tensors of one layer, S or the dense weights first. */
function packedParts(tensors: TensorReader, layer: string): PackedTensor[] {
  const parts: PackedTensor[] = [];
  for (const part of ["w", "s", "v", "u"] as const satisfies StoredPart["part"][]) {
    const found = tensors.read(`${layer}.${part}`);
    if (!found || found.entry.format.kind === "vector") continue;
    const { format, shape } = found.entry;
    parts.push({ part, format, shape: [shape[0], shape[1]], bytes: found.bytes });
  }
  return parts;
}
