/** .onnx files to artifacts, and what the artifacts answer. */
import assert from "node:assert/strict";
import { loadGraph } from "../../engine/graph/graph_engine.ts";
import { OnnxRuntime } from "../../engine/graph/ort.ts";
import { feedsOf, type GraphInput, readGraphOracles } from "../../engine/graph/testing/graph_oracles.ts";
import type { Shape2, WeightFormat } from "../../kernels/layout.ts";
import { unpack } from "../../kernels/packers.ts";
import { openArtifact } from "../../models/formats/artifact.ts";
import { openTensors } from "../../models/formats/artifact_tensors.ts";
import {
  type GraphArtifact,
  isGraphArtifact,
  openGraphArtifact,
} from "../../models/formats/graph_artifact.ts";
import { denseGraph, findLayers } from "../../models/onnx/graph_layers.ts";
import { encodeModel } from "../../models/onnx/onnx_proto.ts";
import { openOnnx } from "../../models/onnx/open_onnx.ts";
import { floats, node, onnxFile, value } from "../../models/onnx/testing/graphs.ts";
import type { RecipeInput } from "../../models/recipe.ts";
import { safetensorsBytes } from "../../models/testing/safetensors_bytes.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { compress } from "../pipeline.ts";

/** The oracles' own (README): f32 sums in another order. */
const TOLERANCE = 1e-4;

const sourceOf = (file: string) => shared(`oracles/onnx/${file}`).pathname;

async function compressed(
  file: string,
  recipe: RecipeInput,
  check: (artifact: GraphArtifact, dir: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir(), out = `${folder}/artifact`;
  try {
    const calibration = { sequences: 16, ...recipe.calibration };
    await compress({
      source: sourceOf(file),
      out,
      threads: 2,
      recipe: { smallest_layer: 0, ...recipe, calibration },
    });
    await check(await openGraphArtifact(out), out);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** First output of the artifact for each input. */
async function answers(artifact: GraphArtifact, inputs: readonly GraphInput[]): Promise<Float32Array[]> {
  const engine = await loadGraph(artifact, { threads: 2, tuning: { autotune: false } });
  try {
    const found: Float32Array[] = [];
    for (const input of inputs) {
      const [output] = Object.values(await engine.run(feedsOf(input)));
      found.push(output.data as Float32Array);
    }
    return found;
  } finally {
    await engine.close();
  }
}

function assertNear(found: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  const worst = Array.from(found).reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i])), 0);
  assert.ok(found.length === expected.length && worst < TOLERANCE, `${what}: off by ${worst}`);
}

const oracleOf = async (file: string) => (await readGraphOracles()).find((oracle) => oracle.file === file)!;

for (const file of ["mlp.onnx", "vit_torchscript.onnx"]) {
  oracleTest(
    `at rate 0 in f32 the artifact of ${file} answers what the graph does`,
    "oracles/onnx",
    () =>
      compressed(file, { rate: 0, values: "f32" }, async (artifact, dir) => {
        assert.equal(await isGraphArtifact(dir), true);
        const { cases } = await oracleOf(file);
        const found = await answers(artifact, cases.map(({ input }) => input));
        found.forEach((y, i) => assertNear(y, Object.values(cases[i].outputs)[0].values, file));
        const { agreement } = artifact.header;
        assert.equal(agreement?.inputs, 2);
        assert.ok(agreement.outputs.every(({ largest }) => largest < TOLERANCE));
        assert.equal(agreement.sameLabel, 1);
        await assert.rejects(openArtifact(dir), { code: "unsupported_architecture", message: /onnx_graph/ });
      }),
  );
}

/** `[dOut, dIn]` of a layer as it is stored: S + U V, in f64. */
async function stored(artifact: GraphArtifact, layer: number, [dOut, dIn]: Shape2) {
  await using tensors = await openTensors(artifact);
  const part = (name: string) => {
    const tensor = tensors.read(`layer.${layer}.${name}`);
    if (!tensor) return null;
    const { entry: { format, shape }, bytes } = tensor;
    return { rank: shape[0], values: unpack(format as WeightFormat, bytes, [shape[0], shape[1]]) };
  };
  const S = (part("s") ?? part("w"))!.values, V = part("v"), U = part("u");
  return Float32Array.from({ length: dOut * dIn }, (_, at) => {
    const i = Math.floor(at / dIn), j = at % dIn;
    let sum = S[at];
    for (let r = 0; r < (V?.rank ?? 0); r++) sum += U!.values[i * V!.rank + r] * V!.values[r * dIn + j];
    return sum;
  });
}

