import assert from "node:assert/strict";
import { join } from "node:path";
import { LOWEST_PRIORITY } from "../engine/low_priority.ts";
import { OatmillError } from "../errors.ts";
import { FakeHub } from "../hub/testing/fake_hub.ts";
import { recipeSchema } from "../models/recipe.ts";
import { niceValues } from "../tests/nice_values.ts";
import { AT_ONCE } from "./compress_task.ts";
import { runTask } from "./run_task.ts";

const SOURCE = new URL("../models/default", import.meta.url).pathname;

const lowest = (values: readonly number[]) => values.filter((n) => n === LOWEST_PRIORITY).length;

Deno.test({
  name: "runTask() works in threads of the lowest priority, and not the threads that serve",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const dir = await Deno.makeTempDir();
    const cancel = new AbortController();
    const own = Math.min(...await niceValues());
    let low: Promise<number> | null = null;
    const text = join(dir, "text.txt"); // sampling would take longer than everything else here
    await Deno.writeTextFile(text, "Once upon a time, there was a little girl named Lily. ".repeat(40));
    const task = {
      archive: null,
      source: SOURCE,
      out: join(dir, "out"),
      name: "x",
      recipe: recipeSchema.parse({
        calibration: { text, sequences: 2, length: 64 },
        evaluate: { tokens: 64 },
      }),
      maxBytes: 0,
      maxFiles: 0,
    };
    const work = runTask(task, {
      signal: cancel.signal,
      onProgress: ({ phase }) => {
        if (phase === "calibrate") low ??= niceValues().then(lowest).finally(() => cancel.abort());
      },
    });
    await assert.rejects(work, (e) => e instanceof OatmillError && e.code === "cancelled");
    await Deno.remove(dir, { recursive: true });
    // The job's own thread and one for each core; tests that run at this priority themselves show nothing.
    if (own !== LOWEST_PRIORITY) {
      assert.ok(await low! > navigator.hardwareConcurrency, `${await low!} threads`);
    }
  },
});

Deno.test("runTask() pulls a model of a hub first", async () => {
  const dir = await Deno.makeTempDir(), cancel = new AbortController(), phases: string[] = [];
  const read = (name: string) => Deno.readFile(join(SOURCE, name));
  const files = {
    "config.json": await read("config.json"),
    "tokenizer.json": await read("tokenizer.json"),
    "model.safetensors": await read("model.safetensors"),
  };
  await using hub = new FakeHub({ repo: "tiny/stories", files });
  const source = join(dir, "pulled");
  const task = {
    ...{ archive: null, source, out: join(dir, "out"), name: "x" },
    hub: { repo: "tiny/stories", access: { url: hub.url, token: null } },
    recipe: recipeSchema.parse({ method: "none", evaluate: { tokens: 64 } }),
    ...{ maxBytes: 2 ** 30, maxFiles: 10 },
  };
  const work = runTask(task, {
    signal: cancel.signal,
    onProgress: ({ phase }) => {
      phases.push(phase);
      if (phase !== "pull") cancel.abort(); // the model was opened: the rest is a compression like any other
    },
  });
  await assert.rejects(work, (e) => e instanceof OatmillError && e.code === "cancelled");
  assert.equal(phases[0], "pull");
  assert.deepEqual([...Deno.readDirSync(source)].map((e) => e.name).sort(), Object.keys(files).sort());
  const failing = runTask({ ...task, source: join(dir, "other"), hub: { ...task.hub, repo: "tiny/none" } }, {
    signal: new AbortController().signal,
    onProgress: () => {},
  });
  await assert.rejects(failing, (e) => e instanceof OatmillError && e.code === "source_not_found");
  await Deno.remove(dir, { recursive: true });
});

Deno.test("runTask() that is stopped at once goes on from what it had finished", async () => {
  const dir = await Deno.makeTempDir(), text = join(dir, "text.txt"), stop = new AbortController();
  await Deno.writeTextFile(text, "Once upon a time, there was a little girl named Lily. ".repeat(40));
  const calibration = { text, sequences: 2, length: 32 };
  const task = {
    ...{ archive: null, source: SOURCE, out: join(dir, "out"), work: join(dir, "work"), name: "x" },
    recipe: recipeSchema.parse({
      ...{ method: "none", values: "int4", rounding: "feedback", calibration },
      evaluate: { tokens: 64 },
    }),
    ...{ maxBytes: 0, maxFiles: 0 },
  };
  const first = runTask(task, {
    signal: stop.signal,
    onProgress: ({ phase, done }) => phase === "compress" && done === 2 && stop.abort(AT_ONCE),
  });
  await assert.rejects(first, (e) => e instanceof OatmillError && e.code === "cancelled");
  const messages: (string | undefined)[] = [];
  const { header } = await runTask(task, {
    signal: new AbortController().signal,
    onProgress: ({ message }) => void messages.push(message),
  });
  assert.ok(messages.some((message) => /^Resumed at block [2-6] of 6$/.test(message ?? "")), messages.join());
  assert.equal(header.recipe.calibration.text, "text.txt"); // whose disk it is on is nobody's business
  await Deno.remove(dir, { recursive: true });
});
