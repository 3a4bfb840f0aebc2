/** Where the weights of experts lie, and what configs may say of them. */
import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import type { TensorNames } from "./families/family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./families/names.ts";
import { specFromConfig } from "./families/spec_from_config.ts";
import { weightLocations } from "./families/weight_names.ts";
import { SourceCheckpoint } from "./source_checkpoint.ts";
import type { TensorSource } from "./tensor_source.ts";
import { randomCheckpoint } from "./testing/random_checkpoint.ts";

const CONFIG = {
  model_type: "mixtral",
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  vocab_size: 10,
  num_local_experts: 3,
};
const spec = specFromConfig(CONFIG);

Deno.test("specFromConfig() reads how many experts there are and how many a token takes", () => {
  assert.deepEqual(spec.mlp.experts, { count: 3, perToken: 2 });
  const { num_local_experts: _, ...plain } = CONFIG;
  assert.deepEqual(specFromConfig(plain).mlp.experts, { count: 8, perToken: 2 });
  assert.equal(specFromConfig({ ...CONFIG, num_local_experts: 0 }).mlp.experts, undefined);
  const refused = [
    { num_experts_per_tok: 4 },
    { num_experts_per_tok: 0 },
    { num_local_experts: 513 },
    { num_local_experts: 512, num_hidden_layers: 1024 },
  ];
  for (const fields of refused) {
    assert.throws(
      () => specFromConfig({ ...CONFIG, ...fields }),
      (e) => e instanceof OatmillError && e.code === "invalid_config" && e.param! in fields,
    );
  }
});

/** A tensor that holds these layers of all experts, one expert after the other. */
interface Stack {
  readonly kinds: readonly ("gate" | "up" | "down")[];
  readonly shape: readonly number[];
}

const LAYOUTS: readonly { names: TensorNames; router: string; stacks: Readonly<Record<string, Stack>> }[] = [
  {
    names: LLAMA_NAMES,
    router: "model.layers.1.mlp.gate.weight",
    stacks: {
      "model.layers.1.mlp.experts.gate_up_proj": { kinds: ["gate", "up"], shape: [3, 24, 8] },
      "model.layers.1.mlp.experts.down_proj": { kinds: ["down"], shape: [3, 8, 12] },
    },
  },
  {
    names: GGUF_NAMES,
    router: "blk.1.ffn_gate_inp.weight",
    stacks: {
      "blk.1.ffn_gate_exps.weight": { kinds: ["gate"], shape: [3, 12, 8] },
      "blk.1.ffn_up_exps.weight": { kinds: ["up"], shape: [3, 12, 8] },
      "blk.1.ffn_down_exps.weight": { kinds: ["down"], shape: [3, 8, 12] },
    },
  },
];

/** A file of which only these tensors matter: the others are zeros, in the shapes that are wanted. */
function sourceOf(
  values: ReadonlyMap<string, { readonly data: Float32Array; readonly shape: readonly number[] }>,
): TensorSource {
  return {
    format: "gguf",
    tensorBytes: 0,
    info: (name) => ({ shape: values.get(name)?.shape ?? [], type: "F32", file: "test" }),
    readFloat32: (name, first, count) =>
      Promise.resolve(new Float32Array(values.get(name)!.data.slice(first, first + count))),
    close() {},
  };
}

for (const { names, router, stacks } of LAYOUTS) {
  Deno.test(`experts are read from the stacked tensors beside ${router}`, async () => {
    const random = randomCheckpoint(spec);
    const read = (expert: number, kind: Stack["kinds"][number]) =>
      random.read(`block.1.experts.${expert}.${kind}`);
    const values = new Map([[router, await random.read("block.1.router")]]);
    for (const [name, { kinds, shape }] of Object.entries(stacks)) {
      const layers = await Promise.all([0, 1, 2].flatMap((e) => kinds.map((kind) => read(e, kind))));
      values.set(name, { data: Float32Array.from(layers.flatMap(({ data }) => [...data])), shape });
    }
    const plain = weightLocations(spec, names, {
      source: { info: (name) => values.has(name) ? { shape: [], type: "F32", file: "test" } : undefined },
    });
    const locations = new Map([...plain].filter(([role]) => /block\.1\.(router|experts)/.test(role)));
    const checkpoint = new SourceCheckpoint({
      path: "test",
      spec,
      source: sourceOf(values),
      locations,
      tokenizerFiles: null,
      sourceConfig: { config: {}, generation: null, floatFields: [] },
    });
    assert.equal(locations.size, 1 + 3 * 3);
    for (const role of locations.keys()) {
      assert.deepEqual(await checkpoint.read(role), await random.read(role));
    }
  });
}
