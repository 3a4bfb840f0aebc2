import assert from "node:assert/strict";
import { join } from "node:path";
import { compress } from "../compress/pipeline.ts";
import { denseSpeed } from "./dense_speed.ts";

const SOURCE = new URL("../models/default/", import.meta.url).pathname;

Deno.test("denseSpeed() measures an artifact and a dense model of its shape", async () => {
  const folder = await Deno.makeTempDir(), out = join(folder, "out");
  try {
    const calibration = { sequences: 1, length: 32 };
    const recipe = { method: "none", values: "int8", calibration, evaluate: { tokens: 64 } } as const;
    await compress({ source: SOURCE, out, recipe, threads: 1 });
    const work = { promptTokens: 16, decodeTokens: 4, streams: 2, repeats: 1 };
    const { stored, dense, ratio, threads } = await denseSpeed(out, { threads: 1, work });
    assert.equal(threads, 1);
    for (const what of ["prefill", "decode", "streams"] as const) {
      assert.ok(stored[what] > 0 && dense[what] > 0);
      assert.ok(Math.abs(ratio[what] * dense[what] / stored[what] - 1) < 1e-9, what);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
