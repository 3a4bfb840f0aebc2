/** Every encoder against its recorded reference, through the whole engine on the exact (f32) path. */
import assert from "node:assert/strict";
import { ENCODER_ORACLES, encoderCases, type RecordedOutput } from "../models/testing/encoder_oracles.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import type { EncoderOutput } from "../models/classifier.ts";
import { openModel } from "./open_model.ts";

/** Of the oracles' README: f32 against f64 differs by 2e-5 at most, the least mistake that was tried by 0.015. */
const TOLERANCE = 1e-3;

function assertClose(actual: ArrayLike<number>, expected: readonly number[] | undefined, what: string): void {
  if (!expected) return;
  assert.equal(actual.length, expected.length, what);
  const worst = expected.reduce((most, v, i) => Math.max(most, Math.abs(v - actual[i])), 0);
  assert.ok(worst <= TOLERANCE, `${what}: differs by ${worst}, allowed ${TOLERANCE}`);
}

/** Everything that was recorded. */
function check(
  { states, pooled, logits }: EncoderOutput,
  expected: RecordedOutput,
  hidden: number,
  name: string,
): void {
  const { features } = expected;
  const n = states.length / hidden,
    shape = features?.last_hidden_state_shape ?? expected.last_hidden_state_shape;
  if (shape) assert.deepEqual([n, hidden], [...shape], name);
  const cls = states.subarray(0, hidden);
  const mean = Array.from({ length: hidden }, (_, j) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += states[i * hidden + j];
    return sum / n;
  });
  assertClose(cls, features?.cls ?? expected.last_hidden_state_cls, `${name}, first state`);
  assertClose(mean, features?.mean_all_tokens ?? expected.last_hidden_state_mean_all_tokens, `${name}, mean`);
  assertClose(states, (features?.last_hidden_state ?? expected.last_hidden_state)?.flat(), `${name}, states`);
  assertClose(
    pooled,
    expected.image_embeds ?? features?.pooler_output ?? expected.pooler_output,
    `${name}, pooled`,
  );
  assert.equal(logits === null, expected.logits === undefined, name);
  assertClose(logits ?? [], expected.logits, `${name}, logits`);
}

for (const family of ENCODER_ORACLES) {
  oracleTest(`${family} equals its oracle`, `oracles/${family}`, async () => {
    for (const threads of [1, 2]) {
      const model = await openModel(shared(`oracles/${family}`).pathname, { threads });
      try {
        assert.ok(model.encoder);
        const cases = await encoderCases(family);
        const outputs = await Promise.all(cases.map(({ input }) => model.encoder!.run(input)));
        cases.forEach(({ name, output }, i) => check(outputs[i], output, model.spec.hiddenSize, name));
      } finally {
        await model.engine.close();
      }
    }
  });
}
