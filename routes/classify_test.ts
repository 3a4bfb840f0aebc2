import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { EncoderModel } from "../models/classifier.ts";
import { shared } from "../models/testing/shared.ts";
import { FakeServer } from "../tests/fake_server.ts";
import { withOracle } from "../tests/oracle_server.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
/** Recorded logits, as probabilities; other arithmetic moves them by less. */
const TOLERANCE = 1e-4;

const FILE = "smooth_64x96.png";
const fileBytes = () => Deno.readFile(shared(`oracles/preprocess/${FILE}`));
const bytes = async (name: string) => await Deno.readFile(shared(`oracles/preprocess/${name}`));

async function recorded(file: string): Promise<number[]> {
  const all = JSON.parse(await Deno.readTextFile(shared("oracles/preprocess/expected.json")));
  const logits: number[] = all.vit.images[file].logits.flat();
  const powers = logits.map((v) => Math.exp(v - Math.max(...logits)));
  return powers.map((p) => p / powers.reduce((a, b) => a + b, 0));
}

async function assertLikeliest(labels: Json[], file: string): Promise<void> {
  const wanted = await recorded(file);
  const order = [...wanted.keys()].sort((a, b) => wanted[b] - wanted[a]);
  assert.deepEqual(labels.map((l) => l.index), order.slice(0, labels.length));
  for (const { index, label, score } of labels) {
    assert.equal(label, `class_${index}`);
    assert.ok(Math.abs(score - wanted[index]) < TOLERANCE, `${score} for ${wanted[index]}`);
  }
}

withOracle("classify reads an image as form, base64 and data URL alike", "vit", async (server) => {
  const form = new FormData();
  form.append("model", "fake");
  form.append("top_k", "3");
  form.append("image", new Blob([await fileBytes()], { type: "image/png" }), FILE);
  const answer: Json = await (await server.get("/v1/classify", { method: "POST", body: form })).json();
  assert.equal(answer.object, "list");
  assert.match(answer.id, /^classify-/);
  assert.deepEqual(answer.usage, { prompt_tokens: 0, total_tokens: 0 });
  const [{ label, score, labels }] = answer.data;
  assert.deepEqual([labels.length, label, score], [3, labels[0].label, labels[0].score]);
  await assertLikeliest(labels, FILE);

  const base64 = Buffer.from(await fileBytes()).toString("base64");
  for (const body of [{ image: base64 }, { input: `data:image/png;base64,${base64}` }]) {
    const same: Json = await (await server.post("/v1/classify", { model: "fake", top_k: 3, ...body })).json();
    assert.deepEqual(same.data, answer.data);
  }
});

withOracle("classify takes several images and keeps their order", "vit", async (server) => {
  const names = ["smooth_48x48.jpg", "gray_40x40.png", "palette_50x40.png"];
  const image = await Promise.all(names.map(async (n) => Buffer.from(await bytes(n)).toString("base64")));
  const { data }: Json = await (await server.post("/v1/classify", { model: "fake", image })).json();
  assert.deepEqual(data.map((d: Json) => [d.index, d.labels.length]), [[0, 5], [1, 5], [2, 5]]);
  for (const [i, name] of names.entries()) await assertLikeliest(data[i].labels, name);
});

withOracle("classify refuses what is no image, naming the field", "vit", async (server) => {
  const half = Buffer.from((await fileBytes()).subarray(0, 2000)).toString("base64");
  const cases: [object | string, number, string, RegExp][] = [
    [{}, 400, "invalid_request", /either "input" or "image"/],
    [{ image: "" }, 400, "invalid_request", /image/],
    [{ image: "%%%" }, 400, "invalid_request", /not base64/],
    [{ image: "https://example.com/cat.png" }, 400, "invalid_request", /not fetched/],
    [{ input: "data:image/png,abc" }, 400, "invalid_request", /;base64/],
    [{ input: "a text" }, 400, "invalid_request", /reads images/],
    [{ image: Buffer.from("GIF89a").toString("base64") }, 400, "unsupported_format", /JPEG, PNG or WebP/],
    [{ image: half }, 400, "invalid_image", /truncated/],
    [{ image: half, top_k: 0 }, 400, "invalid_request", /top_k/],
    [{ image: half, model: "none" }, 404, "model_not_found", /none/],
    [{ image: "A".repeat(17 * 2 ** 20) }, 413, "too_large", /16777216/],
  ];
  for (const [body, status, code, message] of cases) {
    const response = await server.post("/v1/classify", { model: "fake", ...body as object });
    const { error }: Json = await response.json();
    assert.deepEqual([response.status, error.code], [status, code], error.message);
    assert.match(error.message, message);
  }
  const text = await server.post("/v1/classify", "model=fake", { headers: { "content-type": "text/plain" } });
  assert.equal(text.status, 415);
  assert.equal((await text.json()).error.code, "unsupported_media_type");
  const form = new FormData();
  form.append("model", "fake");
  const empty: Json = await (await server.get("/v1/classify", { method: "POST", body: form })).json();
  assert.deepEqual([empty.error.code, empty.error.param], ["invalid_request", "image"]);
});

withOracle("classify labels texts, and counts their tokens", "bert", async (server) => {
  const response = await server.post("/v1/classify", {
    model: "fake",
    input: ["one text", "another"],
    top_k: 2,
  });
  const { data, usage }: Json = await response.json();
  assert.equal(data.length, 2);
  assert.ok(data[0].labels[0].score >= data[0].labels[1].score);
  // A byte is a token here, BOS another.
  assert.equal(usage.prompt_tokens, 9 + 8);
  const image = Buffer.from(await fileBytes()).toString("base64");
  const { error }: Json = await (await server.post("/v1/classify", { model: "fake", image })).json();
  assert.match(error.message, /reads text, not images/);
});

Deno.test("classify and embeddings refuse a decoder, saying what it is for", async () => {
  await using server = await FakeServer.start();
  for (const path of ["/v1/classify", "/v1/embeddings"]) {
    const response = await server.post(path, { model: "fake", input: "a text" });
    const { error }: Json = await response.json();
    assert.deepEqual([response.status, error.code, error.param], [400, "invalid_request", "model"]);
    assert.match(error.message, /is a decoder; POST \/v1\/completions/);
  }
});

Deno.test("classify makes probabilities of one logit, of very many, and none of NaN", async () => {
  const classified = async (logits: Float32Array): Promise<Json> => {
    const empty = new Float32Array(), answer = { states: empty, width: 0, pooled: empty, logits };
    const labels = Array.from(logits, (_, i) => `LABEL_${i}`), run = () => Promise.resolve(answer);
    const encoder: EncoderModel = { reads: "text", labels, imageProcessor: null, run };
    await using server = await FakeServer.start({ encoder });
    return await (await server.post("/v1/classify", { model: "fake", input: "a text", top_k: 1 })).json();
  };
  const { data: [{ score }] } = await classified(Float32Array.of(-Math.log(3)));
  assert.ok(Math.abs(score - 1 / 4) < 1e-6, `${score}`);
  const { data: [{ label, score: sure }] } = await classified(new Float32Array(2 ** 17).fill(1000, 7, 8));
  assert.deepEqual([label, sure], ["LABEL_7", 1]);
  const { error } = await classified(Float32Array.of(1, NaN));
  assert.equal(error.code, "non_finite_activations");
});
