import assert from "node:assert/strict";
import fc from "fast-check";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { LINEAR_INPUT } from "../../models/spec.ts";
import { hasExactInt8, int8Weights, isCoded, smoothingFactors } from "./int8_linear.ts";
import { addMoments, addRows, codeScales, momentPanels } from "./moments.ts";

Deno.test("int8Weights() is within half a step of W diag(1 / factors), transposed", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 20 }),
      fc.integer(),
      (dOut, dIn, seed) => {
        const random = seededRandom(seed >>> 0);
        const W = Float32Array.from({ length: dOut * dIn }, () => random.normal());
        W.fill(0, 0, dIn); // a row of zeros
        const factors = Float32Array.from({ length: dIn }, () => 0.1 + Math.abs(random.normal()));
        const { codes, scales } = int8Weights(W, factors);
        for (let o = 0; o < dOut; o++) {
          for (let i = 0; i < dIn; i++) {
            const wanted = W[o * dIn + i] / factors[i], found = codes[i * dOut + o] * scales[o];
            assert.ok(Math.abs(found - wanted) <= scales[o] * 0.5001, `${o}, ${i}: ${found}, not ${wanted}`);
          }
        }
      },
    ),
  );
});

Deno.test("smoothingFactors() are powers -1/2 of the sizes, and finite for dead columns", () => {
  const factors = smoothingFactors(Float64Array.of(4, 1, 0));
  assert.ok(Math.abs(factors[1] / factors[0] - 2) < 1e-6);
  assert.ok(factors[2] >= factors[1] && factors[2] < 100);
  assert.ok(smoothingFactors(new Float64Array(3)).every(Number.isFinite));
});

Deno.test("layers whose errors spread are never in codes: q, k, v and down", () => {
  for (const name of Object.keys(LINEAR_INPUT)) {
    assert.equal(isCoded(name, "int8"), ["o", "gate", "up"].includes(name), name);
    assert.equal(isCoded(name, "f32"), false);
  }
  assert.equal(isCoded("attnNorm", "int8"), false);
});

Deno.test("hasExactInt8() is what a product of the largest codes says", async () => {
  const linalg = await LinalgRuntime.create();
  const right = await hasExactInt8(linalg);
  await linalg.close();
  const saturating = {
    run: (_key: string, _build: unknown, _inputs: unknown, { y }: { y: { data: Float32Array } }) => {
      y.data.fill(64 * 32767 / (2 * 255 * 127)); // pairs of products cut off at 16 bits
      return Promise.resolve();
    },
  } as unknown as LinalgRuntime;
  assert.equal(await hasExactInt8(saturating), false);
  assert.equal(typeof right, "boolean");
});

Deno.test("sums of codes' products, and the first rows', are X'X", () => {
  const n = 5, tokens = 4000, sequences = 3, random = seededRandom(7);
  const sizes = Float64Array.of(1, 0.2, 30, 3, 1), scales = codeScales("attn", sizes);
  const exact = new Float64Array(n * n), H = new Float32Array(n * n);
  const first = Float32Array.from({ length: sequences * n }, () => 1000 * random.normal());
  const codes = Array.from({ length: tokens }, () => {
    const x = Float64Array.from(sizes, (d) => d * random.normal());
    for (let i = 0; i < n; i++) for (let j = i; j < n; j++) exact[i * n + j] += x[i] * x[j];
    return x.map((v, j) => Math.round(v / scales[j]));
  });
  for (let s = 0; s < sequences; s++) {
    const x = first.subarray(s * n, (s + 1) * n);
    for (let i = 0; i < n; i++) for (let j = i; j < n; j++) exact[i * n + j] += x[i] * x[j];
  }
  const [panel] = momentPanels("attn", n), data = new Float32Array(n * n);
  for (const q of codes) {
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) data[i * n + j] += q[i] * q[j];
  }
  addMoments("attn", H, { [panel.output]: { data, shape: [n, n] } }, scales);
  addRows(H, first);
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      const unit = Math.sqrt(exact[i * n + i] * exact[j * n + j]);
      assert.ok(Math.abs(H[i * n + j] - exact[i * n + j]) < 0.01 * unit, `${i}, ${j}`);
    }
  }
});

Deno.test("codeScales() of inputs that are all zero are ones of nothing", () => {
  assert.ok(codeScales("down", new Float64Array(4)).every((s) => s > 0 && Number.isFinite(s)));
});
