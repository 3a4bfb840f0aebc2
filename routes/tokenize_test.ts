import assert from "node:assert/strict";
import fc from "fast-check";
import { FakeServer, type FakeServerOptions } from "../tests/fake_server.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const post = async (server: FakeServer, path: string, body: object): Promise<Json> =>
  await (await server.post(path, { model: "fake", ...body })).json();
const withServer = (name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });

withServer("tokenize answers as vLLM does: special tokens, count, context, strings", {}, async (server) => {
  assert.deepEqual(await post(server, "/tokenize", { prompt: "ab" }), {
    count: 3,
    max_model_len: 512,
    tokens: [256, 97, 98],
    token_strs: null,
  });
  const { tokens, token_strs } = await post(server, "/tokenize", {
    prompt: "ab",
    add_special_tokens: false,
    return_token_strs: true,
  });
  assert.deepEqual([tokens, token_strs], [[97, 98], ["a", "b"]]);
});

withServer(
  "tokenize answers as llama.cpp does: content without special tokens, pieces",
  {},
  async (server) => {
    assert.deepEqual((await post(server, "/tokenize", { content: "ab" })).tokens, [97, 98]);
    const { tokens } = await post(server, "/tokenize", {
      content: "aé",
      add_special: true,
      with_pieces: true,
    });
    assert.deepEqual(tokens, [
      { id: 256, piece: "<s>" },
      { id: 97, piece: "a" },
      { id: 0xc3, piece: [0xc3] },
      { id: 0xa9, piece: [0xa9] },
    ]);
  },
);

withServer("tokenize counts a conversation as chat completions do", {}, async (server) => {
  const messages = [{ role: "developer", content: "x" }, {
    role: "user",
    content: [{ type: "text", text: "hi" }],
  }];
  const { tokens, count } = await post(server, "/tokenize", { messages });
  const chat = await post(server, "/v1/chat/completions", { messages, max_tokens: 1 });
  assert.deepEqual(server.engines[0].requests[0].promptIds, tokens);
  assert.equal(chat.usage.prompt_tokens, count);
});

withServer("detokenize gives back every text that was tokenized", {}, async (server) => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "binary" }), async (prompt) => {
      const { tokens } = await post(server, "/tokenize", { prompt, add_special_tokens: false });
      assert.deepEqual(await post(server, "/detokenize", { tokens }), { prompt, content: prompt });
    }),
    { numRuns: 50 },
  );
});

withServer(
  "tokenize and detokenize name the field of a wrong request",
  { limits: { jsonBytes: 1000 } },
  async (server) => {
    const cases: [path: string, body: object, param: string | null, code: string][] = [
      ["/tokenize", {}, "prompt", "invalid_request"],
      ["/tokenize", { prompt: "a", content: "b" }, "messages", "invalid_request"],
      ["/tokenize", { prompt: 5 }, "prompt", "invalid_request"],
      ["/tokenize", { messages: [] }, "messages", "invalid_request"],
      ["/tokenize", { prompt: "a", model: "none" }, "model", "model_not_found"],
      ["/tokenize", { prompt: "a".repeat(2000) }, null, "too_large"],
      ["/detokenize", {}, "tokens", "invalid_request"],
      ["/detokenize", { tokens: [97, 258] }, "tokens.1", "invalid_request"],
      ["/detokenize", { tokens: [-1] }, "tokens.0", "invalid_request"],
      ["/detokenize", { tokens: ["a"] }, "tokens.0", "invalid_request"],
    ];
    for (const [path, body, param, code] of cases) {
      const { error } = await post(server, path, body);
      assert.deepEqual([error?.param, error?.code], [param, code], JSON.stringify(body).slice(0, 60));
    }
    const { paths } = await (await server.get("/openapi.json")).json();
    assert.ok(paths["/tokenize"].post && paths["/detokenize"].post);
  },
);

withServer("a model without a tokenizer cannot tokenize", { tokenizer: null }, async (server) => {
  assert.equal((await post(server, "/tokenize", { prompt: "a" })).error.code, "invalid_tokenizer");
  assert.equal((await post(server, "/detokenize", { tokens: [1] })).error.code, "invalid_tokenizer");
});
