import assert from "node:assert/strict";
import fc from "fast-check";
import { seededRandom } from "../../compress/random.ts";
import { parseLengths } from "./lengths.ts";

const drawn = (text: string, seed = 1, count = 20_000): number[] => {
  const lengths = parseLengths(text)!, random = seededRandom(seed);
  return Array.from({ length: count }, () => lengths.draw(random));
};
const mean = (x: readonly number[]) => x.reduce((a, b) => a + b, 0) / x.length;

Deno.test("lengths have the mean, spread and bounds that were written", () => {
  assert.deepEqual([...new Set(drawn("128"))], [128]);
  assert.deepEqual([...new Set(drawn("fixed:7"))], [7]);
  const uniform = drawn("uniform:3-6");
  assert.deepEqual([...new Set(uniform)].sort(), [3, 4, 5, 6]);
  assert.ok(Math.abs(mean(uniform) - 4.5) < 0.05);
  const normal = drawn("normal:100,10"), deviation = Math.sqrt(mean(normal.map((x) => (x - 100) ** 2)));
  assert.ok(Math.abs(mean(normal) - 100) < 0.5 && Math.abs(deviation - 10) < 0.3);
  const lognormal = drawn("lognormal:100,0.5").sort((a, b) => a - b);
  assert.ok(Math.abs(lognormal[10_000] - 100) < 3);
  assert.ok(Math.abs(mean(lognormal) / parseLengths("lognormal:100,0.5")!.mean - 1) < 0.03);
  assert.ok(Math.max(...drawn("lognormal:100,1,300")) <= 300);
  assert.ok(Math.min(...drawn("normal:2,50")) >= 1);
});

Deno.test("a seed gives the same lengths; whole numbers of at least 1, whatever the parameters", () => {
  const text = fc.tuple(
    fc.constantFrom("normal", "lognormal"),
    fc.integer({ min: 1, max: 4000 }),
    fc.double({ min: 0, max: 3, noNaN: true }),
    fc.integer({ min: 1, max: 5000 }),
  ).map(([kind, a, b, most]) => `${kind}:${a},${b.toFixed(3)},${most}`);
  fc.assert(fc.property(text, fc.nat(), (text, seed) => {
    const lengths = drawn(text, seed, 20);
    assert.deepEqual(drawn(text, seed, 20), lengths);
    const most = Number(text.split(",")[2]);
    for (const n of lengths) assert.ok(Number.isInteger(n) && n >= 1 && n <= most, `${text}: ${n}`);
  }));
});

Deno.test("what is no distribution is none", () => {
  for (
    const text of [
      "",
      "0",
      "-3",
      "x",
      "uniform:5",
      "uniform:9-3",
      "normal:5",
      "zipf:1,2",
      "constructor:1",
      "1:2:3",
    ]
  ) assert.equal(parseLengths(text), null, text);
});
