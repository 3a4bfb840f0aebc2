import assert from "node:assert/strict";
import { campaign } from "./large_requests.ts";
import { mergeReports, passed } from "./report.ts";

Deno.test("requests as large as they may be are answered or refused, and hold up no probe", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.bad_inputs.tried > 0);
});
