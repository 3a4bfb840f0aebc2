/**
 * Trained parameters into an artifact like the one they came from: the same tensors in the same formats, S, U, V and norms
 * replaced, everything else copied.
 */
import { join } from "node:path";
import { type CodedMatrix, packF32, unpackCoded } from "../../kernels/packers.ts";
import type { Shape2, WeightFormat } from "../../kernels/layout.ts";
import { type Artifact, WEIGHTS_FILE } from "../../models/formats/artifact.ts";
import { openTensors } from "../../models/formats/artifact_tensors.ts";
import type {
  ArtifactHeader,
  LayerReport,
  StoredPart,
  TensorEntry,
} from "../../models/formats/artifact_header.ts";
import { ArtifactWriter } from "../../models/formats/artifact_writer.ts";
import { inputOf } from "../../models/spec.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import { packCodes, toPackedColumns } from "../quantize.ts";
import { type CodedValues, GRIDS } from "../quantizers/grid.ts";
import { requantise } from "../quantizers/requantise.ts";
import { VERSION } from "../version.ts";
import type { LayerParameters, TrainableModel } from "./parameters.ts";

export interface WriteOptions {
  /** Folder to make. */
  readonly out: string;
  /** Where it is written until it is whole; default: beside `out`. */
  readonly temporary?: string;
  /** What the new header says differently. */
  readonly header: Partial<Pick<ArtifactHeader, "name" | "recipe" | "recovery" | "perplexity">>;
}

/**
 * Writes a new artifact: under another name until it is whole.
 * @returns its header; `layers` still says what compression lost, before anything was trained
 * @throws {OatmillError} conflict: `out` exists; storage_failed; invalid_artifact
 */
export async function writeRecovered(
  artifact: Artifact,
  model: TrainableModel,
  { out, temporary, header: changes }: WriteOptions,
): Promise<ArtifactHeader> {
  const { header, path } = artifact;
  const writer = await ArtifactWriter.create(out, { maxTensors: header.tensors.length, temporary });
  try {
    await using tensors = await openTensors(artifact);
    const read = (name: string) => tensors.read(name)?.bytes ?? null;
    const pack = packer(model, header, read);
    for (const entry of header.tensors) {
      const { name, format, shape } = entry;
      await writer.add(name, format, shape, pack(entry) ?? read(name)!);
    }
    for (const name of Object.keys(header.files)) {
      if (name !== WEIGHTS_FILE) await writer.addFile(name, await Deno.readFile(join(path, name)));
    }
    return await writer.finish(
      { ...header, ...changes, oatmill: VERSION, created: new Date().toISOString() },
      null, // its files were copied
    );
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Answers the new bytes of a tensor, or null when it was not trained. */
function packer(
  model: TrainableModel,
  header: ArtifactHeader,
  read: (name: string) => Bytes | null,
): (entry: TensorEntry) => Bytes | null {
  const values = new Map(header.layers.map((layer) => [layer.name, storedValues(layer)]));
  return ({ name, format, shape }) => {
    const [, block, layerName, part] = /^block\.(\d+)\.(.+)\.([suv])$/.exec(name) ?? [];
    const layer = block && model.blocks[Number(block)].layers.find((one) => one.name === layerName);
    if (!layer || format.kind === "vector") return packNorm(model, name);
    const prefix = `block.${block}`, columns = read(`${prefix}.${inputOf(layer.name)}.scale`);
    return packPart(layer, part as StoredPart["part"], {
      format,
      shape: [shape[0], shape[1]],
      bytes: read(name)!,
      scale: columns && new Float32Array(columns.buffer),
      values: values.get(`${prefix}.${layerName}`) ?? null,
    });
  };
}

/** Artifacts of versions that knew no mixed precision say bits alone. */
const storedValues = ({ values, bits }: LayerReport): CodedValues | null =>
  values === "f32" || bits === 32 ? null : values ?? (bits === 4 ? "int4" : "int8");

function packNorm({ blocks, finalNorm }: TrainableModel, name: string): Bytes | null {
  const [, block, norm] = /^block\.(\d+)\.(.+)$/.exec(name) ?? [];
  const ends: Readonly<Record<string, Float32Array | undefined>> = {
    finalNorm: finalNorm?.weight,
    "finalNorm.bias": finalNorm?.bias,
  };
  const values = block ? blocks[Number(block)].norms[norm] : ends[name];
  return values ? new Uint8Array(new Float32Array(values).buffer) : null;
}

interface StoredTensor {
  readonly format: WeightFormat;
  readonly shape: Shape2;
  /** Before training. */
  readonly bytes: Bytes;
  /** Of the input's columns, `[dIn]`. */
  readonly scale: Float32Array | null;
  /** Of S; null: as floats. */
  readonly values: CodedValues | null;
}

/** In the coordinates of the artifact; the factors keep the balance they had. */
function packPart(layer: LayerParameters, part: StoredPart["part"], stored: StoredTensor): Bytes {
  const { format, shape, bytes, scale, values } = stored;
  const M = part === "u" ? matrix(...shape, new Float32Array(layer.U)) : toPackedColumns(
    part === "v" ? matrix(...shape, new Float32Array(layer.V)) : sparseMatrix(layer),
    scale,
  );
  if (format.kind === "f32") return packF32(M.data, shape) as Bytes; // in plain memory
  const before: CodedMatrix = unpackCoded(format, bytes, shape);
  const grid = GRIDS[part === "s" && values ? values : "int8"];
  return packCodes(part, format, requantise(M, { before, grid })).bytes;
}

function sparseMatrix({ shape: [dOut, dIn], kept: { indices, values } }: LayerParameters): Matrix {
  const S = matrix(dOut, dIn);
  for (let i = 0; i < indices.length; i++) S.data[indices[i]] = values[i];
  return S;
}
