import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import type { RgbImage } from "./rgb_image.ts";
import { resample, RESAMPLING, type Resampling } from "./resample.ts";

function formulaImage(width: number, height: number): RgbImage {
  const data = new Uint8Array(3 * width * height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) data[i++] = 7 * c + 13 * y * y + 29 * x + x * y;
    }
  }
  return { width, height, data };
}

Deno.test("resample() gives Pillow's levels with every filter, reducing, enlarging and both at once", async () => {
  const file = new URL("testing/resampled.json", import.meta.url);
  const { cases } = JSON.parse(await Deno.readTextFile(file));
  assert.equal(cases.length, 96);
  for (const [fromWidth, fromHeight, width, height, how, wanted] of cases) {
    const got = resample(formulaImage(fromWidth, fromHeight), width, height, how as Resampling);
    const hash = createHash("sha256").update(got.data).digest("hex").slice(0, 16);
    assert.equal(hash, wanted, `${fromWidth} x ${fromHeight} to ${width} x ${height}, ${how}`);
  }
});

Deno.test("resample() keeps one colour that colour, whatever the sizes", () => {
  const size = fc.integer({ min: 1, max: 60 }), level = fc.integer({ min: 0, max: 255 });
  fc.assert(
    fc.property(size, size, size, size, level, fc.constantFrom(...RESAMPLING), (w, h, w2, h2, value, how) => {
      const flat = { width: w, height: h, data: new Uint8Array(3 * w * h).fill(value) };
      const got = resample(flat, w2, h2, how);
      assert.deepEqual(got, { width: w2, height: h2, data: new Uint8Array(3 * w2 * h2).fill(value) });
    }),
    { numRuns: 60 },
  );
});
