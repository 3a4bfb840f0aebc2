import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import { type Choice, Generation, merge } from "./generation.ts";
import { samplingOptions } from "./sampling.ts";

async function* source(
  values: number[],
  options: { delayMs?: number; fail?: boolean; onEnd?: () => void } = {},
) {
  try {
    for (const v of values) {
      if (options.delayMs) await new Promise((done) => setTimeout(done, options.delayMs));
      yield v;
    }
    if (options.fail) throw new RangeError("failed");
  } finally {
    options.onEnd?.();
  }
}

Deno.test("merge() yields everything of every source, fast ones first", async () => {
  const seen: string[] = [];
  for await (const { index, event } of merge([source([1, 2], { delayMs: 20 }), source([3, 4])])) {
    seen.push(`${index}:${event}`);
  }
  assert.deepEqual(seen, ["1:3", "1:4", "0:1", "0:2"]);
});

Deno.test("merge() ends all sources when one fails or the loop is left", async () => {
  for (const fail of [true, false]) {
    let ended = 0;
    const onEnd = () => ended++;
    const run = async () => {
      for await (const { event } of merge([source([1], { fail, onEnd }), source([1, 2, 3], { onEnd })])) {
        if (!fail && event === 2) break;
      }
    };
    if (fail) await assert.rejects(run, RangeError);
    else await run();
    await new Promise((done) => setTimeout(done, 0));
    assert.equal(ended, 2);
  }
});

Deno.test("Generation ends all choices when its reader leaves at a first event", async () => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 5 } });
  const { services, engines } = server;
  const choice: Choice = {
    promptIndex: 0,
    promptText: "a",
    promptIds: [97],
    maxTokens: 400,
    stopIds: [],
    stop: [],
    sampling: samplingOptions({ model: "fake" }, { vocabSize: 258, seed: 0 }),
    logprobs: null,
  };
  const request = new Request(server.url);
  const options = { operation: "chat", model: "fake", request, services } as const;
  const generation = await Generation.start(() => Promise.resolve([choice, choice, choice]), options);
  assert.equal(engines[0].running, 3);
  for await (const { event } of generation.events()) {
    assert.equal(event.type, "prompt");
    break;
  }
  await until(() => engines[0].running === 0);
  assert.equal(engines[0].finished, 0);
});
