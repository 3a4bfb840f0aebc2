import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../errors.ts";
import { byteRange } from "./byte_range.ts";

const start = (at: number, end: number) => ({ start: at, end });

Deno.test("byteRange() reads first and last byte, an open end and a suffix", () => {
  assert.deepEqual(byteRange("bytes=0-0", 10), start(0, 1));
  assert.deepEqual(byteRange("bytes=2-5", 10), start(2, 6));
  assert.deepEqual(byteRange("bytes=8-", 10), start(8, 10));
  assert.deepEqual(byteRange("bytes=8-99", 10), start(8, 10));
  assert.deepEqual(byteRange("bytes=-3", 10), start(7, 10));
  assert.deepEqual(byteRange("bytes=-30", 10), start(0, 10));
});

Deno.test("byteRange() leaves to the whole what is no single range of bytes", () => {
  for (const header of [undefined, "", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=5-2", "bytes=a-b"]) {
    assert.equal(byteRange(header, 10), null, String(header));
  }
});

Deno.test("byteRange() refuses what begins past the end", () => {
  for (
    const [header, size] of [["bytes=10-", 10], ["bytes=99-100", 10], ["bytes=-0", 10], [
      "bytes=0-",
      0,
    ]] as const
  ) {
    assert.throws(
      () => byteRange(header, size),
      (e) => e instanceof OatmillError && e.code === "range_not_satisfiable",
      header,
    );
  }
});

Deno.test("byteRange() stays within the file", () => {
  fc.assert(fc.property(fc.nat(), fc.nat(), fc.nat({ max: 1000 }), (a, b, size) => {
    try {
      const range = byteRange(`bytes=${a}-${b}`, size);
      assert.ok(range === null ? b < a : range.start === a && range.end <= size && range.start < range.end);
    } catch (error) {
      assert.ok(error instanceof OatmillError && a >= size);
    }
  }));
});
