/** Every decoder family: an artifact of its oracle's model leaves as a Hugging Face folder that is the same model. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { SafetensorsFolder } from "../models/formats/safetensors_folder.ts";
import { openCheckpoint } from "../models/open.ts";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { compress } from "../compress/pipeline.ts";
import { openDenseModel } from "./dense_model.ts";
import { encodeFloats } from "./float_types.ts";
import { exportSafetensors, SHARD_BYTES } from "./safetensors.ts";
import { distance, F32_NOISE, logitsOfPath } from "./testing/logits.ts";
import { inFolder, writeArtifactOf } from "./testing/sparse_low_rank.ts";

const ORACLES = shared("oracles/").pathname;
/** One step of rounding each weight, in parts of it, and what blocks make of that. */
const HALF_NOISE = 0.03;

const artifactOf = (oracle: string, folder: string) => writeArtifactOf(join(ORACLES, oracle), folder);

for (const oracle of DECODER_ORACLES) {
  oracleTest(
    `${oracle} leaves an artifact as safetensors with the same logits`,
    `oracles/${oracle}`,
    () =>
      inFolder(async (folder) => {
        const artifact = await artifactOf(oracle, folder), out = join(folder, "out");
        {
          await using model = await openDenseModel(artifact);
          await exportSafetensors(model, out, { type: "f32", shardBytes: SHARD_BYTES });
        }
        const served = await logitsOfPath(artifact);
        const off = distance(served, await logitsOfPath(out));
        assert.ok(off < F32_NOISE, `off by ${off}`);
        await checkNames(join(ORACLES, oracle), out);
      }),
  );
}

/** Transformers finds what it looks for: all names of the published layout, but buffers and what is not needed. */
async function checkNames(source: string, out: string): Promise<void> {
  using a = await SafetensorsFolder.open(source);
  using b = await SafetensorsFolder.open(out);
  const plain = (name: string) => name.replace(/^(model\.decoder|decoder|transformer|gpt_neox|model)\./, "");
  const wanted = new Map([...a.names()].map((name) => [plain(name), a.info(name)!.shape]));
  for (const name of b.names()) {
    const shape = wanted.get(plain(name));
    // The embedding of OPT-350m is narrower than the model; it leaves with its projection multiplied in.
    if (shape && name.endsWith("embed_tokens.weight")) assert.equal(b.info(name)!.shape[0], shape[0]);
    else if (shape) assert.deepEqual(b.info(name)!.shape, shape, name);
    else assert.ok(name === "lm_head.weight" || name === "model.decoder.embed_tokens.weight", name);
  }
  assert.ok([...b.names()].length > 10);
}

for (const type of ["f16", "bf16"] as const) {
  oracleTest(
    `export rounds to ${type}, in shards with an index`,
    "oracles/qwen2",
    () =>
      inFolder(async (folder) => {
        const artifact = await artifactOf("qwen2", folder), out = join(folder, "out");
        await using model = await openDenseModel(artifact);
        const { files, bytes } = await exportSafetensors(model, out, { type, shardBytes: 50_000 });
        assert.ok(files.length > 2);
        const index = JSON.parse(await Deno.readTextFile(join(out, "model.safetensors.index.json")));
        assert.equal(index.metadata.total_size, bytes);
        assert.deepEqual(new Set(Object.values(index.weight_map)), new Set(files));
        const config = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
        assert.equal(config.dtype ?? config.torch_dtype, type === "f16" ? "float16" : "bfloat16");
        const served = await logitsOfPath(artifact);
        const off = distance(served, await logitsOfPath(out));
        assert.ok(off > 1e-6 && off < HALF_NOISE, `off by ${off}`);
      }),
  );
}

oracleTest(
  "export --parts writes S, U and V whose sum is the dense layer",
  "oracles/phi3",
  () =>
    inFolder(async (folder) => {
      const artifact = await artifactOf("phi3", folder);
      await using model = await openDenseModel(artifact);
      const options = { type: "f32", shardBytes: SHARD_BYTES } as const;
      await exportSafetensors(model, join(folder, "dense"), options);
      await exportSafetensors(model, join(folder, "parts"), { ...options, parts: true });
      using dense = await SafetensorsFolder.open(join(folder, "dense"));
      using parts = await SafetensorsFolder.open(join(folder, "parts"));
      const read = (from: SafetensorsFolder, name: string) => {
        const { shape } = from.info(name)!;
        return from.readFloat32(name, 0, shape[0] * shape[1]);
      };
      for (const name of ["self_attn.qkv_proj.q", "self_attn.o_proj", "mlp.gate_up_proj.gate"]) {
        const layer = `model.layers.0.${name}`, [dOut, dIn] = parts.info(`${layer}.sparse`)!.shape;
        const [s, u, v] = await Promise.all(
          ["sparse", "lowrank_u", "lowrank_v"].map((part) => read(parts, `${layer}.${part}`)),
        );
        const whole = await read(dense, `${layer.replace(/\.(q|gate)$/, "")}.weight`), rank = v.length / dIn;
        assert.ok(s.filter((value) => value === 0).length >= s.length / 2);
        for (let at = 0; at < dOut * dIn; at += 7) {
          let sum = s[at];
          for (let r = 0; r < rank; r++) sum += u[Math.floor(at / dIn) * rank + r] * v[r * dIn + at % dIn];
          assert.ok(Math.abs(sum - whole[at]) < 1e-5, `${layer} at ${at}: ${sum}, not ${whole[at]}`);
        }
      }
      assert.ok(parts.info("model.norm.weight"));
    }),
);

