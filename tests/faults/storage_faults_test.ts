import assert from "node:assert/strict";
import { mergeReports, passed } from "./report.ts";
import { campaign } from "./storage_faults.ts";

Deno.test("a server whose disk fails says so, loses nothing that it acknowledged, and recovers", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.crashes.tried > 0 && report.requests.sent > 0);
});
