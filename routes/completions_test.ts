import assert from "node:assert/strict";
import { byteTokenizer } from "../tests/fake_engine.ts";
import { FakeServer, type FakeServerOptions, readEvents } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const post = async (server: FakeServer, body: object): Promise<Json> =>
  await (await server.post("/v1/completions", { model: "fake", prompt: "ab", temperature: 0, ...body }))
    .json();
const withServer = (name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });
const textOf = (events: Json[], index = 0) =>
  events.filter((e) => e !== "[DONE]").flatMap((e: Json) => e.choices).filter((c: Json) => c.index === index)
    .map((c: Json) => c.text).join("");

withServer(
  "completions answer with text, usage and timings",
  { engine: { script: "hi" } },
  async (server) => {
    const { choices, usage, timings, object, id } = await post(server, {});
    assert.deepEqual(choices, [{ index: 0, text: "hi", logprobs: null, finish_reason: "stop" }]);
    assert.deepEqual(usage, {
      prompt_tokens: 3,
      completion_tokens: 2,
      total_tokens: 5,
      prompt_tokens_details: { cached_tokens: 1 },
    });
    assert.equal(object, "text_completion");
    assert.match(id, /^cmpl-/);
    assert.equal(timings.prompt_ms, 2);
    assert.equal(timings.predicted_ms, 3);
  },
);

withServer("completions stream the same text, whole characters, then [DONE]", {
  engine: { script: "naïve 🌾" },
}, async (server) => {
  const { choices } = await post(server, {});
  const response = await server.post("/v1/completions", {
    model: "fake",
    prompt: "ab",
    temperature: 0,
    stream: true,
  });
  assert.match(response.headers.get("content-type")!, /^text\/event-stream/);
  const events = await readEvents(response) as Json[];
  assert.equal(textOf(events), choices[0].text);
  assert.equal(events.at(-1), "[DONE]");
  const chunks = events.slice(0, -1);
  assert.equal(new Set(chunks.map((c) => `${c.id} ${c.created} ${c.model}`)).size, 1);
  assert.deepEqual(chunks.map((c) => c.choices[0].finish_reason), [
    ...chunks.slice(1).map(() => null),
    "stop",
  ]);
  assert.ok(chunks.at(-1).timings);
  assert.ok(!("usage" in chunks[0]));
});

withServer(
  "include_usage adds one chunk with usage and no choices",
  { engine: { script: "abc" } },
  async (server) => {
    const body = { model: "fake", prompt: "x", stream: true, stream_options: { include_usage: true } };
    const events = (await readEvents(await server.post("/v1/completions", body))).slice(0, -1) as Json[];
    assert.deepEqual(events.at(-1).choices, []);
    assert.equal(events.at(-1).usage.completion_tokens, 3);
    assert.ok(events.slice(0, -1).every((e) => e.usage === null));
  },
);

withServer(
  "stop strings end the text and are not in it",
  { engine: { script: "one END two" } },
  async (server) => {
    for (const stop of ["END", ["zz", "END"]]) {
      const { choices, usage } = await post(server, { stop });
      assert.equal(choices[0].text, "one ");
      assert.equal(choices[0].finish_reason, "stop");
      assert.equal(usage.completion_tokens, 7);
    }
  },
);

withServer("n choices and several prompts have their own index and seed", {}, async (server) => {
  const { choices, usage } = await post(server, { prompt: ["a", "bc"], n: 2, seed: 1, max_tokens: 3 });
  assert.deepEqual(choices.map((c: Json) => [c.index, c.text]), [[0, "bcd"], [1, "cde"], [2, "bcd"], [
    3,
    "cde",
  ]]);
  assert.equal(usage.prompt_tokens, 5);
  assert.equal(usage.completion_tokens, 12);
  const body = { model: "fake", prompt: ["a", "bc"], n: 2, seed: 1, max_tokens: 3, stream: true };
  const events = await readEvents(await server.post("/v1/completions", body)) as Json[];
  assert.deepEqual([0, 1, 2, 3].map((i) => textOf(events, i)), ["bcd", "cde", "bcd", "cde"]);
});

withServer("prompts may be token ids", {}, async (server) => {
  await post(server, { prompt: [97, 98], max_tokens: 1 });
  await post(server, { prompt: [[97], [98, 99]], max_tokens: 1 });
  assert.deepEqual(server.engines[0].requests.map((r) => r.promptIds), [[97, 98], [97], [98, 99]]);
});

withServer("sampling fields reach the engine", {}, async (server) => {
  const fields = {
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.1,
    repeat_penalty: 1.1,
    presence_penalty: 1,
    frequency_penalty: -1,
    logit_bias: { "97": -100 },
    seed: 7,
    max_tokens: 2,
  };
  await post(server, fields);
  assert.deepEqual(server.engines[0].requests[0].sampling, {
    temperature: 0.5,
    topP: 0.9,
    topK: 40,
    minP: 0.1,
    repeatPenalty: 1.1,
    presencePenalty: 1,
    frequencyPenalty: -1,
    logitBias: [[97, -100]],
    seed: 7,
  });
});

