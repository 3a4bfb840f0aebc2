import assert from "node:assert/strict";
import type { OatmillError } from "../../errors.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { familyOfConfig, weightLocations } from "../families/mod.ts";
import { SafetensorsFolder } from "../formats/safetensors_folder.ts";
import { openCheckpoint } from "../open.ts";
import { SourceCheckpoint } from "../source_checkpoint.ts";
import type { ModelSpec } from "../spec.ts";
import type { TensorSource } from "../tensor_source.ts";
import { DEFAULT_MODEL } from "../testing/artifact.ts";
import type { DECODER_ORACLES } from "../testing/decoder_oracles.ts";
import { type RandomPair, writePeftFolder, writePeftWeights } from "../testing/peft_folder.ts";
import { ReferenceModel } from "../testing/reference_forward.ts";
import { float32Tensor } from "../testing/safetensors_bytes.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import type { LoraAdapter } from "../adapter.ts";
import { readAdapter } from "./read_adapter.ts";

const FIXTURE = new URL("../../tests/fixtures/peft_adapter/", import.meta.url);

/** W + B A, by role. */
function merged(checkpoint: Checkpoint, { layers }: LoraAdapter): Checkpoint {
  return {
    spec: checkpoint.spec,
    path: checkpoint.path,
    format: checkpoint.format,
    tensorBytes: checkpoint.tensorBytes,
    tokenizerFiles: null,
    has: (role) => checkpoint.has(role),
    close: () => checkpoint.close(),
    async read(role) {
      const { data, shape } = await checkpoint.read(role), layer = layers.get(role);
      return { data: layer ? plus(data, layer.B, layer.A, layer.rank) : data, shape };
    },
  };
}

/** W + scale B A in float64, rounded once. @param B `[dOut, r]` @param A `[r, dIn]` */
function plus(W: Float32Array, B: Float32Array, A: Float32Array, rank: number, scale = 1) {
  const dIn = A.length / rank;
  return W.map((w, at) => {
    const row = Math.floor(at / dIn), column = at % dIn;
    let sum = 0;
    for (let i = 0; i < rank; i++) sum += B[row * rank + i] * A[i * dIn + column];
    return w + scale * sum;
  }) as Float32Array<ArrayBuffer>;
}

Deno.test("readAdapter() makes a model whose logits are those of PEFT", async () => {
  const { ids, logits, without } = JSON.parse(await Deno.readTextFile(new URL("expected.json", FIXTURE)));
  const checkpoint = await openCheckpoint(DEFAULT_MODEL);
  const adapter = await readAdapter(FIXTURE.pathname, { spec: checkpoint.spec, name: "default" });
  assert.deepEqual([adapter.rank, adapter.baseModel], [3, "models/default"]);
  assert.deepEqual([...adapter.layers.keys()].sort().slice(0, 3), ["block.1.down", "block.1.q", "block.1.v"]);
  const difference = (a: ArrayLike<number>, b: readonly number[]) =>
    Math.max(...b.map((x, i) => Math.abs(x - a[i])));
  const model = await ReferenceModel.load(merged(checkpoint, adapter));
  checkpoint.close();
  // float64 there, weights rounded to float32 after the sum here: 1.4e-6 met.
  assert.ok(difference(model.logits(ids)[0], logits) < 2e-5);
  assert.ok(difference(logits, without) > 0.5, "the adapter does nothing");
});

/** One of every way in which families store their layers. */
const STORED = ["llama2", "mixtral", "phi3", "gpt2", "gpt_neox", "falcon", "opt_350m"] as const;

for (const name of STORED satisfies readonly typeof DECODER_ORACLES[number][]) {
  oracleTest(`readAdapter() puts every module's rows where ${name} has them`, `oracles/${name}`, async () => {
    const folder = shared(`oracles/${name}/`).pathname;
    const checkpoint = await openCheckpoint(folder), { spec } = checkpoint;
    const dir = await Deno.makeTempDir();
    const pairs = await writePeftFolder(dir, spec, { seed: 5 });
    const ours = merged(checkpoint, await readAdapter(dir, { spec, name }));
    const theirs = await openChanged(folder, spec, pairs);
    try {
      for (const role of weightLocations(spec, theirs.names).keys()) {
        if (!checkpoint.has(role)) continue;
        const [a, b] = [await ours.read(role), await theirs.checkpoint.read(role)];
        const far = a.data.findIndex((x, i) => Math.abs(x - b.data[i]) > 1e-6 * Math.max(1, Math.abs(x)));
        assert.deepEqual([role, far], [role, -1]);
      }
    } finally {
      theirs.checkpoint.close();
      ours.close();
      await Deno.remove(dir, { recursive: true });
    }
  });
}

