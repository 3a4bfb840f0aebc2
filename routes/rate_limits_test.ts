import assert from "node:assert/strict";
import fc from "fast-check";
import OpenAI from "openai";
import { OatmillError } from "../errors.ts";
import type { EncoderModel } from "../models/classifier.ts";
import { FakeServer } from "../tests/fake_server.ts";
import { RateLimiter } from "./rate_limits.ts";
import { TokenBucket } from "./token_bucket.ts";

Deno.test("a bucket never gives more than a minute's worth and what has flowed in since; its wait is exact", () => {
  const steps = fc.array(fc.tuple(fc.nat(30_000), fc.integer({ min: 1, max: 40 })), { maxLength: 60 });
  fc.assert(fc.property(fc.integer({ min: 1, max: 1000 }), steps, (perMinute, requests) => {
    const bucket = new TokenBucket(perMinute, 0);
    let now = 0, spent = 0;
    for (const [passed, amount] of requests) {
      now += passed;
      const wait = bucket.waitMs(amount, now);
      assert.equal(wait === 0, bucket.level(now) >= amount);
      if (wait === 0) {
        bucket.spend(amount, now);
        spent += amount;
      }
      assert.ok(spent <= perMinute * (1 + now / 60_000) + 1e-6);
    }
    const wanted = perMinute, wait = bucket.waitMs(wanted, now);
    assert.ok(bucket.level(now + Math.ceil(wait)) >= wanted - 1e-6);
  }));
});

Deno.test("a bucket may be overdrawn, pays back first, and does not run backwards with the clock", () => {
  const bucket = new TokenBucket(60, 0);
  bucket.spend(90, 0);
  assert.deepEqual([bucket.level(0), bucket.waitMs(1, 0)], [-30, 31_000]);
  assert.equal(bucket.level(31_000), 1);
  assert.equal(bucket.level(1000), 1);
  assert.equal(bucket.level(1e9), 60);
});

function limited(limits: ConstructorParameters<typeof RateLimiter>[0]) {
  const clock = { ms: 0 };
  return { clock, rates: new RateLimiter(limits, () => clock.ms) };
}
const clientOf = ({ url }: FakeServer, apiKey = "none") =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const PROMPT = { model: "fake", prompt: "abc", max_tokens: 5 };

Deno.test("requests past the limit are 429 with the time to wait, by key", async () => {
  const { clock, rates } = limited({ requestsPerMinute: 2 });
  await using server = await FakeServer.start({ rates });
  const [one, other] = ["one", "other"].map((n) =>
    clientOf(server, server.keys.add(n, ["infer", "read"]).key)
  );
  const { response } = await one.completions.create(PROMPT).withResponse();
  assert.equal(response.headers.get("x-ratelimit-limit-requests"), "2");
  assert.equal(response.headers.get("x-ratelimit-remaining-requests"), "1");
  assert.equal(response.headers.get("x-ratelimit-reset-requests"), "30s");
  assert.equal(response.headers.get("x-ratelimit-limit-tokens"), null);
  await one.completions.create(PROMPT);
  await assert.rejects(one.completions.create(PROMPT), (e) => {
    assert.ok(e instanceof OpenAI.RateLimitError && e.code === "rate_limit_exceeded");
    assert.equal(e.headers.get("retry-after"), "30");
    assert.equal(e.headers.get("retry-after-ms"), "30000");
    assert.equal(e.headers.get("x-ratelimit-remaining-requests"), "0");
    assert.equal(e.headers.get("x-ratelimit-reset-requests"), "1m0s");
    return true;
  });
  await other.completions.create(PROMPT);
  assert.equal((await one.models.list()).data.length, 1); // runs nothing: free
  clock.ms += 30_000;
  await one.completions.create(PROMPT);
});

Deno.test("the client waits as long as it is told and then succeeds", async () => {
  await using server = await FakeServer.start({ rates: new RateLimiter({ requestsPerMinute: 120 }) });
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 3 });
  await Promise.all(Array.from({ length: 121 }, () => client.completions.create(PROMPT)));
});

Deno.test("tokens of whole answers and of streams are charged as usage says, and delay the next request", async () => {
  for (const stream of [false, true]) {
    const { clock, rates } = limited({ tokensPerMinute: 60 });
    await using server = await FakeServer.start({ rates });
    const body = { ...PROMPT, n: 2, stream, ...stream ? { stream_options: { include_usage: true } } : {} };
    const response = await server.post("/v1/completions", body);
    assert.equal(response.headers.get("x-ratelimit-limit-tokens"), "60");
    const total = Number(/"total_tokens":(\d+)/.exec(await response.text())![1]);
    assert.ok(total > 10);
    const next = await server.post("/v1/completions", { ...PROMPT, max_tokens: 1 });
    const { usage } = await next.json();
    assert.equal(next.headers.get("x-ratelimit-remaining-tokens"), String(60 - total - usage.total_tokens));
    await (await server.post("/v1/completions", { ...PROMPT, max_tokens: 60, ignore_eos: true })).text();
    const client = clientOf(server);
    await assert.rejects(client.completions.create(PROMPT), OpenAI.RateLimitError);
    clock.ms += 60_000;
    await client.completions.create(PROMPT);
  }
});

Deno.test("a client that leaves pays for what was made", async () => {
  const { rates } = limited({ tokensPerMinute: 1000 });
  await using server = await FakeServer.start({ rates, engine: { tokenDelayMs: 2 } });
  const response = await server.post("/v1/completions", {
    ...PROMPT,
    max_tokens: 400,
    ignore_eos: true,
    stream: true,
  });
  const reader = response.body!.getReader();
  for (let i = 0; i < 5; i++) await reader.read();
  await reader.cancel();
  const remaining = Number(rates.account("127.0.0.1").headers()["x-ratelimit-remaining-tokens"]);
  assert.ok(remaining <= 1000 - 5 && remaining > 500, String(remaining));
});

Deno.test("inputs of an encoder are charged as they are computed, also when a later one is refused", async () => {
  const { rates } = limited({ tokensPerMinute: 1000 }), empty = new Float32Array();
  const run: EncoderModel["run"] = (input) =>
    "ids" in input && input.ids.length < 5
      ? Promise.resolve({ states: empty, width: 0, pooled: Float32Array.of(1), logits: null })
      : Promise.reject(new OatmillError("context_length_exceeded", "too long"));
  const encoder: EncoderModel = { reads: "text", labels: null, imageProcessor: null, run };
  await using server = await FakeServer.start({ rates, encoder });
  const left = async (input: number[][]) => {
    const response = await server.post("/v1/embeddings", { model: "fake", input });
    await response.text();
    return Number(rates.account("127.0.0.1").headers()["x-ratelimit-remaining-tokens"]);
  };
  assert.equal(await left([[1, 2, 3], [4]]), 996);
  assert.equal(await left([[1, 2, 3], [1, 2, 3, 4, 5]]), 993);
});

Deno.test("accounts that have nothing to remember are forgotten", () => {
  const { clock, rates } = limited({ requestsPerMinute: 60 });
  for (let i = 0; i < 10_000; i++) rates.account(`early-${i}`).admit();
  clock.ms += 500;
  rates.account("late").admit(); // none is idle yet
  assert.equal(rates.size, 10_001);
  clock.ms += 1000;
  for (let i = 0; i < 10_000; i++) rates.account(`later-${i}`).admit();
  assert.ok(rates.size <= 10_001, String(rates.size));
});
