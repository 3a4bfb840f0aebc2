/** Every decoder family as an ONNX graph: ONNX Runtime computes the logits that the engine serves of the artifact. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { openModel } from "../engine/open_model.ts";
import { exportModel } from "./export.ts";
import { distance, F32_NOISE } from "./testing/logits.ts";
import { inFolder, writeArtifactOf } from "./testing/sparse_low_rank.ts";

/** Two sequences, longer than any window of the oracles; longrope changes between their lengths and a short one's. */
const LENGTHS = [40, 5];
const idsOf = (length: number, seed: number) => Array.from({ length }, (_, i) => (i * 37 + seed) % 250);

/** [batch, length, vocab] */
async function onnxLogits(folder: string, batch: readonly (readonly number[])[]): Promise<Float32Array> {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const session = await InferenceSession.create(join(folder, "model.onnx"), { intraOpNumThreads: 1 });
  const ids = BigInt64Array.from(batch.flat(), BigInt);
  const { logits } = await session.run({
    input_ids: new Tensor("int64", ids, [batch.length, batch[0].length]),
  });
  const values = (logits.data as Float32Array).slice();
  await session.release();
  return values;
}

for (const oracle of DECODER_ORACLES) {
  oracleTest(
    `${oracle} leaves an artifact as ONNX with the same logits`,
    `oracles/${oracle}`,
    () =>
      inFolder(async (folder) => {
        const model = await writeArtifactOf(shared(`oracles/${oracle}`).pathname, folder);
        const out = join(folder, "out");
        await exportModel({ model, to: "onnx", out });
        const { engine } = await openModel(model, { threads: 1, kvFormat: "f32" });
        for (const length of LENGTHS) {
          const batch = [idsOf(length, 3), idsOf(length, 11)];
          const got = await onnxLogits(out, batch), wanted: number[] = [];
          for (const ids of batch) wanted.push(...await engine.logits(ids, { from: 0 }));
          const off = distance(Float32Array.from(wanted), got);
          assert.ok(off < F32_NOISE, `${length} tokens: off by ${off}`);
        }
        await engine.close();
      }),
  );
}
