/** From inputs to hidden states before the first block; what makes them goes into the artifact on the way. */
import { encoderTensors, packDenseTensor } from "../models/pack_dense.ts";
import { IMAGE_PROCESSOR_FILE } from "../models/formats/artifact.ts";
import { IMAGE_VECTORS, ImageInput, type ImageVectors } from "../models/image_input.ts";
import { readsTokens } from "../models/spec.ts";
import type { ImageSet } from "./calibration_images.ts";
import type { CompressionContext, Residuals } from "./compression_context.ts";
import {
  embed,
  type Embedding,
  normaliseRows,
  readEmbedding,
  type Residual,
} from "./forward/dense_forward.ts";
import type { Inputs } from "./inputs.ts";
import { toShared } from "./statistics.ts";
import { openValues, type Place } from "./work_space.ts";
import { writePositions, writeTable } from "./write_tensors.ts";

/** Hidden states of both parts of the inputs. */
export async function embedInputs(inputs: Inputs, context: CompressionContext): Promise<Residuals> {
  const { progress, space } = context;
  const place = (name: string) => (values: number) => space.place(name, values);
  await progress.time("write", () => writeEncoder(context));
  if (inputs.kind === "tokens") {
    const embedding = await embeddingOf(context);
    const residual = (name: string, sequences: readonly Int32Array[]) =>
      embed(embedding, sequences, place(name));
    return {
      calibration: residual("calibration", inputs.calibration),
      heldOut: residual("held-out", inputs.heldOut),
    };
  }
  const { set } = inputs, images = await progress.time("read", () => ImageEmbedding.of(context));
  const onImage = (done: number, total: number) => {
    progress.checkCancelled();
    progress.report("sample", done, total);
  };
  const residual = (name: string, files: readonly string[]) =>
    progress.time("sample", () => images.residual(files, { set, place: place(name), onImage }));
  return {
    calibration: await residual("calibration", inputs.calibration),
    heldOut: await residual("held-out", inputs.heldOut),
  };
}

async function embeddingOf(context: CompressionContext): Promise<Embedding> {
  const { progress, checkpoint } = context;
  const embedding = await progress.time("read", () => readEmbedding(checkpoint));
  await progress.time("write", async () => {
    await writeTable("embedding", embedding.table, context);
    if (embedding.positions) await writePositions(embedding.positions, context);
  });
  return embedding;
}

/** What an encoder has before and behind its blocks, and how it wants its images. */
async function writeEncoder({ checkpoint, writer }: CompressionContext): Promise<void> {
  for (const { name, role, format, shape } of encoderTensors(checkpoint.spec)) {
    const { data } = await checkpoint.read(role);
    await writer.add(name, format, shape, packDenseTensor(data, shape, format));
  }
  const { imageProcessor } = checkpoint;
  if (imageProcessor && !readsTokens(checkpoint.spec)) {
    await writer.addFile(
      IMAGE_PROCESSOR_FILE,
      new TextEncoder().encode(JSON.stringify(imageProcessor, null, 1)),
    );
  }
}

type ImageContext = Pick<CompressionContext, "checkpoint" | "pool">;

/** From image files to hidden states before the first block. */
export class ImageEmbedding {
  private constructor(
    readonly context: ImageContext,
    readonly input: ImageInput,
    readonly projection: Float32Array<SharedArrayBuffer>,
  ) {}

  static async of(context: ImageContext): Promise<ImageEmbedding> {
    const { checkpoint } = context, vectors: Record<string, Float32Array> = {};
    for (const name of IMAGE_VECTORS) {
      if (checkpoint.has(name)) vectors[name] = (await checkpoint.read(name)).data;
    }
    const projection = toShared((await checkpoint.read("patch")).data);
    return new ImageEmbedding(context, new ImageInput(checkpoint.spec, vectors as ImageVectors), projection);
  }

  async residual(
    files: readonly string[],
    { set, place, onImage }: {
      readonly set: ImageSet;
      readonly place: (values: number) => Place;
      /** Called behind each image; what it throws ends the work. */
      readonly onImage: (done: number, total: number) => void;
    },
  ): Promise<Residual> {
    const { pool, checkpoint } = this.context, { hiddenSize, encoder } = checkpoint.spec;
    let values: Place | null = null, length = 0;
    for (const [i, file] of files.entries()) {
      const { rows, patches, added } = this.input.rowsOf(await set.read(file));
      values ??= place(files.length * rows * hiddenSize);
      length = rows;
      const states = await pool.run<"patches">({
        kind: "patches",
        patches: toShared(patches),
        projection: this.projection,
        added: toShared(added),
        width: hiddenSize,
      });
      if (encoder?.embeddingNorm) await normaliseRows(states, checkpoint, "embeddingNorm");
      using target = openValues(values);
      target.write(i * rows * hiddenSize, states);
      onImage(i + 1, files.length);
    }
    return { values: values ?? place(0), sequences: files.length, length };
  }
}
