import assert from "node:assert/strict";
import { LINEAR_INPUT } from "../models/spec.ts";
import { checkStatistics } from "./finite.ts";
import { type BlockStatistics, shared, toShared } from "./statistics.ts";

const statistics = (input: string, d: readonly number[], H: readonly number[] | null): BlockStatistics =>
  Object.fromEntries([...new Set(Object.values(LINEAR_INPUT))].map((name) => [
    name,
    name === input
      ? { d: toShared(Float32Array.from(d)), H: H && toShared(Float32Array.from(H)) }
      : { d: shared(2), H: null },
  ])) as unknown as BlockStatistics;

Deno.test("checkStatistics() names block, input, column and layers of what is not finite", () => {
  const refused = (message: RegExp) => ({ code: "non_finite_activations", message });
  assert.throws(
    () => checkStatistics(statistics("attn", [1, NaN], null), 7),
    refused(/block 7: column 1 of input "attn" \(of q, k, v\)/),
  );
  assert.throws(
    () => checkStatistics(statistics("down", [1, 2e19], [1, 1, 1, Infinity]), 0),
    refused(/block 0: column 1 of input "down" \(of down\).*too large to be squared/),
  );
  const fine = statistics("o", [0, 3], [0, 0, 0, 9]);
  assert.equal(checkStatistics(fine, 0), fine);
  assert.equal(checkStatistics(null, 0), null);
});
