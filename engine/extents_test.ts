import assert from "node:assert/strict";
import fc from "fast-check";
import { Extents } from "./extents.ts";

Deno.test("Extents never gives one address twice, and everything again when all is back", () => {
  const act = fc.record({ bytes: fc.integer({ min: 0, max: 9 }), give: fc.option(fc.nat()) });
  fc.assert(fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
    const extents = new Extents(100), taken: { address: number; bytes: number }[] = [];
    for (const { bytes, give } of acts) {
      if (give !== null && taken.length > 0) {
        const [one] = taken.splice(give % taken.length, 1);
        extents.give(one.address, one.bytes);
        continue;
      }
      const found = extents.find(bytes), address = extents.take(bytes);
      assert.deepEqual({ address, end: extents.end }, found);
      assert.ok(address >= 100 && address + bytes <= extents.end);
      if (bytes > 0) taken.push({ address, bytes });
      const sorted = taken.toSorted((a, b) => a.address - b.address);
      sorted.slice(1).forEach((one, i) => assert.ok(sorted[i].address + sorted[i].bytes <= one.address));
    }
    for (const { address, bytes } of taken) extents.give(address, bytes);
    const all = extents.end - 100;
    assert.equal(extents.take(all), 100);
    assert.equal(extents.end, 100 + all);
  }));
});

Deno.test("Extents lengthens a gap at the end instead of leaving it", () => {
  const extents = new Extents(64);
  const first = extents.take(10), second = extents.take(20);
  extents.give(second, 20);
  assert.deepEqual(extents.find(50), { address: second, end: second + 50 });
  extents.give(first, 10);
  assert.equal(extents.take(50), first);
  assert.equal(extents.end, first + 50);
});