/** The folder's checkpoint with scale B A added to the stored tensors: what PEFT's merge leaves. */
async function openChanged(folder: string, spec: ModelSpec, pairs: readonly RandomPair[]) {
  const files = await SafetensorsFolder.open(folder);
  const config = JSON.parse(await Deno.readTextFile(`${folder}config.json`));
  const { names } = familyOfConfig(config);
  const locations = weightLocations(spec, names, { source: files });
  const deltas = new Map<string, Float32Array>();
  for (const { module: { path, shape: [dOut, dIn], transposed }, A, B } of pairs) {
    const delta = plus(new Float32Array(dOut * dIn), B, A, A.length / dIn, 2);
    const stored = transposed ? delta.map((_, at) => delta[at % dOut * dIn + Math.floor(at / dOut)]) : delta;
    const tensor = files.info(`${path}.weight`)
      ? `${path}.weight`
      : [...files.names()].find((n) => path.endsWith(`.${n.replace(/\.weight$/, "")}`));
    deltas.set(tensor!, stored);
  }
  const source: TensorSource = {
    format: "safetensors",
    tensorBytes: files.tensorBytes,
    info: (name) => files.info(name),
    async readFloat32(name, first, count) {
      const data = await files.readFloat32(name, first, count), delta = deltas.get(name);
      return delta ? data.map((x, i) => x + delta[first + i]) : data;
    },
    close: () => files.close(),
  };
  const input = { path: folder, spec, source, locations, tokenizerFiles: null };
  const sourceConfig = { config, floatFields: [], generation: null };
  return { checkpoint: new SourceCheckpoint({ ...input, sourceConfig }), names };
}

const SPEC = (await openCheckpoint(DEFAULT_MODEL)).spec;
const Q0 = "base_model.model.model.layers.0.self_attn.q_proj";
const tensor = (name: string, shape: readonly number[], values?: readonly number[]) =>
  float32Tensor(name, shape, values ?? Array(shape.reduce((a, b) => a * b, 1)).fill(0.5));
const PAIR = [tensor(`${Q0}.lora_A.weight`, [2, 256]), tensor(`${Q0}.lora_B.weight`, [256, 2])];

