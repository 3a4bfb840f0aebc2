import assert from "node:assert/strict";
import { writeArtifact } from "../models/testing/artifact.ts";
import { benchStart } from "./start.ts";

Deno.test("benchStart() starts the real server on an artifact and gives every phase", async () => {
  const parent = await Deno.makeTempDir();
  try {
    await writeArtifact(`${parent}/a`);
    const { median, spread, weights_bytes } = await benchStart(`${parent}/a`, { repeats: 1, threads: 1 });
    for (const [name, value] of Object.entries(median)) assert.ok(value >= 0, `${name} is ${value}`);
    assert.ok(median.first_token_ms > median.listening_ms);
    assert.ok(median.load_mb_per_second > 0 && median.cache_mb_per_second > 0);
    assert.equal(spread.first_token_ms.min, median.first_token_ms);
    assert.ok(weights_bytes > 1e6);
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});
