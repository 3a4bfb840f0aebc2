/** The loss of distillation and its gradient, against central differences and against what KL is. */
import assert from "node:assert/strict";
import { SMALL_DECODER } from "../../models/testing/small_spec.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { seededRandom } from "../random.ts";
import { headGradientGraph, TEACHER } from "./head_gradient.ts";
import { checkGradient } from "./testing/check_gradient.ts";
import { interpret, type Values, values } from "./testing/interpreter.ts";

const TOKENS = 3, HIDDEN = 6, VOCABULARY = 9;
const RMS: ModelSpec = { ...SMALL_DECODER, hiddenSize: HIDDEN, vocabSize: VOCABULARY };
const CASES: Readonly<Record<string, { spec: ModelSpec; bias?: boolean }>> = {
  "rmsnorm": { spec: RMS },
  "LayerNorm and a soft cap": {
    spec: { ...RMS, norm: { kind: "layernorm", eps: 1e-5 }, logitsSoftCap: 2 },
    bias: true,
  },
  "no final norm": { spec: { ...RMS, norm: { ...RMS.norm, placement: "after" } } },
};

function inputsOf(bias: boolean): Record<string, Values> {
  const random = seededRandom(2);
  const make = (...shape: number[]) =>
    values(Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal()), ...shape);
  const norms = [...bias ? ["finalNorm.bias"] : [], "finalNorm"].flatMap((name) => [name, TEACHER + name]);
  return {
    x: make(TOKENS, HIDDEN),
    t: make(TOKENS, HIDDEN),
    head: make(VOCABULARY, HIDDEN),
    ...Object.fromEntries(norms.map((name) => [name, make(HIDDEN)])),
  };
}

for (const [what, { spec, bias = false }] of Object.entries(CASES)) {
  Deno.test(`the gradient of the divergence behind ${what}`, () => {
    const options = { spec, tokens: TOKENS, bias }, inputs = inputsOf(bias);
    const forward = headGradientGraph({ ...options, normGradient: false, inputGradient: false });
    assert.deepEqual(forward.outputs, ["kl"]);
    const { kl, ...found } = interpret(
      headGradientGraph({ ...options, normGradient: true, inputGradient: true }),
      inputs,
    );
    assert.ok(kl.data.every((v) => v > 0));
    const gradients = Object.fromEntries(
      Object.entries(found).map(([name, v]) => [name === "dx" ? "x" : name.slice("d.".length), v]),
    );
    assert.equal(Object.keys(gradients).length, 1 + (what === "no final norm" ? 0 : bias ? 2 : 1));
    const weights = values([1, 1, 1], TOKENS);
    checkGradient({ forward, output: "kl", weights, inputs, gradients });
  });
}

Deno.test("a student that is its teacher has neither a divergence nor a gradient", () => {
  const inputs = inputsOf(false),
    same = { ...inputs, t: inputs.x, [`${TEACHER}finalNorm`]: inputs.finalNorm };
  const found = interpret(
    headGradientGraph({ spec: RMS, tokens: TOKENS, normGradient: true, inputGradient: true }),
    same,
  );
  for (const { data } of Object.values(found)) assert.ok(data.every((v) => Math.abs(v) < 1e-12));
});
