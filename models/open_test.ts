import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { specFromConfig } from "./families/mod.ts";
import { openCheckpoint } from "./open.ts";
import { loadTokenizer } from "./tokenizer.ts";
import type { WeightRole } from "./checkpoint.ts";
import { EncoderEnds } from "./encoder_ends.ts";
import { ENCODER_ORACLES, encoderCases } from "./testing/encoder_oracles.ts";
import { DECODER_ORACLES } from "./testing/decoder_oracles.ts";
import { ReferenceModel } from "./testing/reference_forward.ts";
import { oracleTest, shared } from "./testing/shared.ts";

/** float32 reference against float64: at most 1.1e-4; the least visible mistake tried moves logits by 0.019. */
const LOGITS_TOLERANCE = 1e-3;

interface Prompt {
  readonly ids: number[];
  readonly last_logits: number[];
}

function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  let max = 0;
  for (let i = 0; i < a.length; i++) max = Math.max(max, Math.abs(a[i] - b[i]));
  return max;
}

async function checkPrompts(path: string, prompts: Record<string, Prompt>): Promise<void> {
  const checkpoint = await openCheckpoint(path);
  const model = await ReferenceModel.load(checkpoint);
  checkpoint.close();
  for (const [name, { ids, last_logits }] of Object.entries(prompts)) {
    const difference = maxDifference(model.logits(ids)[0], last_logits);
    assert.ok(difference < LOGITS_TOLERANCE, `${name}: logits differ by ${difference}`);
  }
}

for (const name of DECODER_ORACLES) {
  oracleTest(`openCheckpoint() reads ${name} so that its logits match`, `oracles/${name}`, async () => {
    const folder = shared(`oracles/${name}/`);
    const { prompts } = JSON.parse(await Deno.readTextFile(new URL("expected.json", folder)));
    await checkPrompts(folder.pathname, prompts);
  });
}

for (const name of ENCODER_ORACLES) {
  oracleTest(`openCheckpoint() reads ${name} so that its answers match`, `oracles/${name}`, async () => {
    const checkpoint = await openCheckpoint(shared(`oracles/${name}/`).pathname), { spec } = checkpoint;
    const model = await ReferenceModel.load(checkpoint);
    checkpoint.close();
    const vector = (role: string) => model.weights.get(role as WeightRole) ?? null;
    const ends = new EncoderEnds({ ...spec, encoder: spec.encoder! }, vector);
    for (const { input, output, ...recorded } of await encoderCases(name)) {
      if ("ids" in input && input.types!.some((type) => type !== 0)) continue; // the plain forward knows one text
      const states = model.hiddenStates("ids" in input ? input.ids : input);
      const { pooled, logits } = ends.read(Float32Array.from(states.flatMap((row) => [...row])));
      const wanted = output.logits ?? output.image_embeds ?? output.pooler_output!;
      const difference = maxDifference(output.logits ? logits! : pooled, wanted);
      assert.ok(difference < LOGITS_TOLERANCE, `${recorded.name}: answers differ by ${difference}`);
    }
  });
}

const GGUF_ORACLES = [
  "tiny_llama_f32",
  "tiny_llama_q8_0_ropefreqs_tied",
  "tiny_llama_q4_k_m",
  "tiny_llama_q5_0_q4_0",
  "tiny_qwen2_f16",
];
for (const name of GGUF_ORACLES) {
  oracleTest(`openCheckpoint() reads ${name}.gguf so that its logits match`, "oracles/gguf", async () => {
    const models = JSON.parse(await Deno.readTextFile(shared("oracles/gguf/models.json")));
    await checkPrompts(shared(`oracles/gguf/${name}.gguf`).pathname, models[`${name}.gguf`].prompts);
  });
}

for (const name of ["llama3", "phi3_longrope", "qwen3", "gemma3_text"]) {
  oracleTest(`specFromConfig() reads ${name} as transformers 5 writes it`, `oracles/${name}`, async () => {
    const folder = shared(`oracles/${name}/`);
    const [old, recent] = await Promise.all(["config.json", "config.v5.json"].map(async (file) => {
      const config = JSON.parse(await Deno.readTextFile(new URL(file, folder)));
      return specFromConfig(config);
    }));
    assert.deepEqual(recent, old);
  });
}

const DEFAULT_MODEL = new URL("default/", import.meta.url);
/** expected.json gives five decimals, computed in float32. */
const DEFAULT_TOLERANCE = 2e-4;

Deno.test("the bundled model's tokens and logits match its record", async () => {
  const { cases } = JSON.parse(await Deno.readTextFile(new URL("expected.json", DEFAULT_MODEL)));
  const checkpoint = await openCheckpoint(DEFAULT_MODEL.pathname);
  const tokenizer = loadTokenizer(checkpoint.tokenizerFiles!);
  const model = await ReferenceModel.load(checkpoint);
  checkpoint.close();
  assert.equal(checkpoint.tensorBytes, 9_902_592);
  assert.deepEqual([checkpoint.spec.bosId, checkpoint.spec.eosIds], [1, [2]]);
  for (const { prompt, ids, top10_ids, top10_logits, greedy_ids } of cases) {
    assert.deepEqual(tokenizer.encode(prompt), ids);
    const [logits] = model.logits(ids);
    const best = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 10);
    assert.deepEqual(best, top10_ids);
    assert.ok(maxDifference(best.map((id) => logits[id]), top10_logits) < DEFAULT_TOLERANCE);
    assert.equal(best[0], greedy_ids[0]);
  }
});

oracleTest("SmolLM2's first logits match their record", "models", async () => {
  const { prompts: [{ ids, top10_ids, top10_logits }] } = JSON.parse(
    await Deno.readTextFile(shared("models/expected.json")),
  );
  const checkpoint = await openCheckpoint(shared("models/SmolLM2-135M-Instruct.Q4_1.gguf").pathname);
  const [logits] = (await ReferenceModel.load(checkpoint)).logits(ids);
  checkpoint.close();
  const best = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 10);
  assert.deepEqual(best, top10_ids);
  assert.ok(maxDifference(best.map((id) => logits[id]), top10_logits) < DEFAULT_TOLERANCE);
});

async function codeOf(path: string): Promise<string> {
  try {
    (await openCheckpoint(path)).close();
    return "opened";
  } catch (error) {
    if (!(error instanceof OatmillError)) throw error;
    return error.code;
  }
}

Deno.test("openCheckpoint() says what a path is not", async () => {
  const folder = await Deno.makeTempDir();
  assert.equal(await codeOf(`${folder}/nothing`), "invalid_checkpoint");
  assert.equal(await codeOf(folder), "invalid_config");
  await Deno.writeTextFile(`${folder}/pytorch_model.bin`, "x");
  assert.equal(await codeOf(`${folder}/pytorch_model.bin`), "unsupported_format");
  await Deno.remove(folder, { recursive: true });
});
