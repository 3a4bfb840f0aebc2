import assert from "node:assert/strict";
import { until } from "../tests/until.ts";
import { eventStream } from "./event_stream.ts";

/** Endless; counts what was asked of it. */
function counting() {
  const seen = { events: 0, ended: false };
  async function* source(): AsyncGenerator<string, void, void> {
    try {
      for (;;) yield `data: ${seen.events++}\n\n`;
    } finally {
      seen.ended = true;
    }
  }
  return { seen, source: source() };
}

Deno.test("eventStream() asks its source for no more than is read", async () => {
  const { seen, source } = counting();
  let left = 0;
  const reader = eventStream(source, () => left++).body!.getReader();
  for (let i = 0; i < 3; i++) await reader.read();
  assert.ok(seen.events <= 5, `${seen.events} events for 3 that were read`);
  await reader.cancel();
  assert.ok(seen.ended);
  assert.equal(left, 1);
});

Deno.test("eventStream() ends its source when nobody takes what is there", async () => {
  const { seen, source } = counting();
  let left = 0;
  const reader = eventStream(source, () => left++, { stallMs: 20 }).body!.getReader();
  await reader.read();
  await until(() => seen.ended);
  assert.equal(left, 1);
  await assert.rejects(async () => {
    for (;;) await reader.read();
  }, /stopped reading/);
});

Deno.test("eventStream() waits as long as its source does", async () => {
  async function* source(): AsyncGenerator<string, void, void> {
    await new Promise((done) => setTimeout(done, 100));
    yield "data: late\n\n";
  }
  const left = () => assert.fail("the client is there");
  assert.equal(await eventStream(source(), left, { stallMs: 20 }).text(), "data: late\n\n");
});
