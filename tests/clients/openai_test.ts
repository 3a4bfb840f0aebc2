/** The official client: models, embeddings, retries and errors by class; other files ask for generations. */
import assert from "node:assert/strict";
import OpenAI from "openai";
import { RateLimiter } from "../../routes/rate_limits.ts";
import { FakeServer, type FakeServerOptions } from "../fake_server.ts";
import { withOracle } from "../oracle_server.ts";

const clientOf = (server: FakeServer, options: ConstructorParameters<typeof OpenAI>[0] = {}) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0, ...options });

function withServer(name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) {
  Deno.test(`the official client ${name}`, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });
}

/** Before it sends, each request is answered by one of `answers` while there are any. */
function failingFirst(answers: Response[]): { fetch: typeof fetch; sent: () => number } {
  let sent = 0;
  const send: typeof fetch = (input, init) => {
    const answer = answers[sent++];
    return answer ? Promise.resolve(answer) : fetch(input, init);
  };
  return { fetch: send, sent: () => sent };
}

withServer("lists, retrieves and deletes models", {}, async (server) => {
  const client = clientOf(server);
  await server.addModel("other");
  const ids: string[] = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["fake", "other"]);
  const model = await client.models.retrieve("other");
  assert.deepEqual([model.id, model.object, model.owned_by], ["other", "model", "oatmill"]);
  assert.ok(Number.isInteger(model.created));
  assert.deepEqual(await client.models.delete("other"), { id: "other", object: "model", deleted: true });
  await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
  await assert.rejects(client.models.delete("other"), OpenAI.NotFoundError);
});

withOracle(
  "the official client reads embeddings as numbers, whatever it asked for on the wire",
  "bert",
  async (server) => {
    const client = clientOf(server);
    const body = { model: "fake", input: ["a cat", "a dog"] };
    const base64 = await client.embeddings.create(body); // its default
    const floats = await client.embeddings.create({ ...body, encoding_format: "float" });
    assert.deepEqual(base64.data.map((d) => d.index), [0, 1]);
    base64.data[1].embedding.forEach((v, i) => assert.ok(Math.abs(v - floats.data[1].embedding[i]) < 1e-6));
    const short = await client.embeddings.create({ ...body, dimensions: 4 });
    assert.equal(short.data[0].embedding.length, 4);
  },
);

withServer(
  "tries again after 429 and 5xx, when their headers say",
  { engine: { script: "ok" } },
  async (server) => {
    const failed = (status: number, headers: HeadersInit) =>
      Response.json({ error: { message: "no", type: "server_error", param: null, code: null } }, {
        status,
        headers,
      });
    const { fetch, sent } = failingFirst([
      failed(503, { "retry-after-ms": "5" }),
      failed(429, { "retry-after-ms": "5" }),
      failed(500, { "retry-after-ms": "5" }),
    ]);
    const client = clientOf(server, { fetch, maxRetries: 3 });
    const answer = await client.completions.create({ model: "fake", prompt: "x" });
    assert.deepEqual([answer.choices[0].text, sent()], ["ok", 4]);
  },
);

Deno.test("the official client waits as long as our 429 says, and is then answered", async () => {
  const perMinute = 600, waitMs = 100;
  let nowMs = 0;
  const rates = new RateLimiter({ requestsPerMinute: perMinute }, () => nowMs);
  await using server = await FakeServer.start({ engine: { script: "ok" }, rates });
  for (let i = 0; i < perMinute; i++) rates.account("127.0.0.1").admit();
  const statuses: number[] = [];
  const send: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    statuses.push(response.status);
    nowMs += waitMs;
    return response;
  };
  const start = performance.now();
  const answer = await clientOf(server, { fetch: send, maxRetries: 1 })
    .completions.create({ model: "fake", prompt: "x" });
  assert.deepEqual([statuses, answer.choices[0].text], [[429, 200], "ok"]);
  assert.ok(performance.now() - start >= waitMs);
});

withServer("does not try again what cannot get better", {}, async (server) => {
  const { fetch, sent } = failingFirst([]);
  const client = clientOf(server, { fetch, maxRetries: 3 });
  await assert.rejects(client.completions.create({ model: "none", prompt: "x" }), OpenAI.NotFoundError);
  assert.equal(sent(), 1);
});

withServer(
  "meets each error by its class, with all that it says",
  {
    apiKeys: ["environment-key-1"],
    run: (_, { signal }) =>
      new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason))),
  },
  async (server) => {
    const admin = clientOf(server, { apiKey: "environment-key-1" });
    const reader = clientOf(server, { apiKey: server.keys.add("reader", ["read"]).key });
    // deno-lint-ignore no-explicit-any -- a class of the client's
    const rejects = (answer: PromiseLike<unknown>, kind: any, code: string, param: string | null) =>
      assert.rejects(Promise.resolve(answer), (e) => {
        assert.ok(e instanceof kind && e instanceof OpenAI.APIError, String(e));
        assert.deepEqual([e.code, e.param], [code, param]);
        assert.ok(e.message.length > 20 && e.requestID, e.message);
        return true;
      });
    const prompt = { model: "fake", prompt: "x" };
    await rejects(clientOf(server).models.list(), OpenAI.AuthenticationError, "invalid_api_key", null);
    await rejects(reader.completions.create(prompt), OpenAI.PermissionDeniedError, "missing_scope", null);
    await rejects(
      admin.completions.create({ ...prompt, n: 0 }),
      OpenAI.BadRequestError,
      "invalid_request",
      "n",
    );
    await rejects(
      admin.completions.create({ ...prompt, model: "none" }),
      OpenAI.NotFoundError,
      "model_not_found",
      "model",
    );
    const long = { ...prompt, prompt: "x".repeat(600) };
    await rejects(
      admin.completions.create(long),
      OpenAI.BadRequestError,
      "context_length_exceeded",
      "prompt",
    );
    const body = new FormData();
    body.append("name", "fake");
    body.append("files", new Blob(["x"]), "a.gguf");
    await admin.post("/models", { body });
    await rejects(admin.models.delete("fake"), OpenAI.ConflictError, "conflict", "model");
  },
);

withServer("meets RateLimitError with the queue full, and InternalServerError where a model fails", {
  engine: { maxRequests: 0 },
}, async (server) => {
  const ask = () => clientOf(server).completions.create({ model: "fake", prompt: "x" });
  await assert.rejects(
    ask(),
    (e) => e instanceof OpenAI.RateLimitError && e.headers!.get("retry-after") === "1",
  );
  await using broken = await FakeServer.start({ open: () => Promise.reject(new Error("torn")) });
  await assert.rejects(
    clientOf(broken).completions.create({ model: "fake", prompt: "x" }),
    OpenAI.InternalServerError,
  );
});

withServer("meets an error within a stream, and gives up at its own deadline", {
  engine: { tokenDelayMs: 5, failAfter: 20 },
}, async (server) => {
  const client = clientOf(server);
  const read = async () => {
    const stream = await client.completions.create({
      model: "fake",
      prompt: "x",
      max_tokens: 100,
      stream: true,
    });
    for await (const _ of stream);
  };
  await assert.rejects(read(), (e) => e instanceof OpenAI.APIError && e.code === "unavailable");
  const hurried = clientOf(server, { timeout: 30 }).completions.create({
    model: "fake",
    prompt: "x",
    max_tokens: 20,
  });
  await assert.rejects(hurried, OpenAI.APIConnectionTimeoutError);
});