/** Of a compression to 8 bits: the kernels round inputs to 8 bits, what is exported does not. */
const SERVED_BOUND = 0.2;

oracleTest(
  "a compressed model, and one with pruned blocks, leave with padded shapes",
  "oracles/llama3",
  () =>
    inFolder(async (folder) => {
      const source = join(ORACLES, "llama3"), text = join(folder, "ids.json");
      const { nll } = JSON.parse(await Deno.readTextFile(join(source, "expected.json")));
      await Deno.writeTextFile(text, JSON.stringify([nll.ids, nll.ids.toReversed()]));
      for (const method of ["oats", "structured"] as const) {
        const artifact = join(folder, method), out = join(folder, `${method}-out`);
        const recipe = {
          method,
          rate: 0.4,
          ...method === "oats" ? { iterations: 1 } : {},
          calibration: { text, sequences: 4, length: 32 },
          evaluate: { tokens: 64 },
        };
        await compress({ source, out: artifact, recipe, threads: 1 });
        await using model = await openDenseModel(artifact);
        await exportSafetensors(model, out, { type: "f32", shardBytes: SHARD_BYTES });
        const off = distance(await logitsOfPath(artifact), await logitsOfPath(out));
        assert.ok(off < SERVED_BOUND, `${method} is off by ${off}`);
      }
    }),
);

oracleTest(
  "GGUF files leave as safetensors, frequencies and tokenizer with them",
  "oracles/gguf",
  () =>
    inFolder(async (folder) => {
      for (const name of ["tiny_llama_q8_0_ropefreqs_tied", "tiny_qwen2_f16"]) {
        const source = join(ORACLES, `gguf/${name}.gguf`), out = join(folder, name);
        await using model = await openDenseModel(source);
        await exportSafetensors(model, out, { type: "f32", shardBytes: SHARD_BYTES });
        assert.deepEqual(await logitsOfPath(out), await logitsOfPath(source));
        const opened = await openCheckpoint(out);
        const read = opened.tokenizerFiles?.tokenizer, had = model.weights.tokenizerFiles?.tokenizer;
        assert.equal(JSON.stringify(read), JSON.stringify(had));
        opened.close();
      }
    }),
);

oracleTest(
  "export refuses what it cannot do, and leaves nothing",
  "oracles/llama2",
  () =>
    inFolder(async (folder) => {
      const artifact = await artifactOf("llama2", folder);
      await Deno.remove(join(artifact, "source_config.json"));
      const header = JSON.parse(await Deno.readTextFile(join(artifact, "oatmill.json")));
      delete header.files["source_config.json"];
      await Deno.writeTextFile(join(artifact, "oatmill.json"), JSON.stringify(header));
      await assert.rejects(openDenseModel(artifact), { code: "invalid_config", message: /--config/ });
      const other = join(ORACLES, "mistral/config.json");
      await assert.rejects(openDenseModel(artifact, { config: other }), {
        code: "invalid_config",
        message: /describes another model/,
      });
      await (await openDenseModel(artifact, { config: join(ORACLES, "llama2") }))[Symbol.asyncDispose]();
      await using model = await openDenseModel(artifact, { config: join(ORACLES, "llama2/config.json") });
      const options = { type: "f32", shardBytes: SHARD_BYTES } as const;
      await assert.rejects(exportSafetensors(model, artifact, options), { code: "conflict" });
      await using dense = await openDenseModel(join(ORACLES, "llama2"));
      await assert.rejects(
        async () => await exportSafetensors(dense, join(folder, "x"), { ...options, parts: true }),
        {
          code: "unsupported_format",
        },
      );
      assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["artifact"]);
    }),
);

Deno.test("encodeFloats() rounds to nearest, and refuses what f16 cannot hold", () => {
  const read = {
    f32: (b: Uint8Array<ArrayBuffer>) => new Float32Array(b.buffer),
    f16: (b: Uint8Array<ArrayBuffer>) => new Float32Array(new Float16Array(b.buffer)),
    bf16: (b: Uint8Array<ArrayBuffer>) =>
      new Float32Array(Uint32Array.from(new Uint16Array(b.buffer), (c) => c << 16).buffer),
  };
  const steps = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 };
  fc.assert(fc.property(fc.array(fc.float({ min: -60000, max: 60000, noNaN: true })), (list) => {
    const values = Float32Array.from(list);
    for (const type of ["f32", "f16", "bf16"] as const) {
      read[type](encodeFloats(values, type, "w")).forEach((back, i) =>
        assert.ok(
          Math.abs(back - values[i]) <= steps[type] * Math.abs(values[i]) + 2 ** -25,
          `${type}: ${values[i]}`,
        )
      );
    }
  }));
  assert.throws(() => encodeFloats(Float32Array.of(1, 7e4), "f16", "w"), {
    code: "unsupported_format",
    message: /"w".*bf16/,
  });
});
