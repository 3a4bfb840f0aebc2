import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { openModel } from "./open_model.ts";

const DEFAULT_MODEL = new URL("../models/default/", import.meta.url).pathname;

Deno.test("openModel() leaves no threads behind when the tokenizer cannot be loaded", async () => {
  const dir = await Deno.makeTempDir();
  for (const { name } of Deno.readDirSync(DEFAULT_MODEL)) {
    if (name !== "tokenizer.json") await Deno.symlink(`${DEFAULT_MODEL}${name}`, `${dir}/${name}`);
  }
  await Deno.writeTextFile(`${dir}/tokenizer.json`, '{"model": {"type": "BPE", "vocab": 1}}');
  const started: Worker[] = [], real = globalThis.Worker;
  globalThis.Worker = class extends real {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      started.push(this);
    }
  };
  try {
    await assert.rejects(
      openModel(dir, { threads: 1 }),
      (e) => e instanceof OatmillError && e.code === "invalid_tokenizer",
    );
    assert.equal(started.length, 0);
  } finally {
    globalThis.Worker = real;
    for (const w of started) w.terminate();
    await Deno.remove(dir, { recursive: true });
  }
});
