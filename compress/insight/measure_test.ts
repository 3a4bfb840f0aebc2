/** On the bundled model: an artifact without insight, beside its dense model and alone. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { outlierRatio } from "../allocation/owl.ts";
import { openArtifact } from "../../models/formats/artifact.ts";
import { openCheckpoint } from "../../models/open.ts";
import { DEFAULT_MODEL, writeArtifact } from "../../models/testing/artifact.ts";
import { seededRandom } from "../random.ts";
import { measureInsight } from "./measure.ts";

/** int8 weights with a scale for each row and 64 columns. */
const INT8_ERROR = 1e-3;

async function withFiles(use: (files: { artifact: string; ids: string }) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    const artifact = join(dir, "a"), ids = join(dir, "ids.jsonl");
    await writeArtifact(artifact);
    const { below } = seededRandom(1);
    const lines = Array.from(
      { length: 3 },
      () => JSON.stringify(Array.from({ length: 32 }, () => below(2048))),
    );
    await Deno.writeTextFile(ids, lines.join("\n"));
    await use({ artifact, ids });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}
const calibration = (text: string) => ({ text, sequences: 3, length: 32, seed: 0 });

Deno.test("measureInsight() of a dense model and of the artifact beside it", () =>
  withFiles(async ({ artifact, ids }) => {
    const steps: number[] = [];
    const options = { calibration: calibration(ids), threads: 2 };
    const insight = await measureInsight({
      ...options,
      source: DEFAULT_MODEL,
      artifact: await openArtifact(artifact),
      onProgress: ({ done }) => steps.push(done),
    });
    assert.deepEqual(steps, [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(insight.calibration, { text: "ids.jsonl", sequences: 3, length: 32 });
    assert.equal(insight.layers.length, 6 * 7);
    for (const { name, inputError, plain, scaled, windows } of insight.layers) {
      assert.ok(inputError! > 0 && inputError! < INT8_ERROR, `${name}: ${inputError}`);
      assert.ok(plain!.effectiveRank > 1 && scaled!.effectiveRank > 1, name);
      assert.equal(windows, null, "dense weights have no windows");
    }
    const dense = await measureInsight({ ...options, source: DEFAULT_MODEL, artifact: null });
    assert.deepEqual(dense.blocks, insight.blocks, "of the dense weights");
    assert.ok(dense.layers.every((l) => l.inputError === null && l.scaled));
    const checkpoint = await openCheckpoint(DEFAULT_MODEL);
    const W = (await checkpoint.read("block.0.q")).data;
    checkpoint.close();
    // Without inputs that differ, the share of large weights is of the size of the layer's outliers.
    assert.ok(dense.layers[0].outliers![0] > outlierRatio([{ W, d: new Float32Array(256).fill(1) }], 3) / 10);
  }));

Deno.test("measureInsight() of an artifact alone tells what its packed tensors do", () =>
  withFiles(async ({ artifact, ids }) => {
    const insight = await measureInsight({
      source: null,
      artifact: await openArtifact(artifact),
      calibration: calibration(ids),
      threads: 1,
    });
    assert.equal(insight.calibration, null);
    assert.deepEqual(insight.blocks, Array.from({ length: 6 }, () => ({ outliers: null })));
    assert.ok(insight.layers.every((l) => !l.inputError && !l.scaled && !l.plain));
  }));

Deno.test("measureInsight() refuses another model's weights, and stops when asked to", () =>
  withFiles(async ({ artifact: dir, ids }) => {
    const artifact = await openArtifact(dir);
    const other = { ...artifact, spec: { ...artifact.spec, blocks: 7 } };
    const options = { source: DEFAULT_MODEL, calibration: calibration(ids), threads: 1 };
    await assert.rejects(measureInsight({ ...options, artifact: other }), {
      code: "invalid_request",
      message: /7 blocks/,
    });
    await assert.rejects(measureInsight({ ...options, artifact, signal: AbortSignal.abort() }), {
      code: "cancelled",
    });
  }));
