/** ONNX graphs on the real server: uploaded, compressed, asked for labels. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "@std/testing/bdd";
import { textClassifier, VOCABULARY } from "../models/onnx/testing/graphs.ts";
import { sharedFolder } from "./server_process.ts";
import { uploadModel, useServer } from "./server_suite.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const EXACT = { rate: 0, values: "f32", smallest_layer: 0, calibration: { sequences: 4 } };
const SPARSE = { ...EXACT, rate: 0.3, values: "int8", method: "oats" };

/** A token is a word. */
const TOKENIZER = {
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: "WhitespaceSplit" },
  post_processor: null,
  decoder: null,
  model: {
    type: "WordPiece",
    unk_token: "w0",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(Array.from({ length: VOCABULARY }, (_, i) => [`w${i}`, i])),
  },
};

const oracles = sharedFolder("oracles");
const title = oracles ? "ONNX graphs" : "ONNX graphs (ignored: ../shared/oracles is absent)";

describe(title, () => {
  if (!oracles) return it.skip("", () => {});
  const server = useServer();
  const upload = (files: Record<string, Uint8Array<ArrayBuffer>>, name: string, recipe: object) =>
    uploadModel(server(), files, { name, recipe });
  const read = (path: string) => Deno.readFile(join(oracles, path));
  const classify = async (body: object): Promise<Json> =>
    await (await server().post("/v1/classify", body)).json();

  it("labels an image as the reference does, with its values in a file of their own", async () => {
    const files = {
      "vit_dynamo.onnx": await read("onnx/vit_dynamo.onnx"),
      "vit_dynamo.onnx.data": await read("onnx/vit_dynamo.onnx.data"),
      "config.json": await read("vit/config.json"),
      "preprocessor_config.json": await read("vit/preprocessor_config.json"),
    };
    const job = await upload(files, "vit", EXACT);
    assert.deepEqual([job.status, job.error, job.result.layers.length], ["succeeded", null, 19]);
    assert.equal(job.result.agreement.sameLabel, 1);
    const file = "smooth_48x48.jpg", image = (await read(`preprocess/${file}`)).toBase64();
    const { data: [found] } = await classify({ model: "vit", image });
    const { vit } = JSON.parse(await Deno.readTextFile(join(oracles, "preprocess/expected.json")));
    const logits: number[] = vit.images[file].logits.flat();
    assert.equal(found.label, `class_${logits.indexOf(Math.max(...logits))}`);
    const { error } = await (await server().post("/v1/embeddings", { model: "vit", input: "x" })).json();
    assert.match(error.message, /reads images/);
    const completion = await server().post("/v1/completions", { model: "vit", prompt: [1] });
    assert.equal(completion.status, 400);
    await completion.body?.cancel();
  });

  it("labels texts of a compressed graph, and refuses vectors that a graph does not make", async () => {
    const config = { vocab_size: VOCABULARY, id2label: { 0: "a", 1: "b", 2: "c" } };
    const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
    const files = {
      "text.onnx": textClassifier(),
      "config.json": json(config),
      "tokenizer.json": json(TOKENIZER),
    };
    const job = await upload(files, "text", SPARSE);
    assert.deepEqual([job.status, job.error, job.result.layers.length], ["succeeded", null, 2]);
    const { data: [found], usage } = await classify({ model: "text", input: "w3 w4 w5 w6 w7" });
    assert.equal(usage.prompt_tokens, 5);
    assert.ok(["a", "b", "c"].includes(found.label));
    const { error } = await (await server().post("/v1/embeddings", { model: "text", input: [3, 4] })).json();
    assert.match(error.message, /no vectors/);
  });

  it("refuses a hostile graph with its reason, and serves on", async () => {
    const job = await upload({ "evil.onnx": await read("attacks/onnx/external_traversal.onnx") }, "evil", {});
    assert.deepEqual([job.status, job.error.code], ["failed", "invalid_checkpoint"]);
    assert.match(job.error.message, /"evil\.onnx".*external data.*stay in the model's folder/);
    assert.equal((await server().get("/healthz")).status, 200);
  });
});
