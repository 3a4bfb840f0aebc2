import assert from "node:assert/strict";
import type { ModelSpec } from "../../models/spec.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { blockGraph, blockWeights } from "../forward/block_graph.ts";
import { positionInputs } from "../forward/block_inputs.ts";
import { LinalgRuntime, type Tensor } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { blockGradientGraph, gradientOf } from "./block_gradient.ts";
import { keptLayers, keptOf, outputKept } from "./kept_products.ts";

const LLAMA = SYNTHETIC_SPECS.tiny, SEQUENCES = 2, LENGTH = 7;
/** And layers whose products its gradient reads. */
const SPECS: Readonly<Record<string, readonly [ModelSpec, readonly string[]]>> = {
  "as llama": [LLAMA, ["q", "k", "v", "o", "gate", "up"]],
  "in parallel": [{ ...LLAMA, parallel: true }, ["q", "k", "v", "gate", "up"]],
  "with norms behind": [
    { ...LLAMA, norm: { ...LLAMA.norm, placement: "after" } },
    ["q", "k", "v", "o", "gate", "up", "down"],
  ],
};

for (const [name, [spec, wantedLayers]] of Object.entries(SPECS)) {
  Deno.test(`a gradient that reads products is the one that computes them: a block ${name}`, async () => {
    const random = seededRandom(3), linalg = await LinalgRuntime.create();
    const tensor = (shape: readonly number[], size = 1): Tensor => ({
      data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => size * random.normal()),
      shape,
    });
    const weights = blockWeights(spec, () => false), wanted = Object.keys(weights);
    const rows = { spec, weights, sequences: SEQUENCES, length: LENGTH };
    const x = tensor([SEQUENCES * LENGTH, spec.hiddenSize]), dy = tensor(x.shape);
    const inputs = {
      x,
      ...positionInputs(spec, LENGTH),
      ...Object.fromEntries(wanted.map((name) => [name, tensor(weights[name], 0.1)])),
    };
    const gradients = async (keptProducts: boolean, kept: Readonly<Record<string, Tensor>>) => {
      const found = Object.fromEntries(wanted.map((name) => [gradientOf(name), tensor(weights[name])]));
      const graph = () => blockGradientGraph({ ...rows, wanted, inputGradient: false, keptProducts });
      await linalg.run(`${keptProducts}`, graph, { ...inputs, ...kept, dy }, found);
      return found;
    };
    const layers = keptLayers(
      blockGradientGraph({ ...rows, wanted, inputGradient: true, keptProducts: true }),
    );
    assert.deepEqual(layers.toSorted(), wantedLayers.toSorted());
    const kept = Object.fromEntries(
      layers.map((layer) => [keptOf(layer), tensor([x.shape[0], weights[layer][0]])]),
    );
    const forward = () => outputKept(blockGraph({ ...rows, collect: "nothing" }), layers, weights);
    await linalg.run("forward", forward, inputs, { y: tensor(x.shape), ...kept });
    const [read, computed] = [await gradients(true, kept), await gradients(false, {})];
    for (const [name, { data }] of Object.entries(computed)) {
      const size = data.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      read[name].data.forEach((v, i) => assert.ok(Math.abs(v - data[i]) <= 1e-5 * size, `${name} ${i}`));
    }
    await linalg.close();
  });
}
