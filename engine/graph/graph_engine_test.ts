/** Graphs in parts, layers on the kernels, against what ONNX Runtime made of the whole. */
import assert from "node:assert/strict";
import { packF32 } from "../../kernels/packers.ts";
import type { TensorEntry } from "../../models/formats/artifact_header.ts";
import { findLayers, type LayeredGraph } from "../../models/onnx/graph_layers.ts";
import { encodeModel } from "../../models/onnx/onnx_proto.ts";
import { openOnnx } from "../../models/onnx/open_onnx.ts";
import { entryBytes } from "../../models/pack_dense.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { loadGraph, type PackedGraph } from "./graph_engine.ts";
import { OnnxRuntime } from "./ort.ts";
import { feedsOf, readGraphOracles } from "./testing/graph_oracles.ts";
import { typedGraph } from "./value_types.ts";

/** The oracles' own (README): f32 sums in another order. */
const TOLERANCE = 1e-4;

/** Every layer dense in f32. */
async function packed(layered: LayeredGraph): Promise<PackedGraph> {
  const graph = encodeModel(await typedGraph(layered, await OnnxRuntime.load()));
  const tensors = layered.layers.map(({ shape }, i): TensorEntry => ({
    name: `layer.${i}.w`,
    format: { kind: "f32" },
    shape,
    offset: 0,
    bytes: entryBytes({ kind: "f32" }, shape),
  }));
  return {
    name: "test",
    graph,
    blockChunks: 1,
    tensors,
    async load(destination) {
      for (const [i, { shape, read }] of layered.layers.entries()) {
        await Promise.resolve(destination(tensors[i]).set(packF32(read(), shape)));
      }
    },
  };
}

const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

for (const threads of [1, 2]) {
  oracleTest(
    `a graph in parts answers what the whole does, on ${threads} thread(s)`,
    "oracles/onnx",
    async () => {
      for (const { file, layers, cases } of await readGraphOracles()) {
        const model = await openOnnx(shared(`oracles/onnx/${file}`).pathname);
        const layered = findLayers(model, { smallest: 0 });
        const found = layered.layers.map(({ shape }) => `${shape}`);
        for (const shape of layers) assert.ok(found.includes(`${shape}`), `${file}: ${shape}`);
        assert.equal(found.length - layers.length, file === "conv_shared.onnx" ? 1 : 0); // one behind Cast
        const engine = await loadGraph(await packed(layered), { threads });
        try {
          for (const { input, outputs } of cases) {
            const answers = await engine.run(feedsOf(input));
            for (const [name, { shape, values }] of Object.entries(outputs)) {
              assert.deepEqual(answers[name].dims, shape);
              const error = worst(answers[name].data as Float32Array<ArrayBuffer>, values);
              assert.ok(error < TOLERANCE, `${file} ${name}: ${error}`);
            }
          }
        } finally {
          await engine.close();
        }
      }
    },
  );
}
