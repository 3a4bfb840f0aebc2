import assert from "node:assert/strict";
import { SharedStats } from "./shared_stats.ts";

Deno.test("SharedStats read elsewhere what was written last", () => {
  const writer = new SharedStats(), reader = new SharedStats(writer.buffer);
  const names = Object.keys(reader.read());
  const stats = Object.fromEntries(names.map((name, i) => [name, i + 1]));
  // Cast: all names are there.
  writer.write(stats as unknown as ReturnType<SharedStats["read"]>);
  assert.deepEqual({ ...reader.read() }, stats);
});