async function read(
  { config = {}, tensors = PAIR, spec = SPEC }: {
    readonly config?: Readonly<Record<string, unknown>>;
    readonly tensors?: typeof PAIR;
    readonly spec?: ModelSpec;
  },
) {
  const dir = await Deno.makeTempDir();
  try {
    const fields = { peft_type: "LORA", r: 2, lora_alpha: 4, ...config };
    await Deno.writeTextFile(`${dir}/adapter_config.json`, JSON.stringify(fields));
    await writePeftWeights(dir, tensors);
    return await readAdapter(dir, { spec, name: "m" });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const refused = async (input: Parameters<typeof read>[0], code: OatmillError["code"], ...words: string[]) => {
  await assert.rejects(() => read(input), (error: OatmillError) => {
    assert.deepEqual([error.code, ...words.filter((word) => !error.message.includes(word))], [code]);
    return true;
  });
};

Deno.test("readAdapter() takes a model without the class around it, too", async () => {
  const tensors = PAIR.map((t) => ({ ...t, name: t.name.replace("model.model.layers", "model.layers") }));
  assert.deepEqual([...(await read({ tensors })).layers.keys()], ["block.0.q"]);
});

Deno.test("readAdapter() scales by alpha, rank and their patterns as PEFT does", async () => {
  const scale = async (config: Readonly<Record<string, unknown>>) =>
    (await read({ config })).layers.get("block.0.q")!.B[0] / 0.5;
  assert.deepEqual(await scale({}), 2);
  assert.deepEqual(await scale({ use_rslora: true }), Math.fround(4 / Math.sqrt(2)));
  assert.deepEqual(await scale({ r: 8, rank_pattern: { q_proj: 2 } }), 2);
  assert.deepEqual(await scale({ alpha_pattern: { "layers\\.0\\..*q_proj": 16, q_proj: 1 } }), 8);
  assert.deepEqual(await scale({ alpha_pattern: { roj: 16, "^model.layers.1": 3 } }), 2);
});

Deno.test("readAdapter() refuses what is more than B A, and says which field", async () => {
  for (
    const [config, word] of [
      [{ peft_type: "IA3" }, "peft_type"],
      [{ use_dora: true }, "DoRA"],
      [{ bias: "lora_only" }, "bias"],
      [{ modules_to_save: ["lm_head"] }, "modules_to_save"],
      [{ target_parameters: ["mlp.experts.down_proj"] }, "target_parameters"],
      [{ init_lora_weights: "pissa" }, "init_lora_weights"],
      [{ r: 0 }, "r:"],
      [{ r: 1024 }, "r:"],
      [{ lora_alpha: "x" }, "lora_alpha"],
      [{ rank_pattern: { "(a+)+": 2 } }, "rank_pattern"],
      [{ alpha_pattern: { "(": 2 } }, "alpha_pattern"],
      [{ target_modules: ["v_proj"] }, "target_modules"],
      [{ layers_to_transform: [1, 2] }, "layers_to_transform"],
      [{ rank_pattern: { q_proj: 4 } }, "rank 4"],
    ] as const
  ) await refused({ config }, "invalid_adapter", word);
});

Deno.test("readAdapter() refuses tensors that do not fit, by name", async () => {
  const other = (name: string, shape: readonly number[]) => [...PAIR, tensor(name, shape)];
  await refused({ tensors: [PAIR[0]] }, "invalid_adapter", "no lora_B.weight");
  await refused({ tensors: [] }, "invalid_adapter", "no lora_A");
  await refused(
    { tensors: [PAIR[0], tensor(`${Q0}.lora_B.weight`, [128, 2])] },
    "invalid_adapter",
    "[128,2]",
    "[256,2]",
  );
  const beyond = Q0.replace("layers.0", "layers.9");
  await refused(
    { tensors: other(`${beyond}.lora_A.weight`, [2, 256]) },
    "invalid_adapter",
    "last block is 5",
  );
  const unknown = Q0.replace("q_proj", "qkv_proj");
  await refused(
    { tensors: other(`${unknown}.lora_A.weight`, [2, 256]) },
    "invalid_adapter",
    "self_attn.q_proj",
  );
  const head = "base_model.model.lm_head";
  await refused({ tensors: other(`${head}.lora_A.weight`, [2, 256]) }, "invalid_adapter", "head");
  await refused({ tensors: other(`${Q0}.lora_magnitude_vector`, [256]) }, "invalid_adapter", "DoRA");
  await refused({ tensors: other(`${Q0}.lora_B.bias`, [256]) }, "invalid_adapter", "biases");
  await refused(
    { tensors: other("base_model.model.model.embed_tokens.lora_embedding_A", [2, 9]) },
    "invalid_adapter",
    "embeddings",
  );
  await refused({ tensors: other(`${Q0}.weight`, [2, 2]) }, "invalid_adapter", "no lora_A.weight");
  const values = Array<number>(512).fill(1);
  values[7] = NaN;
  await refused(
    { tensors: [tensor(PAIR[0].name, [2, 256], values), PAIR[1]] },
    "non_finite_weights",
    "element 7",
  );
  await refused({ config: { lora_alpha: 1e300 } }, "non_finite_weights", "overflows");
});

Deno.test("readAdapter() refuses blocks that pruning made smaller", async () => {
  const own = { heads: 4, kvHeads: 2, intermediateSize: 704 };
  const spec = { ...SPEC, blockSizes: Array.from({ length: SPEC.blocks }, () => own) };
  await refused({ spec }, "invalid_adapter", "pruning", "[128,256]");
});

Deno.test("readAdapter() refuses pickles and says how to convert them", async () => {
  const dir = await Deno.makeTempDir();
  await Deno.writeTextFile(`${dir}/adapter_config.json`, '{"peft_type": "LORA", "r": 2, "lora_alpha": 4}');
  await Deno.writeTextFile(`${dir}/adapter_model.bin`, "x");
  await assert.rejects(
    () => readAdapter(dir, { spec: SPEC, name: "m" }),
    { code: "unsupported_format", message: /safe_serialization/ },
  );
  await Deno.remove(dir, { recursive: true });
});
