import assert from "node:assert/strict";
import { mergeReports, passed } from "./report.ts";
import { campaign } from "./swaps.ts";

Deno.test("a model that changes its version, loses versions and is killed meanwhile loses no request", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.crashes.tried === 2 && report.requests.sent > 20);
});
