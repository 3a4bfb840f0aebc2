import assert from "node:assert/strict";
import { float16FromBits, widenBfloat16, widenFloat16 } from "./widen.ts";

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
