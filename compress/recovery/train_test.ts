/** The loop alone, on a sum of squares whose gradient is known. */
import assert from "node:assert/strict";
import { LinalgPool } from "../linalg/pool.ts";
import { Journal } from "../resume/journal.ts";
import { shared } from "../statistics.ts";
import { RECOVER_DEFAULTS } from "./options.ts";
import { SavedState } from "./state.ts";
import { type Objective, train, type TrainOptions } from "./train.ts";

const LENGTH = 4, SIZE = 6;

/** Sequence s wants all values to be s + 1; the held-out one what `wanted` says. */
function squares(wanted: number): Objective & { readonly values: Float32Array } {
  const values = shared(SIZE);
  return {
    values,
    vectors: [values],
    pass([...sequences], gradients) {
      gradients?.[0].fill(0);
      let loss = 0;
      for (const s of sequences) {
        const aim = s === 3 ? wanted : s + 1;
        values.forEach((x, i) => {
          loss += (x - aim) ** 2 / 2;
          if (gradients) gradients[0][i] += x - aim;
        });
      }
      return Promise.resolve({ loss, forwardMs: 0, gradientMs: 0 });
    },
  };
}

async function run(objective: Objective, over: Partial<TrainOptions> = {}) {
  using pool = new LinalgPool(1);
  const options = {
    ...RECOVER_DEFAULTS.distill,
    tokens: 40 * 3 * LENGTH,
    batch: 3,
    learningRate: 0.3,
    evaluations: 40,
    patience: 100,
  };
  const state = new SavedState({ journal: Journal.open(null) });
  return await train(objective, {
    options,
    pool,
    sequences: 3,
    heldOut: 1,
    length: LENGTH,
    state,
    subject: 0,
    ...over,
    ...over.options ? { options: { ...options, ...over.options } } : {},
  });
}

Deno.test("train() ends with the tokens, near the mean of what the sequences want", async () => {
  const objective = squares(2), course = await run(objective);
  assert.deepEqual([course.step, course.stopped], [40, "tokens"]);
  assert.ok(course.best < course.before / 10, `${course.before} -> ${course.best}`);
});

Deno.test("train() ends early when the held-out loss falls no more, with the best parameters", async () => {
  const objective = squares(1), losses: number[] = [];
  const course = await run(objective, {
    options: {
      ...RECOVER_DEFAULTS.distill,
      patience: 2,
      tokens: 480,
      batch: 3,
      learningRate: 0.3,
      evaluations: 40,
    },
    onStep: () => losses.push(objective.values[0]),
  });
  assert.equal(course.stopped, "early");
  assert.ok(course.step < 40);
  const best = losses.reduce((a, b) => Math.abs(b - 1) < Math.abs(a - 1) ? b : a);
  assert.equal(objective.values[0], best); // not where the last steps went
});

Deno.test("train() halves a rate that is too high, from the best parameters", async () => {
  const objective = squares(2);
  const course = await run(objective, {
    options: {
      ...RECOVER_DEFAULTS.distill,
      tokens: 40 * 3 * LENGTH,
      batch: 3,
      learningRate: 20, // the first step alone goes further past 2 than 0 is before it
      warmupShare: 0,
      evaluations: 40,
      patience: 10,
    },
  });
  assert.ok(course.rateShare < 0.5, `${course.rateShare}`);
  assert.ok(course.best < course.before / 10, `${course.before} -> ${course.best}`);
});

Deno.test("train() that is cancelled keeps the best so far", async () => {
  const abort = new AbortController(), objective = squares(1), seen: number[] = [];
  const course = await run(objective, {
    signal: abort.signal,
    onStep: ({ course }) => {
      seen.push(objective.values[0]);
      if (course.step === 30) abort.abort();
    },
  });
  assert.deepEqual([course.step, course.stopped], [30, "cancelled"]);
  assert.ok(course.best < course.before);
  assert.equal(objective.values[0], seen.reduce((a, b) => Math.abs(b - 1) < Math.abs(a - 1) ? b : a));
});

Deno.test("train() takes no step by a gradient that is not finite", async () => {
  const objective = squares(2);
  const spoiled: Objective = {
    ...objective,
    async pass(sequences, gradients) {
      const passed = await objective.pass(sequences, gradients);
      if (gradients && sequences.includes(1)) gradients[0][2] = NaN;
      return passed;
    },
  };
  const course = await run(spoiled);
  assert.deepEqual([course.stopped, course.best], ["tokens", course.before]);
  assert.ok(objective.values.every((x) => x === 0));
});

Deno.test("train() moves each part of a vector by its own rate", async () => {
  const objective = squares(2);
  const rates = [[{ length: 2, rate: 1 }, { length: 1, rate: 0 }, { length: 3, rate: 0.5 }]];
  await run({ ...objective, rates }, {
    options: { ...RECOVER_DEFAULTS.distill, tokens: 3 * LENGTH, batch: 3, learningRate: 0.1 },
  });
  // The first step of AdamW is the rate, whatever the gradient's size.
  const wanted = [0.1, 0.1, 0, 0.05, 0.05, 0.05];
  objective.values.forEach((x, i) => assert.ok(Math.abs(x - wanted[i]) < 1e-6, `${i}: ${x}`));
});
