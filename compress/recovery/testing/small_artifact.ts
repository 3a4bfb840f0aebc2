/** An artifact of a checkpoint in memory, S + L by magnitude, made in milliseconds. Tests only. */
import type { WeightFormat } from "../../../kernels/layout.ts";
import { assignWindows, packF32, runColumnsOf } from "../../../kernels/packers.ts";
import type { Checkpoint, WeightRole } from "../../../models/checkpoint.ts";
import type { LayerReport, StoredPart } from "../../../models/formats/artifact_header.ts";
import { ArtifactWriter } from "../../../models/formats/artifact_writer.ts";
import { packDense, packDenseTensor } from "../../../models/pack_dense.ts";
import { recipeSchema } from "../../../models/recipe.ts";
import { inputNames, inputOf, linearKind, type LinearName, linearNames } from "../../../models/spec.ts";
import { type Matrix, matrix } from "../../linalg/matrix.ts";
import { packCodes, type PackedTensor, toPackedColumns } from "../../quantize.ts";
import { GRIDS } from "../../quantizers/grid.ts";
import { nearest } from "../../quantizers/nearest.ts";
import { seededRandom } from "../../random.ts";

/** Of S in each kind of layer; the others stay dense. */
export const SMALL_FORMATS: Readonly<Partial<Record<string, WeightFormat>>> = {
  q: { kind: "windows", windows: 8, bits: 8, blockChunks: 1 },
  k: { kind: "windows", windows: 6, halves: true, bits: 8, blockChunks: 1 },
  v: { kind: "windows", windows: 5, halves: true, bits: 4, blockChunks: 1 },
  o: { kind: "q8" },
  down: { kind: "f32" }, // whose columns have no scale, as with values f32
  up: { kind: "windows", windows: 8, bits: 4, blockChunks: 1 },
};
const RANK = 3;

export async function writeSmallArtifact(dir: string, checkpoint: Checkpoint): Promise<void> {
  const { spec } = checkpoint, dense = packDense(checkpoint, { values: "int8" }), random = seededRandom(1);
  const writer = await ArtifactWriter.create(dir, { maxTensors: 3 * dense.tensors.length + 100 });
  const scales = new Map<string, Float32Array>();
  for (let block = 0; block < spec.blocks; block++) {
    for (const input of inputNames(spec).filter((name) => name !== "down")) {
      const name = linearNames(spec).find((one) => inputOf(one) === input)!;
      const width = (await checkpoint.read(`block.${block}.${name}`)).shape[1];
      const scale = Float32Array.from({ length: width }, () => Math.exp(random.normal() / 2));
      scales.set(`block.${block}.${input}`, scale);
      await writer.add(
        `block.${block}.${input}.scale`,
        { kind: "vector" },
        [width],
        new Uint8Array(scale.buffer),
      );
    }
  }
  const layers: LayerReport[] = [];
  for (const { name, format, shape } of dense.tensors) {
    const role = name.replace(/\.w$/, "") as WeightRole, { data } = await checkpoint.read(role);
    const [, block, layer] = /^block\.(\d+)\.(.+)\.w$/.exec(name) ?? [];
    if (!layer) {
      await writer.add(name, format, shape, packDenseTensor(data, shape, format));
      continue;
    }
    const W = toPackedColumns(
      matrix(shape[0], shape[1], data),
      scales.get(`block.${block}.${inputOf(layer as LinearName)}`) ?? null,
    );
    const kind = SMALL_FORMATS[linearKind(layer as LinearName)];
    const parts = kind ? split(W, kind) : [packNearest("w", W, { kind: "q8" })];
    for (const { part, format, shape, bytes } of parts) {
      await writer.add(`${role}.${part}`, format, shape, bytes);
    }
    const values = !kind || kind.kind === "q8"
      ? "int8"
      : kind.kind === "f32"
      ? "f32"
      : kind.kind === "windows" && kind.bits === 4
      ? "int3"
      : "int5";
    layers.push({
      name: role,
      shape: [shape[0], shape[1]],
      rate: 0.4,
      rank: kind ? RANK : 0,
      kept: 0.5,
      bits: 8,
      values,
      error: 0.1,
    });
  }
  await writer.finish({
    oatmill: "test",
    created: "2026-01-01T00:00:00Z",
    name: "small",
    spec,
    recipe: recipeSchema.parse({ method: "oats" }),
    source: { file: "random", format: checkpoint.format, tensorBytes: checkpoint.tensorBytes },
    blockChunks: 1,
    layers,
    perplexity: null,
    denseBytes: 0,
  }, checkpoint.tokenizerFiles);
}

/** Of W the largest entries, and L of what no S could hold: three columns that it shares. */
function split(W: Matrix, format: WeightFormat): PackedTensor[] {
  const shape = [W.rows, W.cols] as const, random = seededRandom(W.rows);
  const mask = assignWindows(
    W.data.map(Math.abs),
    shape,
    format.kind === "windows" ? format : { windows: 8, blockChunks: 1 },
  );
  const S = matrix(W.rows, W.cols, W.data.map((w, i) => mask[i] ? w : 0));
  const factor = (rows: number, cols: number) =>
    matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.normal() / 10));
  const q8 = { kind: format.kind === "f32" ? "f32" : "q8" } as const;
  return [
    packNearest("s", S, format),
    packNearest("v", factor(RANK, W.cols), q8),
    packNearest("u", factor(W.rows, RANK), q8),
  ];
}

function packNearest(part: StoredPart["part"], M: Matrix, format: WeightFormat): PackedTensor {
  if (format.kind === "f32") {
    const shape = [M.rows, M.cols] as const;
    return { part, format, shape, bytes: packF32(M.data, shape) as Uint8Array<ArrayBuffer> };
  }
  const grid = format.kind !== "windows" ? GRIDS.int8 : GRIDS[format.bits === 4 ? "int3" : "int5"];
  return packCodes(part, format, nearest(M, { grid, runColumns: runColumnsOf(format) }));
}
