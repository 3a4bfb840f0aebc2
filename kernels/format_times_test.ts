import assert from "node:assert/strict";
import { measureFormatTimes } from "./format_times.ts";

Deno.test("measureFormatTimes() gives nanoseconds a weight, of decode and of batches", async () => {
  const times = await measureFormatTimes({ formats: ["q8", "w4q4"], streamBytes: 1 << 20 });
  assert.deepEqual(Object.keys(times), ["q8", "w4q4"]);
  for (const { decode, batched } of Object.values(times)) {
    // 8 GW/s to a thousand: what no machine leaves.
    assert.ok(decode > 1e-3 && decode < 10 && batched > 1e-3 && batched < 10, `${decode} ${batched}`);
  }
});
