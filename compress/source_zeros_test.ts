/** Models that were pruned elsewhere: the first blocks of the bundled one, pruned here, in the layouts that such models come in. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Shape2, WeightFormat } from "../kernels/layout.ts";
import { unpack } from "../kernels/packers.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import { openTensors } from "../models/formats/artifact_tensors.ts";
import { SafetensorsFile } from "../models/formats/safetensors.ts";
import { openCheckpoint } from "../models/open.ts";
import type { WeightRole } from "../models/checkpoint.ts";
import {
  bitmask24Tensors,
  bitmaskTensors,
  float32Tensor,
  safetensorsBytes,
  type TensorBytes,
} from "../models/testing/safetensors_bytes.ts";
import { matrix } from "./linalg/matrix.ts";
import { compress } from "./pipeline.ts";
import { keepPerGroup } from "./select.ts";
import { sparseAsItIs } from "./source_zeros.ts";

const SOURCE = new URL("../models/default/", import.meta.url).pathname;
const BLOCKS = 2;

type Layout = (name: string, shape: Shape2, values: Float32Array) => TensorBytes[];
const LAYOUTS: Readonly<Record<string, { readonly layout: Layout; readonly format: string }>> = {
  "dense with zeros": {
    layout: (name, shape, values) => [float32Tensor(`${name}.weight`, shape, values)],
    format: "dense",
  },
  "sparse-bitmask": { layout: bitmaskTensors, format: "sparse-bitmask" },
  "sparse-24-bitmask": { layout: bitmask24Tensors, format: "sparse-24-bitmask" },
};

/** Prunes every linear layer but v to 2:4 by magnitude, and writes it as the layout has it. */
async function writePruned(folder: string, { layout, format }: (typeof LAYOUTS)[string]): Promise<void> {
  using file = await SafetensorsFile.open(join(SOURCE, "model.safetensors"));
  const tensors: TensorBytes[] = [];
  for (const { name, shape } of file.entries.values()) {
    if (Number(/layers\.(\d+)/.exec(name)?.[1] ?? 0) >= BLOCKS) continue;
    const values = await file.readFloat32(name, 0, shape.reduce((a, b) => a * b, 1));
    if (!/(mlp|[qko])[._].*proj/.test(name)) tensors.push(float32Tensor(name, shape, values));
    else {
      const [rows, cols] = shape, scores = matrix(rows, cols, values.map(Math.abs));
      const mask = keepPerGroup(scores, { n: 2, m: 4 });
      tensors.push(
        ...layout(name.slice(0, -".weight".length), [rows, cols], values.map((x, i) => x * mask[i])),
      );
    }
  }
  const config = JSON.parse(await Deno.readTextFile(join(SOURCE, "config.json")));
  const quantization_config = { quant_method: "compressed-tensors", sparsity_config: { format } };
  await Deno.mkdir(folder);
  await Deno.writeFile(join(folder, "model.safetensors"), safetensorsBytes(tensors));
  await Deno.writeTextFile(
    join(folder, "config.json"),
    JSON.stringify({ ...config, num_hidden_layers: BLOCKS, quantization_config }),
  );
}

/** `unpack()` of a tensor of an artifact. */
async function valuesOf(path: string, name: string): Promise<Float32Array> {
  await using reader = await openTensors(await openArtifact(path));
  const { entry, bytes } = reader.read(name)!;
  return unpack(entry.format as WeightFormat, bytes, [entry.shape[0], entry.shape[1]]);
}

