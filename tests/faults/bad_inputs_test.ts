import assert from "node:assert/strict";
import { campaign } from "./bad_inputs.ts";
import { mergeReports, passed } from "./report.ts";

Deno.test("whatever a server must refuse it refuses, and is as before", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.bad_inputs.tried > 1000, `${report.bad_inputs.tried}`);
});
