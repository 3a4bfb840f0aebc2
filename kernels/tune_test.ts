import assert from "node:assert/strict";
import { loadKernelModules } from "./load.ts";
import { chooseAccumulate } from "./tune.ts";

Deno.test("chooseAccumulate() names a variant that loads for codes of 4 and 8 bits", async () => {
  const choice = await chooseAccumulate();
  assert.deepEqual(Object.keys(choice), ["4", "8"]);
  assert.ok(Object.values(choice).every((variant) => ["i16", "i32"].includes(variant)));
  assert.equal((await loadKernelModules(["base", "f32", "q8", "w6q4"], choice)).size, 4);
});
