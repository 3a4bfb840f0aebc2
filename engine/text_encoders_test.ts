/**
 * RoBERTa and DistilBERT have no recorded reference: the weights of BERT's, under their names and in their layouts, must
 * give what BERT gives.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { EncoderModel, EncoderOutput } from "../models/classifier.ts";
import { SafetensorsFolder } from "../models/formats/safetensors_folder.ts";
import { encoderCases } from "../models/testing/encoder_oracles.ts";
import { float32Tensor, safetensorsBytes, type TensorBytes } from "../models/testing/safetensors_bytes.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { openModel } from "./open_model.ts";

const BERT = shared("oracles/bert").pathname;
/** As for the oracle itself. */
const TOLERANCE = 1e-3;

interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
type Tensors = ReadonlyMap<string, Tensor>;

async function bertTensors(): Promise<Tensors> {
  const folder = await SafetensorsFolder.open(BERT), tensors = new Map<string, Tensor>();
  for (const name of folder.names()) {
    const { shape } = folder.info(name)!;
    tensors.set(name, { shape, data: await folder.readFloat32(name, 0, shape.reduce((a, b) => a * b, 1)) });
  }
  folder.close();
  return tensors;
}

/** The answers of another family's folder with these tensors, of texts of the first type alone. */
async function answers(config: Readonly<Record<string, unknown>>, tensors: readonly TensorBytes[]) {
  const dir = await Deno.makeTempDir();
  try {
    const own = JSON.parse(await Deno.readTextFile(join(BERT, "config.json")));
    await Deno.writeTextFile(join(dir, "config.json"), JSON.stringify({ ...own, ...config }));
    await Deno.writeFile(join(dir, "model.safetensors"), safetensorsBytes(tensors));
    const model = await openModel(dir, { threads: 1 });
    const cases = (await encoderCases("bert")).filter(({ input }) =>
      "ids" in input && input.types!.every((type) => type === 0)
    );
    const found: { readonly answer: EncoderOutput; readonly logits: readonly number[] }[] = [];
    for (const { input, output } of cases) {
      found.push({ answer: await (model.encoder as EncoderModel).run(input), logits: output.logits! });
    }
    await model.engine.close();
    assert.equal(found.length, 2);
    return found;
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(Math.abs(actual[i] - expected[i]) < TOLERANCE, `${i}: ${actual[i]}, ${expected[i]}`);
  }
}

oracleTest(
  "RoBERTa is BERT with positions from row 2 on and a pooler in its classifier",
  "oracles",
  async () => {
    const tensors = [...await bertTensors()].map(([name, { shape, data }]) => {
      const renamed = name.replace(/^bert\.pooler\.dense/, "classifier.dense").replace(/^bert\./, "roberta.")
        .replace(/^classifier\.(weight|bias)$/, "classifier.out_proj.$1");
      if (name.includes("position_embeddings")) {
        return float32Tensor(renamed, [shape[0] + 2, shape[1]], [
          ...new Array(2 * shape[1]).fill(7),
          ...data,
        ]);
      }
      return name.includes("token_type")
        ? float32Tensor(renamed, [1, shape[1]], data.subarray(0, shape[1]))
        : float32Tensor(renamed, shape, data);
    });
    const config = {
      model_type: "roberta",
      architectures: ["RobertaForSequenceClassification"],
      max_position_embeddings: 66,
      type_vocab_size: 1,
      pad_token_id: 1,
    };
    for (const { answer, logits } of await answers(config, tensors)) assertClose(answer.logits!, logits);
  },
);

/** DistilBERT's names of BERT's weights. */
const DISTILBERT_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^bert\.pooler\.dense/, "pre_classifier"],
  [/^bert\.encoder\.layer/, "distilbert.transformer.layer"],
  [/^bert\./, "distilbert."],
  [/attention\.self\.query/, "attention.q_lin"],
  [/attention\.self\.key/, "attention.k_lin"],
  [/attention\.self\.value/, "attention.v_lin"],
  [/attention\.output\.LayerNorm/, "sa_layer_norm"],
  [/attention\.output\.dense/, "attention.out_lin"],
  [/intermediate\.dense/, "ffn.lin1"],
  [/(layer\.\d+)\.output\.LayerNorm/, "$1.output_layer_norm"],
  [/(layer\.\d+)\.output\.dense/, "$1.ffn.lin2"],
];

oracleTest("DistilBERT is BERT without token types and with a rectified pooler", "oracles", async () => {
  const bert = await bertTensors(), types = bert.get("bert.embeddings.token_type_embeddings.weight")!.data;
  const tensors = [...bert].filter(([name]) => !name.includes("token_type")).map(
    ([name, { shape, data }]) => {
      const renamed = DISTILBERT_NAMES.reduce((now, [from, to]) => now.replace(from, to), name);
      const values = name.includes("word_embeddings") ? data.map((v, i) => v + types[i % shape[1]]) : data;
      return float32Tensor(renamed, shape, values);
    },
  );
  const { layer_norm_eps: rms_norm_eps } = JSON.parse(await Deno.readTextFile(join(BERT, "config.json")));
  const config = {
    ...{ model_type: "distilbert", architectures: ["DistilBertForSequenceClassification"], rms_norm_eps },
    ...{ dim: 64, hidden_dim: 256, n_layers: 2, n_heads: 4, activation: "gelu" },
  };
  const own = await openModel(BERT, { threads: 1 }), weight = (name: string) => bert.get(name)!.data;
  const cases = await encoderCases("bert");
  for (const { answer: { states, pooled, logits } } of await answers(config, tensors)) {
    const input = cases.find(({ input }) => "ids" in input && input.ids.length === states.length / 64)!.input;
    const wanted = (await own.encoder!.run(input)).states;
    assertClose(states, wanted);
    const linear = (name: string, x: ArrayLike<number>) =>
      Array.from(
        weight(`${name}.bias`),
        (b, i) =>
          Array.from(x).reduce((sum, v, j) => sum + v * weight(`${name}.weight`)[i * x.length + j], b),
      );
    const pool = linear("bert.pooler.dense", wanted.subarray(0, 64)).map((v) => Math.max(v, 0));
    assertClose(pooled, pool);
    assertClose(logits!, linear("classifier", pool));
  }
  await own.engine.close();
});
