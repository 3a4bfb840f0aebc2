import assert from "node:assert/strict";
import { layersOf } from "./shapes.ts";

Deno.test("layersOf() lays q, k, v and gate, up side by side", () => {
  assert.deepEqual(layersOf("smollm2-135m").map(({ layer, shape }) => [layer, ...shape]), [
    ["qkv", 960, 576],
    ["o", 576, 576],
    ["gate+up", 3072, 576],
    ["down", 576, 1536],
  ]);
});