withServer(
  "logprobs and echo give tokens, values and offsets",
  { engine: { script: "é!" } },
  async (server) => {
    const { choices: [{ text, logprobs }] } = await post(server, { logprobs: 2, echo: true });
    assert.equal(text, "abé!");
    assert.deepEqual(logprobs.tokens, ["<s>", "a", "b", "bytes:\\xc3", "bytes:\\xa9", "!"]);
    assert.deepEqual(logprobs.text_offset, [0, 0, 1, 2, 2, 3]);
    assert.deepEqual(logprobs.token_logprobs, [null, -0.5, -0.5, -0.5, -0.5, -0.5]);
    assert.deepEqual(logprobs.top_logprobs[5], { "!": -0.5, '"': -1.5 });
    const echoed = await post(server, { echo: true, max_tokens: 0 });
    assert.deepEqual([echoed.choices[0].text, echoed.choices[0].finish_reason], ["ab", "length"]);
  },
);

withServer("offsets of an echoed prompt leave out the tokens that its text does not have", {
  engine: { script: "!" },
  tokenizer: { stream: () => ({ push: (id) => byteTokenizer.tokenText(id), end: () => "" }) },
}, async (server) => {
  const { choices: [{ text, logprobs }] } = await post(server, { logprobs: 0, echo: true });
  assert.equal(text, "ab!");
  assert.deepEqual(logprobs.tokens, ["<s>", "a", "b", "!"]);
  assert.deepEqual(logprobs.text_offset, [0, 0, 1, 2]);
});

withServer("a refused list says what is wrong with it", {}, async (server) => {
  const message = async (body: object) => (await post(server, body)).error.message;
  assert.match(await message({ stop: ["1", "2", "3", "4", "5"] }), /"stop": Too big/);
  assert.match(await message({ prompt: [] }), /"prompt": Too small/);
  assert.match(await message({ prompt: 5 }), /"prompt": expected string or array/);
});

withServer("a model without a tokenizer takes and gives token ids", {
  tokenizer: null,
  engine: { script: "ab" },
}, async (server) => {
  const { choices } = await post(server, { prompt: [1], return_token_ids: true });
  assert.deepEqual(choices[0].token_ids, [97, 98]);
  assert.equal((await post(server, { prompt: "x" })).error.code, "invalid_tokenizer");
});

withServer("wrong requests are 400 and name the field", {}, async (server) => {
  const cases: [body: unknown, param: string | null, code: string][] = [
    ['{"model": "fake"', null, "invalid_request"],
    [{ model: "fake" }, "prompt", "invalid_request"],
    [{ prompt: "a" }, "model", "invalid_request"],
    [{ model: 5, prompt: "a" }, "model", "invalid_request"],
    [{ model: "fake", prompt: "a", temperature: "hot" }, "temperature", "invalid_request"],
    [{ model: "fake", prompt: "a", temperature: 3 }, "temperature", "invalid_request"],
    [{ model: "fake", prompt: "a", max_tokens: 1.5 }, "max_tokens", "invalid_request"],
    [{ model: "fake", prompt: [1, "a"] }, "prompt.1", "invalid_request"],
    [{ model: "fake", prompt: [258] }, "prompt", "invalid_request"],
    [{ model: "fake", prompt: {} }, "prompt", "invalid_request"],
    [{ model: "fake", prompt: "a", stop: ["1", "2", "3", "4", "5"] }, "stop", "invalid_request"],
    [{ model: "fake", prompt: "a", stop: "" }, "stop", "invalid_request"],
    [{ model: "fake", prompt: "a", logit_bias: { x: 1 } }, "logit_bias.x", "invalid_request"],
    [{ model: "fake", prompt: "a", logit_bias: { "999": 1 } }, "logit_bias", "invalid_request"],
    [{ model: "fake", prompt: "a", logprobs: 6 }, "logprobs", "invalid_request"],
    [{ model: "fake", prompt: "a", suffix: "b" }, "suffix", "invalid_request"],
    [
      { model: "fake", prompt: "a", stream_options: { include_usage: true } },
      "stream_options",
      "invalid_request",
    ],
    [{ model: "fake", prompt: "a".repeat(600) }, "prompt", "context_length_exceeded"],
    [{ model: "fake", prompt: "a", max_tokens: 511 }, "prompt", "context_length_exceeded"],
  ];
  for (const [body, param, code] of cases) {
    const response = await server.post("/v1/completions", body);
    const { error } = await response.json();
    const shown = JSON.stringify(body).slice(0, 80);
    assert.equal(response.status, 400, shown);
    assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"], shown);
    assert.deepEqual(
      [error.param, error.code, error.type],
      [param, code, "invalid_request_error"],
      `${shown}: ${error.message}`,
    );
  }
  assert.equal(server.engines[0]?.requests.length ?? 0, 0);
});

