import assert from "node:assert/strict";
import { Hono } from "hono";
import { FakeServer } from "../tests/fake_server.ts";
import { onError } from "./errors.ts";
import { checkValues, type JsonBodyOptions, readJsonBody } from "./bounded_json.ts";

const BIG = 80_000;
const body = (length: number) => JSON.stringify({ text: "x".repeat(length - 11) });
/** Sends its parts in chunks, without a content-length. */
const chunked = (parts: readonly string[], wait?: Promise<void>) =>
  new ReadableStream<Uint8Array>({
    async start(controller) {
      for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
      await wait;
      controller.close();
    },
  });

async function withEcho(
  options: JsonBodyOptions,
  run: (post: (body: BodyInit, type?: string) => Promise<{ status: number; text: string }>) => Promise<void>,
): Promise<void> {
  // deno-lint-ignore no-explicit-any -- the least app that has the middleware
  const app = new Hono<any>();
  app.onError(onError);
  app.use(readJsonBody(options));
  app.post("/", async (c) => c.text(String(JSON.stringify(await c.req.json()).length)));
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, app.fetch);
  const post = async (body: BodyInit, type = "application/json") => {
    const url = `http://127.0.0.1:${server.addr.port}`;
    const response = await fetch(url, { method: "POST", body, headers: { "content-type": type } });
    return { status: response.status, text: await response.text() };
  };
  try {
    await run(post);
  } finally {
    await server.shutdown();
  }
}

Deno.test("bodies of every length and framing arrive whole, up to the limit", async () => {
  await withEcho({ maxBytes: BIG }, async (post) => {
    for (const length of [100, 70_000, BIG]) {
      assert.deepEqual(await post(body(length)), { status: 200, text: String(length) });
      const [begin, end] = [body(length).slice(0, 50), body(length).slice(50)];
      assert.deepEqual(await post(chunked([begin, end])), { status: 200, text: String(length) });
    }
    for (const large of [body(BIG + 1), chunked([body(BIG + 1)])]) {
      const { status, text } = await post(large);
      assert.equal(status, 413);
      assert.equal(JSON.parse(text).error.code, "too_large");
    }
  });
});

Deno.test("a body that stops arriving is 408", async () => {
  await withEcho({ maxBytes: BIG, idleMs: 20 }, async (post) => {
    const end = Promise.withResolvers<void>();
    const { status, text } = await post(chunked(["{"], end.promise));
    assert.equal(status, 408);
    assert.equal(JSON.parse(text).error.code, "request_timeout");
    end.resolve();
  });
});

Deno.test("large bodies take their share of the memory only while their requests run", async () => {
  await withEcho({ maxBytes: BIG, maxTotalBytes: BIG + 100 }, async (post) => {
    const wait = Promise.withResolvers<void>();
    const held = post(chunked([body(BIG)], wait.promise));
    let second = await post(body(BIG));
    while (second.status === 200) second = await post(body(BIG)); // the first has not arrived yet
    assert.equal(second.status, 429);
    wait.resolve();
    assert.equal((await held).status, 200);
    assert.equal((await post(body(BIG))).status, 200);
  });
});

Deno.test("a body of too many values is refused before it is parsed; strings may hold any text", async () => {
  const ids = `{"prompt":[${"1,".repeat(2 ** 18 + 1)}1]}`;
  assert.throws(() => checkValues(ids), /more than 262144 numbers/);
  checkValues(ids.slice(0, 2 ** 18));
  for (
    const text of [",".repeat(1e6), '\\",'.repeat(3e5), "\\".repeat(3e5) + ",".repeat(3e5), '"'.repeat(3e5)]
  ) {
    checkValues(JSON.stringify({ prompt: [text, text] }));
  }
  assert.throws(() => checkValues(`["\\\\",${"1,".repeat(2 ** 18 + 1)}1]`));
  checkValues(`["${",".repeat(1e6)}`);
  for (const other of ["{}", "null", '""', "[1]", ' "a": -1']) {
    assert.throws(() => checkValues(`[${`${other} ,`.repeat(2 ** 15)}1]`), /16384 values besides numbers/);
  }
  await using server = await FakeServer.start();
  const response = await server.post("/v1/completions", ids);
  assert.equal(response.status, 400);
  assert.match((await response.json()).error.message, /numbers/);
});
