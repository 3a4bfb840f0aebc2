/**
 * A LoRA adapter as more rank of an artifact's L: W + B A = S + [U B] [V; A]. What stays is copied; layers that had no L get
 * one, in the format that the kernels know for it.
 */
import { join } from "node:path";
import type { Shape2 } from "../kernels/layout.ts";
import { type CodedMatrix, runColumnsOf, runCount, unpack, unpackCoded } from "../kernels/packers.ts";
import type { LoraLayer } from "../models/adapter.ts";
import { type Artifact, WEIGHTS_FILE } from "../models/formats/artifact.ts";
import type { ArtifactHeader, StoredPart, TensorEntry } from "../models/formats/artifact_header.ts";
import { openTensors, type TensorReader } from "../models/formats/artifact_tensors.ts";
import { ArtifactWriter } from "../models/formats/artifact_writer.ts";
import type { PeftAdapter } from "../models/peft/read_adapter.ts";
import { inputOf, type LinearName } from "../models/spec.ts";
import { type Matrix, matrix, place } from "./linalg/matrix.ts";
import { balanceFactors, packCodes, type PackedTensor, packExact, toPackedColumns } from "./quantize.ts";
import { GRIDS } from "./quantizers/grid.ts";
import { requantise } from "./quantizers/requantise.ts";
import { VERSION } from "./version.ts";

export interface MergeOptions {
  /** Folder to make. */
  readonly out: string;
  /** Default: the artifact's. */
  readonly name?: string;
  /** What the header says of where the adapter came from: no path. */
  readonly adapterName: string;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Writes a new artifact. Its perplexity is not known any more; `layers` says what compression lost before.
 * @throws {OatmillError} conflict: `out` exists; storage_failed; invalid_artifact
 */
export async function mergeAdapter(
  artifact: Artifact,
  adapter: PeftAdapter,
  { out, name, adapterName, onProgress }: MergeOptions,
): Promise<ArtifactHeader> {
  const { header, path } = artifact, { layers, baseModel, rank, parameters } = adapter;
  const writer = await ArtifactWriter.create(out, { maxTensors: header.tensors.length + 2 * layers.size });
  try {
    await using tensors = await openTensors(artifact);
    for (const [done, entry] of header.tensors.entries()) {
      for (const { part, format, shape, bytes } of mergedParts(entry, layers, tensors)) {
        await writer.add(entry.name.replace(/[^.]+$/, part), format, shape, bytes);
      }
      onProgress?.(done + 1, header.tensors.length);
    }
    for (const file of Object.keys(header.files)) {
      if (file !== WEIGHTS_FILE) await writer.addFile(file, await Deno.readFile(join(path, file)));
    }
    return await writer.finish({
      ...header,
      ...name === undefined ? {} : { name },
      oatmill: VERSION,
      created: new Date().toISOString(),
      layers: header.layers.map((layer) => ({
        ...layer,
        rank: layer.rank + (layers.get(layer.name)?.rank ?? 0),
      })),
      adapters: [...header.adapters ?? [], { name: adapterName, baseModel, rank, parameters }],
      perplexity: null,
      agreement: null,
    }, null); // its files were copied
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

type Part = Omit<PackedTensor, "part"> & { readonly part: string };

/** What is written in place of one tensor: behind a layer's main part its factors, and nothing where these were. */
function mergedParts(
  { name, format, shape }: TensorEntry,
  layers: PeftAdapter["layers"],
  tensors: TensorReader,
): Part[] {
  const [, layer = "", part = ""] = /^(block\..+)\.([wsuv])$/.exec(name) ?? [], lora = layers.get(layer);
  if (lora && (part === "u" || part === "v")) return [];
  const copy = {
    part: name.slice(name.lastIndexOf(".") + 1),
    format,
    shape,
    bytes: tensors.read(name)!.bytes,
  } as Part; // vectors too: they are copied as they are
  return lora && format.kind !== "vector"
    ? [copy, ...factors(layer, lora, { tensors, exact: format.kind === "f32" })]
    : [copy];
}

/** V and U of a layer with the adapter's behind them, in the columns' coordinates of the artifact. */
function factors(
  layer: string,
  { rank, A, B }: LoraLayer,
  { tensors, exact }: { readonly tensors: TensorReader; readonly exact: boolean },
): PackedTensor[] {
  const [, block, name] = /^(block\.\d+)\.(.+)$/.exec(layer)!;
  const columns = tensors.read(`${block}.${inputOf(name as LinearName)}.scale`);
  const scale = columns && new Float32Array(columns.bytes.slice().buffer);
  const [dOut, dIn] = [B.length / rank, A.length / rank];
  const { U, V } = balanceFactors(matrix(dOut, rank, B), toPackedColumns(matrix(rank, dIn, A), scale));
  return [
    widened("v", tensors.read(`${layer}.v`), { added: V, down: true, exact }),
    widened("u", tensors.read(`${layer}.u`), { added: U, down: false, exact }),
  ];
}

/**
 * The stored factor with rows below it, or columns beside it. Runs whose values stay keep their codes: only the one that
 * holds the last of U's columns and the first new ones is rounded again.
 */
function widened(
  part: StoredPart["part"],
  stored: ReturnType<TensorReader["read"]>,
  { added, down, exact }: { readonly added: Matrix; readonly down: boolean; readonly exact: boolean },
): PackedTensor {
  const format: TensorEntry["format"] = stored?.entry.format ?? (exact ? { kind: "f32" } : { kind: "q8" });
  if (format.kind === "vector") throw new RangeError(`Factor ${part} is a vector`);
  const [rows, cols]: Shape2 = stored
    ? [stored.entry.shape[0], stored.entry.shape[1]]
    : down
    ? [0, added.cols]
    : [added.rows, 0];
  const M = matrix(down ? rows + added.rows : rows, down ? cols : cols + added.cols);
  if (stored) {
    place(M, matrix(rows, cols, new Float32Array(unpack(format, stored.bytes, [rows, cols]))), 0, 0);
  }
  place(M, added, down ? rows : 0, down ? 0 : cols);
  if (format.kind === "f32") return packExact(part, M);
  const before = stored
    ? unpackCoded(format, stored.bytes, [rows, cols])
    : { rows, cols, codes: new Int8Array(), scales: new Float32Array(), runColumns: runColumnsOf(format) };
  return packCodes(part, format, requantise(M, { before: enlarged(before, M), grid: GRIDS.int8 }));
}

/** Codes and scales in a larger matrix, 0 elsewhere. */
function enlarged(coded: CodedMatrix, { rows, cols }: Matrix): CodedMatrix {
  const { runColumns } = coded, runs = runCount(cols, runColumns), own = runCount(coded.cols, runColumns);
  const codes = new Int8Array(rows * cols), scales = new Float32Array(rows * runs);
  for (let row = 0; row < coded.rows; row++) {
    codes.set(coded.codes.subarray(row * coded.cols, (row + 1) * coded.cols), row * cols);
    scales.set(coded.scales.subarray(row * own, (row + 1) * own), row * runs);
  }
  return { rows, cols, codes, scales, runColumns };
}
