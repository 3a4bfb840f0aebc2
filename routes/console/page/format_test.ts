import assert from "node:assert/strict";
import { bytes, digits, duration, percent } from "./format.ts";

Deno.test("numbers have three digits and no exponents", () => {
  const shown = [0, 0.000123, 0.0456, 1.234, 12.34, 123.4, 1234.5, 9_876_543, NaN].map(digits);
  assert.deepEqual(shown, ["0", "0.000123", "0.0456", "1.23", "12.3", "123", "1,235", "9,876,543", "–"]);
  assert.equal(percent(0.539), "53.9 %");
});

Deno.test("bytes are decimal, durations as people say them", () => {
  assert.deepEqual([0, 999, 1000, 5_340_000, 98_362_432, 2e12, 3e15].map(bytes), [
    "0 B",
    "999 B",
    "1 KB",
    "5.34 MB",
    "98.4 MB",
    "2 TB",
    "3,000 TB",
  ]);
  assert.deepEqual([0.0421, 1.5, 59, 60, 200, 7500].map(duration), [
    "42 ms",
    "1.5 s",
    "59 s",
    "1 min 0 s",
    "3 min 20 s",
    "2 h 5 min",
  ]);
});
