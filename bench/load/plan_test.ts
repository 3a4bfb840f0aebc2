import assert from "node:assert/strict";
import { loadPlan, type LoadSpec, openTarget } from "./plan.ts";
import { DEFAULT_SCALE } from "./probe.ts";
import { finishEvent, ScriptedServer, textEvent, wholeAnswer } from "./testing/scripted_server.ts";

const SPEC: LoadSpec = {
  load: { kind: "closed", concurrency: 1 },
  limit: { requests: 10, seconds: Infinity },
  warmup: null,
  slo: {},
  seed: 1,
  inputTokens: "60",
  outputTokens: "8",
  sharedPrefix: null,
};
const wordsOf = (prompt: unknown) => String(prompt).split(" ").length;

Deno.test("a plan is made of plain data, its prompts as long as the server counts them", async () => {
  // Two tokens a word, and ten of a template.
  await using server = new ScriptedServer(({ prompt }) => wholeAnswer(1, 10 + 2 * wordsOf(prompt)));
  const opened = await openTarget({ baseUrl: server.url, timeoutMs: 20_000 });
  assert.deepEqual([opened.target.model, opened.target.endpoint, opened.counted], [
    "stub",
    "completions",
    true,
  ]);
  assert.deepEqual(opened.scale, { base: 10, perWord: 2 });
  assert.equal(server.bodies.length, 2);
  const { prompts, limit } = loadPlan(opened, structuredClone(SPEC));
  const { prompt, outputTokens } = prompts.next();
  assert.deepEqual([wordsOf(prompt), outputTokens, limit.requests], [25, 8, 10]);
  assert.throws(() => loadPlan(opened, { ...SPEC, inputTokens: "many" }), /"many" is no number of tokens/);
});

Deno.test("without usage words count by a rule of thumb; what cannot be asked is an error before the load", async () => {
  await using silent = new ScriptedServer(() => ({ pieces: [textEvent("x"), finishEvent] }));
  const { scale, counted } = await openTarget({ baseUrl: silent.url, model: "m", timeoutMs: 20_000 });
  assert.deepEqual([scale, counted, silent.bodies[0].model], [DEFAULT_SCALE, false, "m"]);
  await using refusing = new ScriptedServer(() => ({
    status: 404,
    pieces: ['{"error":{"message":"no such model"}}'],
  }));
  await assert.rejects(
    openTarget({ baseUrl: refusing.url, model: "m", timeoutMs: 20_000 }),
    /A first request failed \(http_404\): no such model/,
  );
  const nowhere = `${refusing.url}/nowhere`;
  await assert.rejects(openTarget({ baseUrl: nowhere, timeoutMs: 20_000 }), /nowhere\/models/);
});
