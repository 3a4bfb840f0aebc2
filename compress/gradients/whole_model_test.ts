/**
 * Gradients of whole models (embedding, blocks, divergence of the logits, and back), as ONNX Runtime computes them, against
 * PyTorch's, which tests/fixtures/gradients.py recorded.
 */
import assert from "node:assert/strict";
import type { Checkpoint } from "../../models/checkpoint.ts";
import { openCheckpoint } from "../../models/open.ts";
import { blockSpec } from "../../models/spec.ts";
import { oracleTest, shared as sharedFile } from "../../models/testing/shared.ts";
import { blockGraph } from "../forward/block_graph.ts";
import { positionInputs } from "../forward/block_inputs.ts";
import { embed, readBlock, readEmbedding } from "../forward/dense_forward.ts";
import { LinalgRuntime, type Tensor } from "../linalg/runtime.ts";
import { shared } from "../statistics.ts";
import { blockGradientGraph, gradientOf } from "./block_gradient.ts";
import { headGradientGraph, TEACHER } from "./head_gradient.ts";

/** Distance in parts of the gradient's norm: f32 against f64. Measured up to 1.4e-4 (gemma2), 4e-6 without soft caps. */
const TOLERANCE = 5e-4;

interface Summary {
  readonly norm: number;
  readonly products: readonly number[];
  readonly entries: readonly number[];
}
interface Recorded {
  readonly ids: readonly number[];
  readonly loss: number;
  readonly gradients: Readonly<Record<string, Summary>>;
}

const RECORDED: Readonly<Record<string, Recorded>> = JSON.parse(
  Deno.readTextFileSync(new URL("../../tests/fixtures/gradients.json", import.meta.url)),
);

const zeros = (...shape: number[]): Tensor => ({
  data: new Float32Array(shape.reduce((a, b) => a * b)),
  shape,
});

/** One model on sequences of one length: what a step of recovery does, without its parameters. */
class Model {
  constructor(readonly checkpoint: Checkpoint, readonly linalg: LinalgRuntime, readonly length: number) {}

  async #block(index: number) {
    const spec = blockSpec(this.checkpoint.spec, index), values = await readBlock(this.checkpoint, index);
    const weights = Object.fromEntries(Object.entries(values).map(([name, { shape }]) => [name, shape]));
    const inputs = Object.fromEntries(
      Object.entries(values).map((
        [name, { data, shape }],
      ) => [name, { data: new Float32Array(data), shape }]),
    );
    const options = { spec, weights, sequences: 1, length: this.length };
    return { options, inputs: { ...inputs, ...positionInputs(spec, this.length) } };
  }

  /** Inputs of the blocks, and the output of the last. */
  async forward(ids: readonly number[]): Promise<Tensor[]> {
    const shape = [this.length, this.checkpoint.spec.hiddenSize];
    const { values } = embed(await readEmbedding(this.checkpoint), [Int32Array.from(ids)], shared);
    const stream: Tensor[] = [{ data: new Float32Array(values as Float32Array), shape }];
    for (let i = 0; i < this.checkpoint.spec.blocks; i++) {
      const { options, inputs } = await this.#block(i), y = zeros(...shape);
      const build = () => blockGraph({ ...options, collect: "nothing" });
      await this.linalg.run(`forward ${i}`, build, { x: stream[i], ...inputs }, { y });
      stream.push(y);
    }
    return stream;
  }

  async head(x: Tensor, t: Tensor) {
    const { checkpoint, length } = this, { spec } = checkpoint, bias = checkpoint.has("finalNorm.bias");
    const inputs: Record<string, Tensor> = { x, t, head: await checkpoint.read("head") };
    const outputs: Record<string, Tensor> = { kl: zeros(length), dx: zeros(...x.shape) };
    for (const name of ["finalNorm", ...bias ? ["finalNorm.bias"] as const : []] as const) {
      inputs[name] = inputs[TEACHER + name] = await checkpoint.read(name);
      outputs[gradientOf(name)] = zeros(spec.hiddenSize);
    }
    const options = { spec, tokens: length, bias, normGradient: true, inputGradient: true };
    await this.linalg.run("head", () => headGradientGraph(options), inputs, outputs);
    return outputs;
  }

  async backward(index: number, x: Tensor, dy: Tensor): Promise<Record<string, Tensor>> {
    const { options, inputs } = await this.#block(index), wanted = Object.keys(options.weights);
    const outputs: Record<string, Tensor> = { dx: zeros(...x.shape) };
    for (const name of wanted) outputs[gradientOf(name)] = zeros(...options.weights[name]);
    const build = () => blockGradientGraph({ ...options, wanted, inputGradient: true });
    await this.linalg.run(`backward ${index}`, build, { x, dy, ...inputs }, outputs);
    return outputs;
  }
}

/** By name as recorded: every gradient. */
async function gradientsOf(model: Model, ids: readonly number[]) {
  const stream = await model.forward(ids), t = (await model.forward([...ids].reverse())).at(-1)!;
  const { kl, dx, ...norms } = await model.head(stream.at(-1)!, t);
  const found: Record<string, Tensor> = {};
  const keep = (prefix: string, gradients: Readonly<Record<string, Tensor>>) => {
    for (const [name, gradient] of Object.entries(gradients)) {
      found[prefix + name.slice(gradientOf("").length)] = gradient;
    }
  };
  keep("", norms);
  let dy = dx;
  for (let i = model.checkpoint.spec.blocks - 1; i >= 0; i--) {
    const { dx, ...gradients } = await model.backward(i, stream[i], dy);
    keep(`block.${i}.`, gradients);
    dy = dx;
  }
  return { loss: kl.data.reduce((a, b) => a + b), gradients: { x: dy, ...found } };
}

/** How far a gradient is from what was recorded of it, in parts of its norm. */
function distance({ data }: Tensor, { norm, products, entries }: Summary): number {
  const product = (k: number) =>
    data.reduce((sum, v, i) => sum + v * Math.sin(12.9898 * (k + 1) * (i + 1)), 0);
  const off = [
    Math.hypot(...data) - norm,
    ...products.map((wanted, k) => product(k) - wanted),
    ...entries.map((wanted, i) => data[Math.floor(i * data.length / entries.length)] - wanted),
  ];
  return Math.max(...off.map(Math.abs)) / norm;
}

for (const [family, { ids, loss, gradients }] of Object.entries(RECORDED)) {
  oracleTest(`gradients of ${family} are PyTorch's`, `oracles/${family}`, async () => {
    const checkpoint = await openCheckpoint(sharedFile(`oracles/${family}/`).pathname);
    const linalg = await LinalgRuntime.create();
    const found = await gradientsOf(new Model(checkpoint, linalg, ids.length), ids);
    await linalg.close();
    checkpoint.close();
    assert.ok(Math.abs(found.loss - loss) < TOLERANCE * loss, `loss ${found.loss}, recorded ${loss}`);
    assert.deepEqual(Object.keys(found.gradients).sort(), Object.keys(gradients).sort());
    for (const [name, gradient] of Object.entries<Tensor>(found.gradients)) {
      const off = distance(gradient, gradients[name]);
      assert.ok(off < TOLERANCE, `${name}: off by ${off} of its norm`);
    }
  });
}
