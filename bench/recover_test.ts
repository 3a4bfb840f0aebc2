import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { RECOVER_KINDS } from "../compress/recovery/options.ts";
import { benchRecover } from "./recover.ts";

const OPTIONS = {
  source: { shape: "tiny", blocks: 1 },
  train: "lowrank+sparse",
  rate: 0.5,
  rankRatio: 0.125,
  steps: 2,
  batch: 2,
  length: 16,
} as const;

Deno.test("benchRecover() times the steps of both kinds and says what of them is products", async () => {
  for (const kind of RECOVER_KINDS) {
    const report = await benchRecover({ ...OPTIONS, kind });
    assert.deepEqual([report.kind, report.blocks, report.source], [kind, 1, "tiny"]);
    assert.ok(report.tokens_per_second > 0);
    assert.ok(Object.values(report.step_seconds).every((seconds) => seconds > 0));
    assert.ok(report.matmul_share > 0 && report.matmul_share < 1, `${report.matmul_share}`);
    assert.ok(report.peak_rss_bytes > 4 * report.trained_values);
  }
});

Deno.test("benchRecover() refuses texts that are longer than the model's context", async () => {
  const long = benchRecover({ ...OPTIONS, kind: "distill", length: 1000 });
  await assert.rejects(long, (e) => e instanceof OatmillError && /context has 256/.test(e.message));
});