async function inFolder(use: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const recipe = {
  method: "none",
  calibration: { length: 64 },
  evaluate: { tokens: 128 },
} as const;

Deno.test("method none serves a model pruned elsewhere sparse, as it is, however it is stored", () =>
  inFolder(async (dir) => {
    const hashes = new Set<string>();
    for (const [name, layout] of Object.entries(LAYOUTS)) {
      const source = join(dir, layout.format), out = join(dir, `${layout.format}.artifact`);
      await writePruned(source, layout);
      const { header } = await compress({ source, out, recipe, threads: 2 });
      hashes.add(header.files["model.safetensors"].sha256);
      assert.equal(header.layers.length, 7 * BLOCKS);
      const formats = new Map(header.tensors.map((tensor) => [tensor.name, tensor.format]));
      for (const { name: layer, rate, kept, rank, error } of header.layers) {
        const format = formats.get(`${layer}.s`);
        if (layer.endsWith(".v")) assert.deepEqual([format, rate, kept], [undefined, 0, 1], layer);
        else {
          assert.ok(format?.kind === "windows" && format.windows <= 11, `${name} ${layer}`);
          // Bundled weights are bfloat16: a few of those kept are 0.
          assert.ok(Math.abs(rate - 0.5) < 1e-3 && kept === 1 - rate && rank === 0, `${layer}: ${rate}`);
        }
        assert.ok(error < 1e-3, `${layer}: ${error}`);
      }
      assert.ok(header.recipe.rate > 0.45 && header.recipe.rate < 0.5, `${header.recipe.rate}`);
      const { dense, compressed } = header.perplexity!;
      assert.ok(Math.abs(compressed / dense - 1) < 0.03, `perplexity ${dense} dense, ${compressed} served`);
    }
    assert.equal(hashes.size, 1, "the layouts became different artifacts");

    const checkpoint = await openCheckpoint(join(dir, "sparse-bitmask"));
    for (const layer of ["block.0.q", "block.1.down"]) {
      const { data } = await checkpoint.read(layer as WeightRole);
      const served = await valuesOf(join(dir, "sparse-bitmask.artifact"), `${layer}.s`);
      const largest = data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      data.forEach((x, i) => {
        if (x === 0) assert.equal(served[i], 0, `${layer} ${i}`);
        assert.ok(Math.abs(served[i] - x) <= largest / 63, `${layer} ${i}: ${served[i]}, not ${x}`);
      });
    }
    checkpoint.close();
  }));

Deno.test("method none with f32 values keeps a pruned model exact, and layers dense that the recipe names", () =>
  inFolder(async (dir) => {
    const source = join(dir, "source"), out = join(dir, "out");
    await writePruned(source, LAYOUTS["dense with zeros"]);
    const { header } = await compress({
      source,
      out,
      recipe: { ...recipe, values: "f32", dense: ["q"] },
      threads: 2,
    });
    for (const { name, rate, error } of header.layers) {
      assert.ok(/\.[qv]$/.test(name) ? rate === 0 : Math.abs(rate - 0.5) < 1e-3, name);
      assert.equal(error, 0, name);
    }
    const { dense, compressed } = header.perplexity!;
    assert.ok(Math.abs(compressed / dense - 1) < 1e-4, `perplexity ${dense} dense, ${compressed} served`);
  }));

Deno.test("sparseAsItIs() leaves a layer dense that has few zeros or fits no windows that pay", () => {
  const options = { values: "int8", blockChunks: 2 } as const, columns = 256;
  const of = (keeps: (column: number) => boolean) =>
    matrix(8, columns, Float32Array.from({ length: 8 * columns }, (_, i) => +keeps(i % columns)));
  assert.equal(sparseAsItIs(of((c) => c % 4 !== 0), options), null); // 3/4 kept
  assert.equal(sparseAsItIs(of((c) => c < columns / 2), options), null); // half kept, all on one side
  assert.deepEqual(sparseAsItIs(of((c) => c % 8 === 0), options)?.slots, { windows: 2, halves: true });
  assert.ok(sparseAsItIs(of(() => false), options)); // nothing kept
  const S = of((c) => c % 4 < 2);
  assert.equal(sparseAsItIs(S, options)?.S, S);
  assert.equal(sparseAsItIs(S, { ...options, values: "f32" })?.slots, null);
});
