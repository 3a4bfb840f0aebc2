import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import OpenAI from "openai";
import type { EncoderModel } from "../models/classifier.ts";
import { shared } from "../models/testing/shared.ts";
import { byteTokenizer } from "../tests/fake_engine.ts";
import { FakeServer } from "../tests/fake_server.ts";
import { withOracle } from "../tests/oracle_server.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const TOLERANCE = 1e-3;

const embed = async (server: FakeServer, body: object): Promise<Json> =>
  await (await server.post("/v1/embeddings", { model: "fake", ...body })).json();
const close = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((v, i) => Math.abs(v - b[i]) < TOLERANCE);

withOracle(
  "embeddings are read by the official client, as base64 (its default) and as floats",
  "bert",
  async (server) => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    const input = ["one text", "another text"];
    const packed = await client.embeddings.create({ model: "fake", input });
    const plain = await client.embeddings.create({ model: "fake", input, encoding_format: "float" });
    assert.deepEqual(packed.data.map((d) => [d.index, d.object]), [[0, "embedding"], [1, "embedding"]]);
    packed.data.forEach(({ embedding }, i) => assert.deepEqual([...embedding], plain.data[i].embedding));
    assert.ok(!close(plain.data[0].embedding, plain.data[1].embedding));
    assert.deepEqual(packed.usage, { prompt_tokens: 22, total_tokens: 22 });
  },
);

withOracle("embeddings of token ids equal those of their text, one or many", "bert", async (server) => {
  const ids = byteTokenizer.encode("a text");
  const [text, single, many] = await Promise.all(
    ["a text", ids, [ids, byteTokenizer.encode("more")]].map((input) => embed(server, { input })),
  );
  assert.ok(close(single.data[0].embedding, text.data[0].embedding));
  assert.ok(close(many.data[0].embedding, text.data[0].embedding));
  assert.equal(many.data.length, 2);
});

withOracle(
  "embeddings are pooled as asked, shortened to length 1, and refused beyond the model",
  "bert",
  async (server) => {
    const { cases } = JSON.parse(await Deno.readTextFile(shared("oracles/bert/expected.json")));
    const recorded = Object.values(cases).find((c: Json) =>
      c.last_hidden_state_cls || c.features?.cls
    ) as Json;
    const input = recorded?.input_ids ?? [5, 6, 7];
    const cls = (await embed(server, { input, pooling: "cls" })).data[0].embedding;
    const mean = (await embed(server, { input, pooling: "mean" })).data[0].embedding;
    assert.ok(!close(cls, mean));
    const wanted = recorded && (recorded.features ?? { cls: recorded.last_hidden_state_cls });
    if (wanted && !recorded.token_type_ids?.some(Boolean)) assert.ok(close(cls, wanted.cls));
    const short = (await embed(server, { input, pooling: "cls", dimensions: 8 })).data[0].embedding;
    const length = Math.hypot(...cls.slice(0, 8));
    assert.ok(close(short, cls.slice(0, 8).map((v: number) => v / length)));
    const { error } = await embed(server, { input, dimensions: 4096 });
    assert.deepEqual([error.code, error.param], ["invalid_request", "dimensions"]);
  },
);

withOracle("embeddings refuse wrong inputs, naming the field", "bert", async (server) => {
  const cases: [object, string, RegExp][] = [
    [{}, "input", /input/],
    [{ input: "" }, "input", /input/],
    [{ input: [] }, "input", /input/],
    [{ input: Array(2049).fill("x") }, "input", /2048/],
    [{ input: [99999] }, "input", /99999/],
    [{ input: "x", encoding_format: "hex" }, "encoding_format", /float/],
    [{ input: "x", dimensions: 0 }, "dimensions", /1/],
  ];
  for (const [body, param, message] of cases) {
    const { error } = await embed(server, body);
    assert.equal(error.param, param, error.message);
    assert.match(error.message, message);
  }
  const long = await embed(server, { input: "x".repeat(5000) });
  assert.equal(long.error.code, "context_length_exceeded");
});

withOracle("embeddings of an image come from the image encoder", "clip_vision", async (server) => {
  const file = "smooth_64x96.png";
  const all = JSON.parse(await Deno.readTextFile(shared("oracles/preprocess/expected.json")));
  const bytes = await Deno.readFile(shared(`oracles/preprocess/${file}`));
  const input = `data:image/png;base64,${Buffer.from(bytes).toString("base64")}`;
  const { data, usage } = await embed(server, { input });
  assert.ok(close(data[0].embedding, all.clip_vision.images[file].image_embeds.flat()));
  assert.equal(usage.total_tokens, 0);
  const { error } = await embed(server, { input: "a text" });
  assert.match(error.message, /reads images/);
});

Deno.test("embeddings refuse a model that gives labels alone", async () => {
  const answer = {
    states: new Float32Array(),
    width: 0,
    pooled: new Float32Array(),
    logits: Float32Array.of(1, 2),
  };
  const encoder: EncoderModel = {
    reads: "text",
    labels: ["a", "b"],
    imageProcessor: null,
    run: () => Promise.resolve(answer),
  };
  await using server = await FakeServer.start({ encoder });
  for (const [body, param] of [[{}, "model"], [{ pooling: "mean" }, "pooling"]] as const) {
    const { error } = await embed(server, { input: "a text", ...body });
    assert.deepEqual([error.code, error.param], ["invalid_request", param]);
    assert.match(error.message, /\/v1\/classify/);
  }
});
