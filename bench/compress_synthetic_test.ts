import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import type { WeightRole } from "../models/checkpoint.ts";
import { openCheckpoint } from "../models/open.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { writeSyntheticCheckpoint } from "./synthetic_checkpoint.ts";
import { benchCompress } from "./compress_synthetic.ts";

Deno.test("writeSyntheticCheckpoint() writes shards that open as a model of that shape", async () => {
  const spec = { ...SYNTHETIC_SPECS.tiny, tiedEmbeddings: false, vocabSize: 3000 };
  const folder = await Deno.makeTempDir();
  const bytes = await writeSyntheticCheckpoint(folder, spec);
  const shards = [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".safetensors"));
  assert.equal(shards.length, spec.blocks + 1);
  const checkpoint = await openCheckpoint(folder);
  try {
    const { family: _, architecture: __, ...found } = checkpoint.spec;
    const { family: ___, architecture: ____, ...wanted } = spec;
    assert.deepEqual(found, wanted);
    assert.equal(checkpoint.tensorBytes, bytes);
    const deviations: [WeightRole, number][] = [
      ["embedding", 1],
      ["head", spec.hiddenSize ** -0.5],
      ["block.1.down", spec.mlp.intermediateSize ** -0.5],
    ];
    for (const [role, deviation] of deviations) {
      const { data } = await checkpoint.read(role);
      const found = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
      assert.ok(Math.abs(found / deviation - 1) < 0.02, `${role}: ${found} is not ${deviation}`);
    }
    assert.ok((await checkpoint.read("block.0.attnNorm")).data.every((x) => x === 1));
  } finally {
    checkpoint.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("writeSyntheticCheckpoint() refuses what a config.json of the Llama family cannot say", async () => {
  const written = writeSyntheticCheckpoint("/nowhere", SYNTHETIC_SPECS["vit-b"]);
  await assert.rejects(written, (e) => e instanceof OatmillError && e.code === "invalid_request");
});

Deno.test("benchCompress() compresses some blocks and says what all of them would take", async () => {
  const report = await benchCompress({
    shape: "tiny",
    blocks: 1,
    recipe: { method: "wanda", allocation: "uniform" },
    sequences: 2,
    length: 32,
    workMemoryBytes: 0,
  });
  assert.deepEqual([report.blocks, report.whole.blocks, report.method], [1, 2, "wanda"]);
  assert.ok(report.peak_rss_bytes > report.checkpoint_bytes);
  const { sample, ...others } = report.phases;
  const whole = sample! + 2 * Object.values(others).reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(report.whole.hours * 3600 - whole) < 1e-6);
});
