import assert from "node:assert/strict";
import { type InstrumentInfo, INSTRUMENTS } from "./instruments.ts";

const entries = Object.entries(INSTRUMENTS) as [string, InstrumentInfo][];

Deno.test("INSTRUMENTS have unique names, units and descriptions", () => {
  assert.equal(new Set(entries.map(([, i]) => i.name)).size, entries.length);
  for (const [key, info] of entries) {
    assert.match(info.name, /^[a-z][a-z0-9_.]+$/, key);
    assert.ok(info.unit.length > 0, key);
    assert.match(info.description, /^[A-Z].*[^.]$/, key);
  }
});

Deno.test("INSTRUMENTS' histograms have rising buckets", () => {
  for (const [key, info] of entries) {
    assert.equal(info.buckets !== undefined, info.kind === "histogram", key);
    info.buckets?.forEach((b, i, all) => assert.ok(i === 0 || b > all[i - 1], key));
  }
});
