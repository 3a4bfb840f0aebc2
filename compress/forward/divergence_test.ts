import assert from "node:assert/strict";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { toShared } from "../statistics.ts";
import { runDivergence } from "./divergence_job.ts";

/** f32 products against f64. */
const TOLERANCE = 1e-5;

Deno.test("runDivergence() is the mean of KL(reference || variant) over the tokens", async () => {
  const random = seededRandom(5), tokens = 6, width = 8, vocabulary = 5000; // more than one chunk
  const values = (n: number) => Float32Array.from({ length: n }, () => random.normal());
  const p = values(tokens * width),
    q = p.map((x) => x + 0.3 * random.normal()),
    head = values(vocabulary * width);
  const logProbabilities = (x: Float32Array, t: number) => {
    const logits = Array.from({ length: vocabulary }, (_, v) => {
      let sum = 0;
      for (let j = 0; j < width; j++) sum += x[t * width + j] * head[v * width + j];
      return sum;
    });
    const sum = Math.log(logits.reduce((total, z) => total + Math.exp(z), 0));
    return { sum, of: logits.map((z) => z - sum) };
  };
  let expected = 0;
  const logSums = new Float32Array(tokens);
  for (let t = 0; t < tokens; t++) {
    const a = logProbabilities(p, t), b = logProbabilities(q, t);
    logSums[t] = a.sum;
    a.of.forEach((x, v) => expected += Math.exp(x) * (x - b.of[v]) / tokens);
  }
  const linalg = await LinalgRuntime.create();
  const [found, itself] = await runDivergence({
    kind: "divergence",
    reference: toShared(p),
    logSums,
    hidden: [toShared(q), toShared(p)],
    head: toShared(head),
    width,
    from: 0,
    to: 2,
  }, linalg);
  assert.ok(Math.abs(found - expected) < TOLERANCE, `${found} against ${expected}`);
  assert.ok(Math.abs(itself) < TOLERANCE, `${itself}`);
  await linalg.close();
});