withServer(
  "unknown models, routes and media types have their statuses",
  { limits: { jsonBytes: 1000 } },
  async (server) => {
    const answers: [Promise<Response>, number, string][] = [
      [server.post("/v1/completions", { model: "none", prompt: "a" }), 404, "model_not_found"],
      [server.get("/v1/none"), 404, "not_found"],
      [server.get("/v1/completions"), 404, "not_found"],
      [server.get("/v1/completions", { method: "POST", body: "a=1" }), 415, "unsupported_media_type"],
      [
        server.post("/v1/completions", "{}", { headers: { "content-type": "application/json-patch" } }),
        415,
        "unsupported_media_type",
      ],
      [server.post("/v1/completions", { model: "fake", prompt: "a".repeat(2000) }), 413, "too_large"],
    ];
    for (const [answer, status, code] of answers) {
      const response = await answer;
      assert.deepEqual([response.status, (await response.json()).error.code], [status, code]);
      assert.ok(response.headers.get("x-request-id"));
    }
  },
);

withServer("a body without a length is limited too", { limits: { jsonBytes: 1000 } }, async (server) => {
  const body = new Blob(["x".repeat(5000)]).stream();
  const headers = { "content-type": "application/json" };
  const response = await server.get("/v1/completions", { method: "POST", headers, body });
  assert.deepEqual([response.status, (await response.json()).error.code], [413, "too_large"]);
});

for (const maxRequests of [0, 3]) {
  withServer(
    `a queue with room for ${maxRequests} of 4 choices is 429 with retry-after, also for streams`,
    { engine: { maxRequests, tokenDelayMs: 5 } },
    async (server) => {
      const chat = { n: 4, messages: [{ role: "user", content: "a" }] };
      const requests = { "/v1/completions": { n: 2, prompt: ["a", "b"] }, "/v1/chat/completions": chat };
      for (const [path, fields] of Object.entries(requests)) {
        for (const stream of [false, true]) {
          const response = await server.post(path, { model: "fake", max_tokens: 400, stream, ...fields });
          assert.equal(response.status, 429);
          assert.equal(response.headers.get("retry-after"), "1");
          assert.equal((await response.json()).error.type, "rate_limit_error");
          await until(() => server.engines[0].running === 0);
        }
      }
      assert.equal(server.engines[0].finished, 0);
    },
  );
}

withServer("a stream begins while some of its choices still wait for a place", {
  engine: { slots: 1, tokenDelayMs: 5 },
}, async (server) => {
  const body = { model: "fake", prompt: "a", n: 3, max_tokens: 20, seed: 0, stream: true };
  const response = await server.post("/v1/completions", body);
  assert.equal(server.engines[0].finished, 0);
  const events = await readEvents(response) as Json[];
  assert.deepEqual([0, 1, 2].map((i) => textOf(events, i).slice(0, 3)), ["abc", "bcd", "cde"]);
  assert.ok(events.at(-2).timings);
});

withServer("an error after the stream began is a chunk with error, then the end", {
  engine: { failAfter: 2 },
}, async (server) => {
  const response = await server.post("/v1/completions", { model: "fake", prompt: "a", stream: true });
  const events = await readEvents(response) as Json[];
  assert.equal(response.status, 200);
  assert.equal(events.at(-1).error.code, "unavailable");
  assert.equal(events.length, 3);
});

withServer(
  "a client that leaves a stream ends its generation",
  { engine: { tokenDelayMs: 5 } },
  async (server) => {
    const body = { model: "fake", prompt: "a", stream: true, max_tokens: 400, seed: 0 };
    const response = await server.post("/v1/completions", body);
    const reader = response.body!.getReader();
    await reader.read();
    assert.equal(server.engines[0].running, 1);
    await reader.cancel();
    await until(() => server.engines[0].running === 0);
    assert.equal(server.engines[0].finished, 0);
    assert.match(await server.services.telemetry.metricsText(), /error_type="client_left"/);
  },
);

withServer(
  "a client that does not wait for its answer ends its generation",
  { engine: { tokenDelayMs: 5 } },
  async (server) => {
    const abort = new AbortController();
    const answer = server.post("/v1/completions", { model: "fake", prompt: "a", max_tokens: 400 }, {
      signal: abort.signal,
    });
    await until(() => server.engines[0]?.running === 1);
    abort.abort();
    await assert.rejects(answer);
    await until(() => server.engines[0].running === 0);
    assert.equal(server.engines[0].finished, 0);
  },
);

withServer("a completed stream is not counted as left, and its metrics are there", {
  engine: { script: "abcd" },
}, async (server) => {
  await (await server.post("/v1/completions", { model: "fake", prompt: "a", stream: true })).text();
  const text = await server.services.telemetry.metricsText();
  assert.doesNotMatch(text, /client_left/);
  assert.match(text, /^gen_ai_server_time_to_first_token_count\{.*gen_ai_request_model="fake".*\} 1$/m);
  assert.match(
    text,
    /^gen_ai_server_request_duration_count\{.*gen_ai_operation_name="text_completion".*\} 1$/m,
  );
  assert.match(text, /^gen_ai_client_token_usage_sum\{.*gen_ai_token_type="output".*\} 4$/m);
  await until(() => server.logs.some((l) => l.includes('"request"')));
  const line = JSON.parse(server.logs.find((l) => l.includes('"request"'))!);
  assert.match(line.trace_id, /^[0-9a-f]{32}$/);
});
