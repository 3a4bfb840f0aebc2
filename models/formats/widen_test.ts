import assert from "node:assert/strict";
import {
  float16FromBits,
  widenBfloat16,
  widenFloat16,
  widenFloat64,
  widenFloat8E4M3,
  widenFloat8E5M2,
} from "./widen.ts";

Deno.test("float16FromBits() and widenFloat16() agree on all 65,536 codes", () => {
  const codes = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const wide = new Float32Array(65536);
  widenFloat16(new Uint8Array(codes.buffer), wide);
  for (let i = 0; i < 65536; i++) assert.ok(Object.is(wide[i], float16FromBits(i)), `code ${i}`);
  assert.deepEqual([0x3c00, 0xc000, 0x7bff, 0x0001].map(float16FromBits), [1, -2, 65504, 2 ** -24]);
});

Deno.test("widenBfloat16() writes the upper half of a float32, also into the middle of an array", () => {
  const out = new Float32Array(4);
  widenBfloat16(new Uint8Array(Uint16Array.of(0x3f80, 0xff80).buffer), out.subarray(1, 3));
  assert.deepEqual([...out], [0, 1, -Infinity, 0]);
});

Deno.test("widenFloat8E4M3() gives the published values, and every finite code once", () => {
  const wide = new Float32Array(256);
  widenFloat8E4M3(Uint8Array.from({ length: 256 }, (_, i) => i), wide);
  // arXiv 2209.05433, table 1: largest 448, smallest normal 2^-6, smallest 2^-9, NaN S.1111.111
  assert.deepEqual([0x7e, 0x08, 0x01, 0xb8, 0x7f, 0xff].map((i) => wide[i]), [
    448,
    2 ** -6,
    2 ** -9,
    -1,
    NaN,
    NaN,
  ]);
  assert.ok(Object.is(wide[0x80], -0));
  for (let i = 1; i < 127; i++) {
    assert.ok(wide[i] > wide[i - 1] && wide[i + 128] === -wide[i], `code ${i}`);
  }
});

Deno.test("widenFloat8E5M2() gives the published values", () => {
  const codes = Uint8Array.of(0x7b, 0x04, 0x01, 0xbc, 0x7c, 0xfc, 0x7f), wide = new Float32Array(7);
  widenFloat8E5M2(codes, wide);
  assert.deepEqual([...wide], [57344, 2 ** -14, 2 ** -16, -1, Infinity, -Infinity, NaN]);
});

Deno.test("widenFloat64() rounds to the nearest float32", () => {
  const wide = new Float32Array(4);
  widenFloat64(new Uint8Array(Float64Array.of(0.1, -2.5, 1e300, 2 ** -149).buffer), wide);
  assert.deepEqual([...wide], [Math.fround(0.1), -2.5, Infinity, 2 ** -149]);
});
