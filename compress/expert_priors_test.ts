import assert from "node:assert/strict";
import type { InputName } from "../models/spec.ts";
import { addExpertPriors } from "./expert_priors.ts";
import { type InputSums, shared } from "./statistics.ts";

/** Sums over so many equal tokens x. */
function sumsOf(tokens: number, x: readonly number[]): InputSums {
  const n = x.length, H = shared(n * n);
  x.forEach((a, i) => x.forEach((b, j) => H[i * n + j] = j >= i ? tokens * a * b : 0));
  return { tokens, momentTokens: tokens, squares: Float64Array.from(x, (v) => tokens * v * v), H };
}

const means = ({ squares, tokens }: InputSums): number[] => [...squares].map((sum) => sum / tokens);

function withPriors(sums: Readonly<Partial<Record<InputName, InputSums>>>) {
  addExpertPriors(new Map(Object.entries(sums) as [InputName, InputSums][]));
  return sums;
}

Deno.test("addExpertPriors() gives an expert that no token chose what all tokens are like", () => {
  const {
    "experts.0.mlp": chosen,
    "experts.1.mlp": unused,
    "experts.1.down": down,
  } = withPriors({
    "experts.0.mlp": sumsOf(500, [1, 2, 0]),
    "experts.1.mlp": sumsOf(0, [0, 0, 0]),
    "experts.0.down": sumsOf(500, [3, 0]),
    "experts.1.down": sumsOf(0, [0, 0]),
  });
  assert.deepEqual(means(unused!), [1, 4, 0]);
  assert.deepEqual([...unused!.H!].map((sum) => sum / unused!.momentTokens), [1, 2, 0, 0, 4, 0, 0, 0, 0]);
  assert.deepEqual(means(chosen!), [1, 4, 0]);
  assert.deepEqual(means(down!), [4.5, 4.5]);
  assert.deepEqual([...down!.H!].map((sum) => sum / down!.momentTokens), [4.5, 0, 0, 4.5]);
});

Deno.test("addExpertPriors() hardly changes what thousands of tokens say, and nothing of other inputs", () => {
  const attn = sumsOf(8, [5, 6]);
  const { "experts.0.mlp": many } = withPriors({
    attn,
    "experts.0.mlp": sumsOf(8192, [1, 2]),
    "experts.1.mlp": sumsOf(8192, [2, 1]),
  });
  means(many!).forEach((mean, j) => assert.ok(Math.abs(mean / [1, 4][j] - 1) < 0.01, `${mean}`));
  assert.deepEqual(attn, sumsOf(8, [5, 6]));
});

Deno.test("addExpertPriors() knows squares without moments", () => {
  const { "experts.1.mlp": unused } = withPriors({
    "experts.0.mlp": { ...sumsOf(10, [1, 3]), momentTokens: 0, H: null },
    "experts.1.mlp": { ...sumsOf(0, [0, 0]), momentTokens: 0, H: null },
  });
  assert.deepEqual(means(unused!), [1, 9]);
});