oracleTest(
  "S + L at rate 0.5 answer what ONNX Runtime makes of their dense sum",
  "oracles/onnx",
  async () => {
    const file = "vit_dynamo.onnx", { cases } = await oracleOf(file);
    const recipe: RecipeInput = { rate: 0.5, method: "oats", allocation: { kind: "owl" }, values: "f32" };
    await compressed(file, recipe, async (artifact) => {
      const { layers, blockChunks } = artifact.header;
      assert.equal(layers.length, 19);
      assert.equal(blockChunks, 4);
      const size = layers.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
      const rate = layers.reduce((sum, l) => sum + l.rate * l.shape[0] * l.shape[1], 0) / size;
      assert.ok(Math.abs(rate - 0.5) < 0.02, `rate ${rate}`);
      assert.ok(new Set(layers.map(({ rate }) => rate.toFixed(2))).size > 2, "rates differ");
      assert.ok(layers.every(({ rank }) => rank > 0));

      const layered = findLayers(await openOnnx(sourceOf(file)), { smallest: 0 });
      const sums = await Promise.all(layered.layers.map(({ shape }, i) => stored(artifact, i, shape)));
      const same = {
        ...layered,
        layers: layered.layers.map((layer, i) => ({ ...layer, read: () => sums[i] })),
      };
      const runtime = await OnnxRuntime.load(),
        session = await runtime.session(encodeModel(denseGraph(same)), 1);
      const inputs = cases.map(({ input }) => input), found = await answers(artifact, inputs);
      for (const [i, input] of inputs.entries()) {
        const feeds = Object.entries(feedsOf(input)).map(([name, tensor]) => [name, runtime.tensor(tensor)]);
        const { logits } = await runtime.run(session, Object.fromEntries(feeds));
        assertNear(found[i], logits.data as Float32Array, `image ${i}`);
      }
      await session.release();
    });
  },
);

oracleTest(
  "a graph calibrates on tensors of a file; a shared weight is stored once",
  "oracles/onnx",
  async () => {
    const values = Float32Array.from({ length: 20 * 3 * 16 * 16 }, (_, i) => Math.sin(i * i)); // 20 images
    const path = await Deno.makeTempFile({ suffix: ".safetensors" });
    const tensor = {
      name: "x",
      dtype: "F32",
      shape: [20, 3, 16, 16],
      bytes: new Uint8Array(values.buffer),
    } as const;
    await Deno.writeFile(path, safetensorsBytes([tensor]));
    try {
      const recipe: RecipeInput = { rate: 0.3, method: "wanda", calibration: { text: path } };
      await compressed("conv_shared.onnx", recipe, async (artifact) => {
        assert.equal(artifact.header.layers.length, 2); // three nodes
        assert.ok(artifact.header.layers.every(({ error, rate }) => error > 0 && error < 0.2 && rate > 0.2));
        const scales = artifact.tensors.filter(({ name }) => name.startsWith("group."));
        assert.deepEqual(scales.map(({ name }) => name), ["group.0.scale", "group.1.scale"]);
        assert.ok(artifact.header.agreement!.outputs[0].error < 0.5);
        await Promise.resolve();
      });
      const missing = compressed("mlp.onnx", { calibration: { text: path } }, () => Promise.resolve());
      await assert.rejects(missing, {
        code: "invalid_recipe",
        message: /tensor "x" is \[20,3,16,16\], must be \[any, 64\]/,
      });
    } finally {
      await Deno.remove(path);
    }
  },
);

oracleTest(
  "recipes that speak of blocks, and graphs without layers, are refused",
  "oracles/onnx",
  async () => {
    const refused: [RecipeInput, RegExp][] = [
      [{ method: "structured", allocation: "uniform" as never }, /"method" is not for ONNX graphs/],
      [{ budget: { bytes: 1000 } }, /"budget"/],
      [{ dense: ["q"] }, /"dense"/],
      [{ calibration: { statistics: "sequential" } }, /"calibration"/],
      [{ smallest_layer: 1e6 }, /no MatMul or Gemm/],
    ];
    for (const [recipe, message] of refused) {
      await assert.rejects(compressed("mlp.onnx", recipe, () => Promise.resolve()), { message });
    }
  },
);

oracleTest("nothing is left of a graph that ONNX Runtime refuses", "oracles/attacks/onnx", async () => {
  const folder = await Deno.makeTempDir();
  const source = shared("oracles/attacks/onnx/dims_mismatch.onnx").pathname;
  await assert.rejects(compress({ source, out: `${folder}/out`, recipe: {} }), {
    code: "invalid_checkpoint",
  });
  assert.deepEqual(await Array.fromAsync(Deno.readDir(folder)), []);
  await Deno.remove(folder);
});

Deno.test("an artifact pools as its source, and a graph whose labels have no names is refused", async () => {
  const folder = await Deno.makeTempDir();
  const graph = (output: ReturnType<typeof value>, op: ReturnType<typeof node>) =>
    onnxFile({
      input: [value("input_ids", ["batch", "length"], 7)],
      initializer: [floats("table", [30, 64], Math.sin), floats("w", [64, 64], (i) => Math.sin(i * i))],
      output: [output],
      node: [node("Gather", ["table", "input_ids"], "x"), op],
    });
  const run = async (name: string, file: Uint8Array) => {
    await Deno.writeFile(`${folder}/m.onnx`, file);
    const recipe: RecipeInput = { rate: 0.3, smallest_layer: 1, calibration: { sequences: 8 } };
    return await compress({ source: `${folder}/m.onnx`, out: `${folder}/${name}`, recipe, threads: 1 });
  };
  try {
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ vocab_size: 30 }));
    await Deno.mkdir(`${folder}/1_Pooling`);
    const pooling = JSON.stringify({ pooling_mode_mean_tokens: true });
    await Deno.writeTextFile(`${folder}/1_Pooling/config.json`, pooling);
    const states = value("last_hidden_state", ["batch", "length", 64]);
    await run("states", graph(states, node("MatMul", ["x", "w"], "last_hidden_state")));
    const { header } = await openGraphArtifact(`${folder}/states`);
    assert.deepEqual(header.pooling, { pooling: "mean", unitLength: false });
    const unnamed = graph(value("logits", ["batch", "any"]), node("MatMul", ["x", "w"], "logits"));
    await assert.rejects(run("labels", unnamed), { code: "invalid_config", message: /id2label/ });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
