/** Graphs in parts, layers on the kernels, against what ONNX Runtime made of the whole. */
import assert from "node:assert/strict";
import { packF32 } from "../../kernels/packers.ts";
import type { TensorEntry } from "../../models/formats/artifact_header.ts";
import { findLayers, type LayeredGraph } from "../../models/onnx/graph_layers.ts";
import { encodeModel, newMessage } from "../../models/onnx/onnx_proto.ts";
import { openOnnx } from "../../models/onnx/open_onnx.ts";
import { entryBytes } from "../../models/pack_dense.ts";
import { node, onnxFile, value } from "../../models/onnx/testing/graphs.ts";
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

/** Goes round `times`: seconds for millions. */
function loopGraph(times: bigint): Uint8Array<ArrayBuffer> {
  const INT64 = 7, BOOL = 9, GRAPH = 5;
  const scalar = (name: string, dataType: number, rawData: Uint8Array) =>
    newMessage("TensorProto", { name, dims: [], dataType, rawData });
  const body = newMessage("GraphProto", {
    name: "body",
    input: [value("i", [], INT64), value("go", [], BOOL), value("a", [1, 2])],
    output: [value("go on", [], BOOL), value("b", [1, 2])],
    node: [node("Identity", ["go"], "go on"), node("Sin", ["a"], "b")],
  });
  return onnxFile({
    input: [value("x", [1, 2])],
    output: [value("y", [1, 2])],
    initializer: [
      scalar("times", INT64, new Uint8Array(BigInt64Array.of(times).buffer)),
      scalar("true", BOOL, Uint8Array.of(1)),
    ],
    node: [newMessage("NodeProto", {
      opType: "Loop",
      input: ["times", "true", "x"],
      output: ["y"],
      attribute: [newMessage("AttributeProto", { name: "body", type: GRAPH, g: body })],
    })],
  });
}

Deno.test("close() does not wait for a graph that goes on", async () => {
  const graph = loopGraph(4_000_000n), load = () => Promise.resolve();
  const packed = { name: "loop", graph, blockChunks: 1, tensors: [], load };
  const engine = await loadGraph(packed, { threads: 1, closeMs: 50 });
  const x = { type: "float32", dims: [1, 2], data: new Float32Array(2) };
  const refused = assert.rejects(engine.run({ x }), { code: "unavailable" });
  await engine.close();
  await refused;
});
